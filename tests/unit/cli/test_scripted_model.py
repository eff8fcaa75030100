"""The scripted model as an OpenAI client has it."""

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from openai import OpenAI

from parley_cli.embedded.script import MODEL_NAME, NO_TOOLS
from parley_cli.embedded.scripted_model import ScriptedModel
from parley_cli.errors import PortTaken
from parley_cli.processes.ports import is_free
from parley_cli.samples import tool_server_file
from tests.servers.ports import free_port

PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOLS: Any = [{"type": "function", "function": {"name": "double", "parameters": PARAMETERS}}]


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    model = ScriptedModel(free_port())
    model.start()
    yield model
    model.stop()
    assert is_free(model.port)


@pytest.fixture
def client(model: ScriptedModel) -> Iterator[OpenAI]:
    with OpenAI(base_url=model.url, api_key="-", http_client=httpx.Client(trust_env=False)) as client:
        yield client


def test_it_is_healthy_and_lists_itself(model: ScriptedModel, client: OpenAI) -> None:
    model.start()  # does nothing while it runs
    assert httpx.get(model.url.replace("/v1", "/health"), trust_env=False).json() == {"status": "ok"}
    assert [one.id for one in client.models.list()] == [MODEL_NAME]
    with pytest.raises(PortTaken):
        ScriptedModel(model.port).start()


def test_an_answer_is_the_same_whole_and_streamed(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "double 21"}]
    whole = client.chat.completions.create(model=MODEL_NAME, messages=messages, tools=TOOLS).choices[0]
    (call,) = whole.message.tool_calls or []
    assert whole.finish_reason == "tool_calls"
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("double", {"a": 21})
    with client.chat.completions.stream(model=MODEL_NAME, messages=messages, tools=TOOLS) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls"
    assert [one.function.arguments for one in streamed.message.tool_calls or []] == ['{"a": 21}']

    assert client.chat.completions.create(model=MODEL_NAME, messages=messages).choices[0].message.content == NO_TOOLS
    with client.chat.completions.stream(
        model=MODEL_NAME, messages=messages, stream_options={"include_usage": True}
    ) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == NO_TOOLS
    assert completion.usage is not None
    assert completion.usage.completion_tokens == len(NO_TOOLS.split())


def test_what_is_no_chat_completion_is_refused(model: ScriptedModel) -> None:
    with httpx.Client(base_url=model.url, timeout=60, trust_env=False) as http:
        for body in (b"{", b"[]", b'{"messages": []}', b'{"messages": [{"role": "user"}], "tools": [1]}'):
            refused = http.post("/chat/completions", content=body)
            assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
        assert http.post("/chat/completions", content=iter([b"{}"])).status_code == 400  # without a length
        assert http.post("/embeddings", json={}).status_code == 404
        assert http.get("/elsewhere").status_code == 404


@pytest.mark.slow
def test_the_sample_tool_server_has_tools_that_work() -> None:
    async def use() -> None:
        command = StdioServerParameters(command=sys.executable, args=[str(tool_server_file())], cwd="/")
        async with stdio_client(command) as streams, ClientSession(*streams) as session:
            await session.initialize()
            assert [one.name for one in (await session.list_tools()).tools] == ["current_time", "add"]
            for arguments, text in (({"a": 17, "b": 25}, "42"), ({"a": 0.5, "b": 123456789}, "123456789.5")):
                added = await session.call_tool("add", arguments)
                assert added.model_dump()["content"][0]["text"] == text
            time = await session.call_tool("current_time", {"timezone": "Asia/Tokyo"})
            assert time.model_dump()["content"][0]["text"].endswith("+09:00")
            for nowhere in ("Mars", "..", ""):
                refused = await session.call_tool("current_time", {"timezone": nowhere})
                assert "There is no time zone" in refused.model_dump()["content"][0]["text"]

    asyncio.run(use())
