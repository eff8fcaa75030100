"""A tool server that is a remote agent: one tool, which sends a message and waits for the task."""

import asyncio
import functools
import hashlib
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec
from cachetools import LRUCache

from chat_gateway.model.tool_servers import A2aAgent
from chat_gateway.model.tools import ToolOutcome, ToolResult
from chat_gateway.providers.sse import EventTooLarge, SseParser
from chat_gateway.tools.a2a.answers import RemoteTask
from chat_gateway.tools.a2a.card import CARD_PATH, VERSION, RemoteAgent, offered, remote_agent
from chat_gateway.tools.credentials import Credentials, CredentialsRefused
from chat_gateway.tools.offered import Offer
from chat_gateway.tools.results import failed
from chat_gateway.tools.secrets import Redaction, redaction_of
from chat_gateway.tools.server import MAX_RESULT_BYTES, CallOptions, ServerUnavailable
from servicekit import traces
from servicekit.egress import EgressDenied
from servicekit.egress_http import GuardedClient, ResponseTooLarge, read_bounded
from servicekit.json_width import is_wider_than

MAX_CARD_BYTES: Final = 1024 * 1024
CANCEL_SECONDS: Final = 4.0
_MAX_CONTEXTS: Final = 10_000
_MAX_VALUES: Final = 50_000
"""Of one answer: reading more takes longer than others may be held up."""
_FIRST_PAUSE, _MAX_PAUSE = 0.1, 2.0
_FIRST_CARD_PAUSE, _MAX_CARD_PAUSE = 1.0, 30.0
"""Seconds in which a card that did not come in time is not asked for again: turns go on without."""
_INVALID_PARAMS: Final = -32602
_REST: Final = {
    "SendMessage": ("POST", "/message:send"),
    "SendStreamingMessage": ("POST", "/message:stream"),
    "GetTask": ("GET", "/tasks/{id}"),
    "CancelTask": ("POST", "/tasks/{id}:cancel"),
}


class _Refused(Exception):
    """The agent answered with an error. The message is for the model."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class A2aAgentClient:
    """Implements `ServerClient`.

    A session's calls share a context of the agent's: its id is made of the session's, so that no gateway has to keep
    it. An agent that names its contexts itself has them kept here, as long as this gateway knows the session.
    """

    def __init__(
        self,
        agent: A2aAgent,
        name: str,
        client: GuardedClient,
        credentials: Credentials,
        *,
        card_ttl: float,
        card_timeout: float,
    ) -> None:
        """In seconds: how long a card is used, and how long it may take to be read."""
        self._agent = agent
        self._name = name
        self._client = client
        self._credentials = credentials
        self._card_ttl = card_ttl
        self._card_timeout = card_timeout
        self._known: tuple[float, RemoteAgent, Offer] | None = None
        self._hung: tuple[float, ServerUnavailable] | None = None
        self._pause = 0.0
        self._contexts: LRUCache[str, str] = LRUCache(_MAX_CONTEXTS)
        self._cancelling: set[asyncio.Task[None]] = set()

    @property
    def redaction(self) -> Redaction:
        return redaction_of(self._credentials.secrets())

    async def offer(self) -> Offer:
        return (await self._card())[1]

    async def call(self, tool: str, arguments: Mapping[str, Any], options: CallOptions) -> ToolResult:
        message, task_id = arguments.get("message"), arguments.get("task_id") or ""
        if tool != self._name:
            return failed(f"there is no tool {tool[:64]!r}", ToolOutcome.INVALID_ARGUMENTS)
        if not isinstance(message, str) or not message or not isinstance(task_id, str):
            return failed("the arguments are wrong: message must be text", ToolOutcome.INVALID_ARGUMENTS)
        task, agent = RemoteTask(), None
        try:
            async with asyncio.timeout(options.seconds):
                agent, _ = await self._card()
                await self._run(agent, _message(message, task_id, options), task, options)
                return task.result()
        except TimeoutError:
            self._give_up(agent, task)
            return failed(f"the agent did not answer within {options.seconds:g} s", ToolOutcome.TIMEOUT)
        except asyncio.CancelledError:
            self._give_up(agent, task)
            raise
        except EgressDenied as error:
            return failed(error.message, ToolOutcome.DENIED)
        except (CredentialsRefused, ServerUnavailable) as error:
            return failed(f"the agent {error}", ToolOutcome.UNAVAILABLE)
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError):
            return failed("the agent can't be reached", ToolOutcome.UNAVAILABLE)
        except _Refused as error:
            return failed(f"the agent answered with an error: {error}")
        except (ResponseTooLarge, EventTooLarge):
            self._give_up(agent, task)
            return failed(f"the agent answers with more than {MAX_RESULT_BYTES >> 20} MiB")
        except (aiohttp.ClientError, OSError, ValueError):
            return failed("the connection was lost before the agent's task had ended", ToolOutcome.UNKNOWN)

    async def close(self) -> None:
        """Connections are shared, and close by themselves; what is being cancelled has a bound."""
        await asyncio.gather(*self._cancelling, return_exceptions=True)

    async def _card(self) -> tuple[RemoteAgent, Offer]:
        if self._known is None or time.monotonic() - self._known[0] > self._card_ttl:
            if self._hung is not None and time.monotonic() < self._hung[0]:
                raise self._hung[1].with_traceback(None)
            try:
                async with asyncio.timeout(self._card_timeout):
                    card = await self._read_card()
            except TimeoutError:
                error = ServerUnavailable("did not show its agent card in time")
                self._pause = min(2 * self._pause or _FIRST_CARD_PAUSE, _MAX_CARD_PAUSE)
                self._hung = time.monotonic() + self._pause, error
                raise error from None
            self._hung, self._pause = None, 0.0
            agent = remote_agent(card, self._agent.url)
            self._known = time.monotonic(), agent, offered(card, self._name, self.redaction)
        return self._known[1], self._known[2]

    async def _read_card(self) -> Mapping[str, Any]:
        try:
            async with await self._send("GET", self._agent.url.rstrip("/") + CARD_PATH) as response:
                body = await read_bounded(response, MAX_CARD_BYTES)
            if response.status != 200:
                raise ServerUnavailable(f"answered status {response.status} for its agent card")
            card = _decoded(body)
        except (aiohttp.ClientError, OSError, ResponseTooLarge, ValueError) as error:
            raise ServerUnavailable(f"has no agent card that can be read ({type(error).__name__})") from None
        except CredentialsRefused as error:
            raise ServerUnavailable(str(error)) from None
        if not isinstance(card, dict):
            raise ServerUnavailable("has an agent card that is no JSON object")
        return card

    async def _run(self, agent: RemoteAgent, message: dict[str, Any], task: RemoteTask, options: CallOptions) -> None:
        context = "" if "taskId" in message else self._context_of(options.session_id)
        try:
            await self._say(agent, {**message, "contextId": context} if context else message, task)
        except _Refused as error:
            # Agents may refuse contexts that they did not name themselves.
            if not context or error.code != _INVALID_PARAMS:
                raise
            await self._say(agent, message, task)
        if options.session_id and task.context_id not in ("", context):
            self._contexts[options.session_id] = task.context_id

    async def _say(self, agent: RemoteAgent, message: dict[str, Any], task: RemoteTask) -> None:
        configuration: dict[str, Any] = {"acceptedOutputModes": ["text/plain", "application/json"]}
        if agent.streaming:
            params = {"message": message, "configuration": configuration}
            await self._hear(agent, params, task)
        else:
            # Its id is known at once, and so it can be cancelled.
            params = {"message": message, "configuration": configuration | {"returnImmediately": True}}
            task.take(await self._ask(agent, "SendMessage", params))
        pause = _FIRST_PAUSE
        while task.id and not task.settled:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)
            answer = await self._ask(agent, "GetTask", {"id": task.id})
            if isinstance(answer, Mapping) and answer.get("id") not in (None, task.id):
                raise _Refused("it answered with another task")
            task.take({"task": answer})

    async def _hear(self, agent: RemoteAgent, params: dict[str, Any], task: RemoteTask) -> None:
        """Takes the events of a stream until the task has settled, or the stream ends or breaks: a task has its id."""
        try:
            async with aclosing(self._events(agent, "SendStreamingMessage", params)) as events:
                async for event in events:
                    task.take(event)
                    if task.settled:
                        return
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionError):
            if not task.id:
                raise

    def _context_of(self, session_id: str) -> str:
        if not session_id:
            return ""
        made = hashlib.sha256(f"{self._name}\0{session_id}".encode()).hexdigest()[:32]
        return str(self._contexts.get(session_id, made))

    def _give_up(self, agent: RemoteAgent | None, task: RemoteTask) -> None:
        if agent is None or not task.id or task.settled:
            return
        cancelling = asyncio.create_task(self._cancel(agent, task.id), name="cancel of a task elsewhere")
        self._cancelling.add(cancelling)
        cancelling.add_done_callback(self._cancelling.discard)

    async def _cancel(self, agent: RemoteAgent, task_id: str) -> None:
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._ask(agent, "CancelTask", {"id": task_id})
        except (aiohttp.ClientError, OSError, ValueError, EgressDenied, CredentialsRefused, ResponseTooLarge, _Refused):
            return

    async def _ask(self, agent: RemoteAgent, operation: str, params: dict[str, Any]) -> Any:
        response = await self._request(agent, operation, params)
        async with response:
            return _read(await read_bounded(response, MAX_RESULT_BYTES), agent, response.status)

    async def _events(self, agent: RemoteAgent, operation: str, params: dict[str, Any]) -> AsyncGenerator[Any, None]:
        response = await self._request(agent, operation, params)
        async with response:
            if not response.content_type.startswith("text/event-stream"):
                yield _read(await read_bounded(response, MAX_RESULT_BYTES), agent, response.status)
                return
            parser, left = SseParser(), MAX_RESULT_BYTES
            async for chunk in response.content.iter_any():
                left -= len(chunk)
                if left < 0:
                    raise ResponseTooLarge
                for data in parser.feed(chunk):
                    yield _read(data, agent, response.status)
            for data in parser.close():
                yield _read(data, agent, response.status)

    async def _request(self, agent: RemoteAgent, operation: str, params: dict[str, Any]) -> aiohttp.ClientResponse:
        if agent.tenant:
            params = {"tenant": agent.tenant, **params}
        if agent.binding == "JSONRPC":
            document = {"jsonrpc": "2.0", "id": 1, "method": operation, "params": params}
            return await self._send("POST", agent.url, document)
        method, path = _REST[operation]
        tenant = f"/{quote(agent.tenant, safe='')}" if agent.tenant else ""
        url = agent.url.rstrip("/") + tenant + path.format(id=quote(str(params.get("id", "")), safe=""))
        return await self._send(method, url, params if method == "POST" else None)

    async def _send(self, method: str, url: str, document: Any = None) -> aiohttp.ClientResponse:
        body = None if document is None else json.dumps(document).encode()
        fixed = {**self._agent.headers, "A2A-Version": VERSION, **dict(traces.outgoing())}
        fixed["Accept"] = "application/json, application/a2a+json, text/event-stream"
        if body is not None:
            fixed["Content-Type"] = "application/json"
        send = functools.partial(self._client.follow, method, url, body=body)
        credentials = await self._credentials.headers()
        response = await send(headers={**fixed, **credentials})
        if response.status == 401 and self._credentials.refused(credentials):
            response.close()
            response = await send(headers={**fixed, **await self._credentials.headers()})
        return response


def _message(text: str, task_id: str, options: CallOptions) -> dict[str, Any]:
    # The same call has the same id: an agent that knows it does not begin another task.
    made = hashlib.sha256(options.call_id.encode()).hexdigest()[:32]
    message: dict[str, Any] = {"messageId": made, "role": "ROLE_USER", "parts": [{"text": text}]}
    return {**message, "taskId": task_id} if task_id else message


def _decoded(body: bytes) -> Any:
    """Returns what JSON says. Raises `ValueError` where it is none that can be read, or holds too many values."""
    if is_wider_than(body, _MAX_VALUES):
        raise ValueError("too many values")
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise ValueError("nests too deeply") from None


def _read(body: bytes, agent: RemoteAgent, status: int) -> Any:
    """Returns what an answer says. Raises `_Refused` for an error."""
    try:
        document = _decoded(body)
    except ValueError:
        document = None
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, dict):
        code = error.get("code")
        text = f"{code}: {error.get('message')}"[:1000]
        invalid = code == 400 and error.get("status") == "INVALID_ARGUMENT"
        raise _Refused(text, _INVALID_PARAMS if invalid else code if isinstance(code, int) else 0)
    if not isinstance(document, dict) or not 200 <= status < 300:
        raise _Refused(f"status {status}")
    return document.get("result") if agent.binding == "JSONRPC" else document
