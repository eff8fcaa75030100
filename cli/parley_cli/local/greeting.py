"""The first conversation with a fresh system, and the commands to try next."""

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from parley_cli.api import DEFAULT_URL, Api, ApiError, path_of
from parley_cli.embedded.model import MODEL_NAME, EmbeddedModel
from parley_cli.embedded.script import MODEL_NAME as SCRIPTED_MODEL_NAME
from parley_cli.embedded.scripted_model import ScriptedModel
from parley_cli.errors import LocalError
from parley_cli.local.narrator import Narrator
from parley_cli.local.settings import UpSettings
from parley_cli.processes.ports import is_loopback_url
from parley_cli.terminal import shown

AGENT = "hello"
TOOLS_AGENT = "hello-tools"
SAMPLE_TOOL_SERVER = "sample"
TOOLS_QUESTION = "Add 17 and 25"
QUESTION = "Say hello to me in one short sentence."
LIST_MODELS_SECONDS = 5.0


def hello_agent(settings: UpSettings) -> dict[str, Any]:
    """Returns the agent that a fresh system gets; raises LocalError when a provider does not name a model.

    Sampling is left to a provider of the user's own; the local model rambles without bounds.
    """
    if settings.providers is None:
        model: dict[str, Any] = {"provider": EmbeddedModel.provider, "name": MODEL_NAME}
        model |= {"temperature": 0.2, "max_output_tokens": 100}
    else:
        name, provider = next(iter(settings.providers.items()))
        base_url, api_key_env = str(provider.get("base_url", "")), provider.get("api_key_env")
        model = {"provider": name, "name": settings.up_hello_model or first_model(base_url, api_key_env)}
    return {
        "id": AGENT,
        "name": "Hello",
        "template_id": "assistant",
        "instructions": "You are a friendly assistant. You answer in one or two short sentences.",
        "model": model,
        "memory": {"max_messages": 40},
    }


def tools_agent() -> dict[str, Any]:
    """Returns the agent that shows tools: the scripted model, which calls those of the sample tool server."""
    return {
        "id": TOOLS_AGENT,
        "name": "Hello, tools (scripted model)",
        "template_id": "assistant",
        "instructions": "Answer with your tools.",
        "model": {"provider": ScriptedModel.provider, "name": SCRIPTED_MODEL_NAME},
        "tools": [{"mcp": {"operator_tool_server": SAMPLE_TOOL_SERVER}}],
        "memory": {"max_messages": 40},
    }


def first_model(base_url: str, api_key_env: str | None) -> str:
    """Returns the first model that an OpenAI-compatible server lists; raises LocalError."""
    key = os.environ.get(api_key_env or "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(
            f"{base_url.rstrip('/')}/models",
            headers=headers,
            timeout=LIST_MODELS_SECONDS,
            trust_env=not is_loopback_url(base_url),
        )
        return str(answer.raise_for_status().json()["data"][0]["id"])
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError, LookupError, TypeError) as error:
        raise LocalError(f"{base_url} does not list its models ({error}); name one in PARLEY_UP_HELLO_MODEL") from None


def ensure_agents(api: Api, settings: UpSettings) -> None:
    """Creates each agent that a fresh system has, if there is none with its id."""
    _ensure(api, AGENT, lambda: hello_agent(settings))
    if settings.providers is None:
        _ensure(api, TOOLS_AGENT, tools_agent)


def _ensure(api: Api, agent_id: str, config: Callable[[], dict[str, Any]]) -> None:
    try:
        api.get(path_of("agents", agent_id))
    except ApiError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        api.send("POST", "/v1/agents", config())


def converse(api: Api, narrator: Narrator) -> None:
    """Runs one streamed turn with the agent, on the terminal."""
    narrator.say(f"you    {QUESTION}")
    out = narrator.console.file
    with api.chat(AGENT, QUESTION, session_id=None) as answer:
        out.write(f"{AGENT}  ")
        for piece in answer.pieces:
            out.write(shown(piece, out))
            out.flush()
    out.write("\n\n")
    out.flush()


def program(name: str) -> str:
    """Returns the path of a program that is installed beside this one, or its bare name; quoted for a shell."""
    beside = Path(sys.executable).with_name(name)
    return shlex.quote(str(beside) if beside.exists() else name)


def endpoints(http_url: str, grpc_target: str, settings: UpSettings) -> list[str]:
    """Returns where everything is, with a line to paste for either protocol, and for a tool call if there are tools."""
    shown = '-H "Authorization: Bearer $PARLEY_API_KEY" ' if os.environ.get("PARLEY_API_KEY") else ""
    chat = {"model": AGENT, "session_id": "first", "messages": [{"role": "user", "content": "What is your name?"}]}
    message = {"role": "ROLE_USER", "content": "What is your name?"}
    turn = {"input": {"agent_id": AGENT, "session_id": "first", "messages": [message]}}
    return [
        *([f"console  {http_url}/console"] if settings.gateway_console else ()),
        f"HTTP     {http_url}   (API documentation at {http_url}/docs)",
        f"gRPC     {grpc_target}",
        "",
        f"curl -s {http_url}/v1/chat/completions {shown}-H 'Content-Type: application/json' "
        f"-d {shlex.quote(json.dumps(chat))}",
        "",
        f"{program('grpcurl')} -plaintext {shown}-d {shlex.quote(json.dumps(turn))} {grpc_target} "
        "parley.chat.v1.ChatService/Complete",
        "",
        *(_tools_lines(http_url) if settings.providers is None else ()),
    ]


def _tools_lines(http_url: str) -> list[str]:
    url = "" if http_url == DEFAULT_URL else f"PARLEY_URL={http_url} "
    return [f"{url}{program('parley')} chat {TOOLS_AGENT} {shlex.quote(TOOLS_QUESTION)}   # calls a tool", ""]
