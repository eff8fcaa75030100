"""The tools that a response's model was offered: an item for each server, and its events."""

from typing import Any

import pytest

from chat_gateway.model.tools_listed import ListedServer, ListedTool, ToolsListed
from chat_gateway.model.turn import Delta, Message
from contract.enums import Role
from tests.openai_types import events_of, response_of
from tests.service.chat_gateway.http_edge.edge import Edge, pieces

LISTED = ToolsListed(
    (
        ListedServer("docs", (ListedTool("find", "Finds.", {"type": "object"}), ListedTool("put"))),
        ListedServer("mail", error="can't be reached"),
    )
)


async def ask(edge: Edge, **fields: Any) -> Any:
    answered = await edge.client.post("/v1/responses", json={"model": "hello", "input": "Hi"} | fields)
    assert answered.status_code == 200, answered.text
    return answered


async def test_the_tools_are_items_and_events(edge: Edge) -> None:
    said = Message(Role.ASSISTANT, "Hello!")
    edge.turns.script = pieces([Delta(activity=LISTED), Delta("Hello!")], "Hello!", said=(said,), listed=LISTED)
    streamed = events_of((await ask(edge, stream=True)).text)
    answered = response_of((await ask(edge)).json())
    assert streamed[-1].response.output == answered.output
    docs, mail, message = answered.output
    assert (docs.type, docs.id, docs.server_label, docs.error) == ("mcp_list_tools", "mcpl_0.t1.s1", "docs", None)
    assert [(tool.name, tool.description, tool.input_schema) for tool in docs.tools] == [
        ("find", "Finds.", {"type": "object"}),
        ("put", None, {"type": "object"}),
    ]
    assert (mail.tools, mail.error, message.type) == ([], "can't be reached", "message")
    assert [event.type.removeprefix("response.") for event in streamed[2:10]] == [
        "output_item.added",
        "mcp_list_tools.in_progress",
        "mcp_list_tools.completed",
        "output_item.done",
        "output_item.added",
        "mcp_list_tools.in_progress",
        "mcp_list_tools.failed",
        "output_item.done",
    ]
    assert (streamed[2].item.tools, streamed[5].item) == ([], docs)


@pytest.mark.parametrize("brought", [False, True])
async def test_who_brings_the_list_is_not_told_again(edge: Edge, brought: bool) -> None:
    item = {"type": "mcp_list_tools", "id": "mcpl_0.t.s", "server_label": "docs", "tools": []}
    await ask(edge, input=[*([item] if brought else []), {"role": "user", "content": "Hi"}])
    assert edge.turns.requests[-1].lists_tools is not brought
