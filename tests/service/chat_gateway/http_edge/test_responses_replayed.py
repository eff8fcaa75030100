"""The events of a response that is stored already say what its items say; those of one that was cancelled, that."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from chat_gateway.model.provider_errors import ProviderTimeout
from chat_gateway.model.tools import PendingApproval, ToolOutcome, ToolRun
from chat_gateway.model.tools_listed import ListedServer, ListedTool, ToolsListed
from chat_gateway.model.turn import Delta, Message, OnDelta, OnStarted, ToolCall, TurnOutcome, TurnRequest
from contract.enums import Role
from contract.reasons import Reason
from servicekit.errors import Code, ServiceError
from tests.openai_types import events_of, response_of
from tests.service.chat_gateway.http_edge.edge import STARTED, Edge, failing, outcome
from tests.service.chat_gateway.http_edge.responses import ask

SAID = (
    Message(Role.ASSISTANT, "I look.", reasoning="hm", tool_calls=(ToolCall("c1", "find", "{}"),)),
    Message(Role.TOOL, "found", tool_call_id="c1"),
    Message(
        Role.ASSISTANT,
        "Here.",
        refusal="No more.",
        tool_calls=(ToolCall("c2", "weather", '{"city":"A"}'), ToolCall("c3", "pay", '{"n":1}')),
    ),
)
STORED: dict[str, Any] = {
    "said": SAID,
    "runs": (ToolRun("c1", "docs", ToolOutcome.ERROR), ToolRun("c3", "shop", ToolOutcome.UNKNOWN)),
    "pending": (PendingApproval("c3", "pay", '{"n":1}'),),
    "listed": ToolsListed((ListedServer("docs", (ListedTool("find"),)),)),
    "replayed": True,
}


async def replayed(request: TurnRequest, on_started: OnStarted | None, on_delta: OnDelta | None) -> TurnOutcome:
    if on_started is not None and on_delta is not None:
        await on_started(replace(STARTED, replayed=True))
        await on_delta(Delta("I look.\n\nHere."))
    return outcome("I look.\n\nHere.", **STORED)


def done(events: Sequence[Any]) -> list[Any]:
    return [event.item for event in events if event.type == "response.output_item.done"]


async def test_a_repeat_that_is_streamed_has_all_items(edge: Edge) -> None:
    edge.turns.script = replayed
    events = events_of((await ask(edge, stream=True)).text)
    answered = response_of((await ask(edge)).json())
    assert [item.type for item in answered.output] == [
        "mcp_list_tools",
        "reasoning",
        "message",
        "mcp_call",
        "message",
        "function_call",
        "mcp_approval_request",
    ]
    assert events[-1].response.output == done(events) == answered.output
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert texts == ["I look.", "Here."]
    assert "response.mcp_call.failed" in [event.type for event in events]


class Cancelled(ServiceError):
    code = Code.CANCELLED
    reason = Reason.TURN_CANCELLED


async def test_the_end_of_a_cancelled_stream_says_so(edge: Edge) -> None:
    for error, status in ((Cancelled("cancelled"), "cancelled"), (ProviderTimeout("mock", "answer"), "failed")):
        edge.turns.script = failing(error, after=[Delta("Hel")])
        events = events_of((await ask(edge, stream=True)).text)
        assert (events[-1].type, events[-1].response.status) == ("response.failed", status)


async def test_releases_are_refused_by_name(edge: Edge) -> None:
    for path, body in (("/v1/responses", {"input": "x"}), ("/v1/chat/completions", {"messages": []})):
        answered = await edge.client.post(path, json={"model": "support@production", **body})
        assert answered.status_code == 400
        said = {one["field"]: one["description"] for one in answered.json()["error"]["violations"]}
        assert said["model"] == (
            "'production' would be a release, and agents have none yet: name a revision, as in support@3"
        )
