"""Providers of kinds `anthropic` and `gemini` behind a real gateway: a tool round, whole and streamed.

What the provider signed in its first answer has to come back in the request after the tool's result.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest

from tests.servers.system import OpenSystem, System

GOLDEN = Path(__file__).parents[1] / "unit" / "chat_gateway" / "golden"
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


class _Model(ThreadingHTTPServer):
    """Answers with the golden files of a kind: a call of a tool, and after a result a text."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, dict[str, Any]]] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body))
        kind = "anthropic" if self.path.startswith("/anthropic") else "gemini"
        streamed = bool(body.get("stream")) or "alt=sse" in self.path
        asked = json.dumps(body)
        name = "text" if "tool_result" in asked or "functionResponse" in asked else "tool"
        said = (GOLDEN / kind / "answers" / f"{name}.{'sse' if streamed else 'json'}").read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if streamed else "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def model() -> Iterator[_Model]:
    with _Model() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def system(open_system: OpenSystem, model: _Model) -> Iterator[System]:
    kinds = ("anthropic", "gemini")
    url = f"http://127.0.0.1:{model.server_port}"
    providers = {kind: {"kind": kind, "base_url": f"{url}/{kind}"} for kind in kinds}
    with open_system("native", gateways=0) as started:
        started.new_gateway({"PARLEY_PROVIDERS": json.dumps(providers)}).start()
        for kind in kinds:
            started.create_agent(kind, model={"provider": kind, "name": f"{kind}-3"})
        yield started


def said(client: openai.OpenAI, kind: str, session: str, message: Any, *, stream: bool) -> tuple[str, str, list[str]]:
    """Returns text, reasoning and the ids of calls."""
    asked: Any = {"model": kind, "messages": [message], "tools": [TOOL], "extra_body": {"session_id": session}}
    if not stream:
        answer = client.chat.completions.create(**asked).choices[0].message
        ids = [call.id for call in answer.tool_calls or ()]
        return answer.content or "", getattr(answer, "reasoning_content", ""), ids
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**asked, stream=True) if chunk.choices]
    ids = [call.id for delta in deltas for call in delta.tool_calls or () if call.id]
    reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    return "".join(delta.content or "" for delta in deltas), reasoning, ids


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
def test_a_tool_round_sends_back_what_the_provider_signed(
    system: System, model: _Model, kind: str, stream: bool
) -> None:
    session = f"s-{uuid4().hex}"
    with openai.OpenAI(base_url=f"{system.http_url}/v1", api_key="none", timeout=30, max_retries=0) as client:
        text, reasoning, ids = said(client, kind, session, {"role": "user", "content": "Weather?"}, stream=stream)
        assert text == "Okay, let's check the weather."
        assert reasoning == "The user wants the weather. Let me call the tool."
        result = {"role": "tool", "tool_call_id": ids[0], "content": "sunny"}
        assert said(client, kind, session, result, stream=stream)[0] == "It is sunny."
    path, body = model.requests[-1]
    if kind == "anthropic":
        assert path == "/anthropic/messages"
        first = json.loads((GOLDEN / "anthropic/answers/tool.json").read_text())["content"]
        assert body["messages"][1]["content"] == first
        assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
    else:
        assert path.endswith(":streamGenerateContent?alt=sse" if stream else ":generateContent")
        first = json.loads((GOLDEN / "gemini/answers/tool.json").read_text())["candidates"][0]["content"]["parts"]
        assert body["contents"][1]["parts"] == first[1:]
        assert body["contents"][2]["parts"][0]["functionResponse"]["id"] == "fc_8f3a"
