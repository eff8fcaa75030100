"""Whoever a gateway asks: how a client of each is made, what it asks, and what a good server answers."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from a2a.types import a2a_pb2 as pb
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from prometheus_client import CollectorRegistry

from access.jwks import Jwks, JwksTimes
from chat_gateway.a2a.push_configs import PushConfigs
from chat_gateway.a2a.push_keys import PushKeys
from chat_gateway.a2a.push_sender import PushSender, PushTimes
from chat_gateway.metrics import PushMetrics
from chat_gateway.model.background import TurnOfUser
from chat_gateway.model.tool_servers import A2aAgent, HttpCall, HttpService, OauthClientCredentials
from chat_gateway.model.tools import ToolOutcome
from chat_gateway.providers.http_client import open_client
from chat_gateway.providers.provider import EmbeddingCall
from servicekit.egress import EgressRules
from servicekit.egress_http import GuardedClient
from servicekit.errors import ServiceError
from tests.hostile.answers import ATTACKS, Good, as_good
from tests.hostile.server import Request
from tests.unit.chat_gateway.raw_provider import CALL, ProviderBounds, ignore, provider_at
from tests.unit.chat_gateway.tools.opened import LOOPBACK_ALLOWED, Room, opened_room

SECONDS = 2.0
PATIENT_SECONDS = 60.0
"""For what comes before the attack: a busy machine may take its time."""
"""What each of them is given for an answer."""
MAX_SENT = 24 * 1024 * 1024
"""What a server may get rid of: 10 MiB are the bound of most, and sockets hold some."""
OK = "ok"
ENDED = frozenset({"ended-in-the-body", "ended-in-a-chunk", "ended-before-the-last-chunk"})
"""Of a stream, whose last event says that it is one."""

Ask = Callable[[], Awaitable[str]]


@dataclass
class Party:
    """One of those that a gateway asks. `open` makes a client of the server at a URL; what it returns asks once."""

    open: Callable[[AsyncExitStack, str], Awaitable[Ask]]
    good: Callable[[Request], Good]
    attacked: Callable[[Request], bool] = lambda request: True
    takes_any: bool = False
    """Whether any content is a good answer."""
    recovers: bool = True
    """Whether it is asked again at once after a failure."""
    max_sent: int = MAX_SENT
    passes: frozenset[str] = frozenset()
    """Attacks after which it may have its answer: one that needs no more than a status, or no end."""


def guarded() -> GuardedClient:
    return GuardedClient(EgressRules(LOOPBACK_ALLOWED), connect_timeout=SECONDS, proxies={})


JWK = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())) | {"kid": "k", "use": "sig"}


async def open_jwks(stack: AsyncExitStack, url: str, *, discovery: bool = False) -> Ask:
    client = guarded()
    stack.push_async_callback(client.close)
    keys = Jwks(url, None if discovery else f"{url}/jwks", client, JwksTimes(fresh=0.0, pause=0.0, timeout=SECONDS))
    stack.push_async_callback(keys.close)

    async def ask() -> str:
        try:
            return OK if await keys.key("k") is not None else "no such key"
        except ServiceError as error:
            return error.reason

    return ask


def jwks_good(request: Request) -> Good:
    if "openid-configuration" in request.path:
        issuer = "http://127.0.0.1:0"
        return as_good({"issuer": issuer, "jwks_uri": issuer})
    return as_good({"keys": [JWK]}, {"keys": [JWK | {"kid": "other"}]})


def tool_ask(room: Room, server: str, tool: str, arguments: str = "{}") -> Ask:
    async def ask() -> str:
        result = await room.call(server, tool, arguments, seconds=SECONDS)
        for word in ("Traceback", "aiohttp", "Errno", "object at 0x", "poison"):
            assert word not in result.text, result.text
        return OK if result.outcome is ToolOutcome.OK else result.outcome.name

    return ask


SERVICE = HttpCall("t", "t", "GET", "/t")


async def open_http_tool(stack: AsyncExitStack, url: str) -> Ask:
    room = await stack.enter_async_context(opened_room(connect_timeout=SECONDS))
    room.put("s", HttpService(url, calls=(SERVICE,)))
    return tool_ask(room, "s", "t")


async def open_oauth(stack: AsyncExitStack, url: str, folder: Path) -> Ask:
    room = await stack.enter_async_context(opened_room(connect_timeout=SECONDS, secrets_dir=str(folder)))
    auth = OauthClientCredentials(f"{url}/token", "parley", "client")
    room.put("s", HttpService(url, calls=(SERVICE,)), auth)
    return tool_ask(room, "s", "t")


async def open_mcp(stack: AsyncExitStack, url: str, *, connect: float = PATIENT_SECONDS, plain: bool = False) -> Ask:
    room = await stack.enter_async_context(opened_room(connect_timeout=connect, list_ttl=3600))
    room.put("s", f"{url}/mcp")
    if plain:
        # What follows a first call is sent without the SDK.
        await room.call("s", "t", '{"first": true}', seconds=PATIENT_SECONDS)
    return tool_ask(room, "s", "t")


def mcp_good(request: Request) -> Good:
    if not request.body:
        return Good(b"", kind="text/event-stream")
    asked = json.loads(request.body)
    text: list[dict[str, str]] = [{"type": "text", "text": "fine"}]
    match asked.get("method"):
        case "initialize":
            info = {"name": "raw", "version": "1"}
            result: Any = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            result = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
        case "tools/call":
            result = {"content": text}
        case _:
            error = {"code": -32601, "message": "Method not found"}
            return as_good({"jsonrpc": "2.0", "id": asked.get("id"), "error": error})
    poison = {"content": [{"type": "text", "text": "poison"}]}
    answer = {"jsonrpc": "2.0", "id": asked["id"], "result": result}
    return as_good(answer, answer | {"id": asked["id"] + 1, "result": poison})


def mcp_method(*methods: str) -> Callable[[Request], bool]:
    def attacked(request: Request) -> bool:
        asked = json.loads(request.body or b"{}")
        first = asked.get("params", {}).get("arguments", {}).get("first")
        return asked.get("method") in methods and not first

    return attacked


DONE = {"id": "t1", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}, "artifacts": []}


async def open_a2a(stack: AsyncExitStack, url: str, *, connect: float = PATIENT_SECONDS) -> Ask:
    room = await stack.enter_async_context(opened_room(connect_timeout=connect))
    room.put("s", A2aAgent(url))
    return tool_ask(room, "s", "s", '{"message": "what?"}')


def a2a_good(*, streaming: bool) -> Callable[[Request], Good]:
    def good(request: Request) -> Good:
        if "agent-card" in request.path:
            place = request.path.partition("/.well-known")[0]
            interface = {"url": f"http://HOST{place}", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
            card = {"name": "E", "supportedInterfaces": [interface], "capabilities": {"streaming": streaming}}
            return as_good(card, card | {"name": "poison"})
        texts = [{**DONE, "artifacts": [{"artifactId": "a", "parts": [{"text": text}]}]} for text in ("A", "poison")]
        said, poison = (json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"task": one}}).encode() for one in texts)
        if streaming:
            return Good(b"data: " + said + b"\n\n", b"data: " + poison + b"\n\n", "text/event-stream")
        return Good(said, poison)

    return good


class MemoryPushes:
    """A `PushStore`."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, bytes]] = []

    async def put(self, turn: TurnOfUser, config_id: str, content: bytes) -> None:
        self.kept = [(config_id, content)]

    async def list(self, turn: TurnOfUser) -> list[tuple[str, bytes]]:
        return self.kept

    async def delete(self, turn: TurnOfUser, config_id: str) -> None:
        self.kept = []


async def open_push(stack: AsyncExitStack, url: str) -> Ask:
    turn, client, keys, registry = (
        TurnOfUser("default", "s1", "ann", "t1"),
        guarded(),
        PushKeys(b"s"),
        CollectorRegistry(),
    )
    configs = PushConfigs(MemoryPushes(), keys, client.rules)
    times = PushTimes(timeout=SECONDS, pauses=(), last=60.0)
    sender = PushSender(client, configs, keys, "https://p.example", PushMetrics(registry), times)
    stack.push_async_callback(sender.close)
    await configs.put(turn, pb.TaskPushNotificationConfig(url=f"{url}/hook", id="a"))

    def counted(outcome: str) -> float:
        return registry.get_sample_value("parley_push_notifications_total", {"outcome": outcome}) or 0.0

    async def read() -> pb.Task:
        return pb.Task(id="t1.s1", status=pb.TaskStatus(state=pb.TASK_STATE_COMPLETED))

    async def ask() -> str:
        before = {outcome: counted(outcome) for outcome in ("delivered", "failed")}
        sender.start(turn, read)
        while not (now := [name for name, count in before.items() if counted(name) > count]):
            await asyncio.sleep(0.01)
        return OK if now == ["delivered"] else now[0]

    return ask


BOUNDS = ProviderBounds(connect=SECONDS, first_token=SECONDS, between_tokens=SECONDS, answer=SECONDS)


async def open_provider(stack: AsyncExitStack, url: str, how: str) -> Ask:
    client = await stack.enter_async_context(open_client(SECONDS))
    provider = provider_at(f"{url}/v1", client, bounds=BOUNDS)

    async def ask() -> str:
        try:
            if how == "embeddings":
                vectors = (await provider.embed(EmbeddingCall("m", ["a"]))).vectors
                return OK if len(vectors) == 1 else "other vectors"
            answer = await provider.complete(CALL, ignore if how == "stream" else None)
        except ServiceError as error:
            return error.reason
        assert answer.message.content == "fine"
        return OK

    return ask


def provider_good(how: str) -> Callable[[Request], Good]:
    def answer(text: str) -> dict[str, Any]:
        said = {"content": text}
        choice = {"index": 0, "finish_reason": "stop", "delta" if how == "stream" else "message": said}
        return {"id": "1", "choices": [choice]}

    def good(request: Request) -> Good:
        if how == "embeddings":
            data = [{"index": 0, "embedding": [0.5]}]
            return as_good({"data": data}, {"data": data * 2})
        if how == "stream":
            said, poison = (f"data: {json.dumps(answer(text))}\n\ndata: [DONE]\n\n" for text in ("fine", "poison"))
            return Good(said.encode(), poison.encode(), "text/event-stream")
        return as_good(answer("fine"), answer("poison"))

    return good


def at(*ends: str) -> Callable[[Request], bool]:
    return lambda request: request.path.partition("?")[0].endswith(ends)


def plain(request: Request) -> Good:
    if request.path.endswith("/token"):
        token = {"access_token": "a-good-token", "token_type": "Bearer", "expires_in": 3600}
        return as_good(token, token | {"access_token": "poison"})
    return Good(b"fine", b"poison", "text/plain")


def parties(folder: Path) -> dict[str, Party]:
    list_, call = mcp_method("tools/list"), mcp_method("tools/call")
    return {
        "jwks": Party(open_jwks, jwks_good),
        "discovery": Party(
            lambda stack, url: open_jwks(stack, url, discovery=True), jwks_good, at("openid-configuration")
        ),
        "http tool": Party(open_http_tool, plain, takes_any=True),
        "oauth": Party(lambda stack, url: open_oauth(stack, url, folder), plain, at("/token"), recovers=False),
        "mcp connecting": Party(
            partial(open_mcp, connect=SECONDS), mcp_good, mcp_method("server/discover", "initialize"), recovers=False
        ),
        "mcp listing": Party(partial(open_mcp, connect=SECONDS), mcp_good, list_, recovers=False),
        "mcp calling": Party(open_mcp, mcp_good, call),
        "mcp calling plainly": Party(partial(open_mcp, plain=True), mcp_good, call),
        "a2a card": Party(
            partial(open_a2a, connect=SECONDS), a2a_good(streaming=False), at("agent-card.json"), recovers=False
        ),
        "a2a": Party(open_a2a, a2a_good(streaming=False), lambda request: bool(request.body)),
        "a2a stream": Party(open_a2a, a2a_good(streaming=True), lambda request: bool(request.body), passes=ENDED),
        "push": Party(open_push, plain, passes=frozenset(ATTACKS)),
        "embeddings": Party(
            lambda stack, url: open_provider(stack, url, "embeddings"),
            provider_good("embeddings"),
            max_sent=2 * MAX_SENT,  # its bound is 32 MiB
        ),
        "model": Party(lambda stack, url: open_provider(stack, url, "unary"), provider_good("unary")),
        "model stream": Party(
            lambda stack, url: open_provider(stack, url, "stream"), provider_good("stream"), passes=ENDED
        ),
    }
