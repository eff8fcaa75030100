"""Whoever a gateway asks, with everything that a server can do wrong on its connection (`answers.py`).

Each is asked twice over one client: what the attack was ends in a named outcome, within its time, and leaves nothing on
a connection that the next request would take for its answer.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
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
from tests.hostile.answers import ATTACKS, CONTENT, LATE, Attack, Good, as_good, whole
from tests.hostile.server import Answer, HostileServer, Request, hostile_server
from tests.unit.chat_gateway.raw_provider import CALL, ProviderBounds, ignore, provider_at
from tests.unit.chat_gateway.tools.opened import LOOPBACK_ALLOWED, Room, opened_room

SECONDS = 2.0
"""What each of them is given for an answer."""
MAX_SENT = 24 * 1024 * 1024
"""What a server may get rid of: 10 MiB are the bound of most, and sockets hold some."""
MAX_CPU = 1.0
"""Seconds that the event loop's thread may compute without a pause."""
MAX_GROWTH = 256 * 1024 * 1024
AT_ONCE = 16
TRIES = 6
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


async def open_mcp(stack: AsyncExitStack, url: str, *, plain: bool = False) -> Ask:
    room = await stack.enter_async_context(opened_room(connect_timeout=SECONDS, list_ttl=3600))
    room.put("s", f"{url}/mcp")
    if plain:
        # What follows a first call is sent without the SDK.
        await room.call("s", "t", '{"first": true}', seconds=60)
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


async def open_a2a(stack: AsyncExitStack, url: str) -> Ask:
    room = await stack.enter_async_context(opened_room(connect_timeout=SECONDS))
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
        "mcp connecting": Party(open_mcp, mcp_good, mcp_method("server/discover", "initialize"), recovers=False),
        "mcp listing": Party(open_mcp, mcp_good, list_, recovers=False),
        "mcp calling": Party(open_mcp, mcp_good, call),
        "mcp calling plainly": Party(lambda stack, url: open_mcp(stack, url, plain=True), mcp_good, call),
        "a2a card": Party(open_a2a, a2a_good(streaming=False), at("agent-card.json"), recovers=False),
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


NAMES = sorted(parties(Path()))


def attack_of(request: Request) -> str:
    return request.path.partition("?")[0].split("/")[1]


class Scripted:
    """The answers of one server: the attack that a path begins with until it was made once, and good ones after it."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self.server: HostileServer | None = None
        self.attacked: dict[str, int] = {}
        """The connection of each attack's first request."""
        self.over: set[str] = set()

    def __call__(self, request: Request) -> Answer:
        assert self.server is not None
        name = attack_of(request)
        good = self.party.good(request)
        host = self.server.url.removeprefix("http://").encode()
        body = good.body.replace(b"HOST", host).replace(b"http://127.0.0.1:0", f"{self.server.url}/{name}".encode())
        good = replace(good, body=body)
        if name in ATTACKS and name not in self.over and self.party.attacked(request):
            self.attacked.setdefault(name, request.connection)
            return ATTACKS[name].make(good)
        return lambda wire: wire.send(whole(good.body, good.kind))


@asynccontextmanager
async def watched() -> AsyncIterator[list[float]]:
    """Yields what the event loop's thread computed between each two of its rounds, in seconds; the longest."""
    longest = [0.0]

    async def watch() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.005)
            longest[0] = max(longest[0], time.thread_time() - before)

    task = asyncio.create_task(watch())
    try:
        yield longest
    finally:
        task.cancel()


def peak_memory(*, reset: bool = False) -> int:
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


async def attack(party: Party, scripted: Scripted, name: str) -> list[str]:
    """Returns what is wrong."""
    assert scripted.server is not None
    made, wrong = ATTACKS[name], []
    async with AsyncExitStack() as stack, asyncio.timeout(120):
        ask = await party.open(stack, f"{scripted.server.url}/{name}")
        for _ in range(TRIES):
            first = await ask()
            if name in scripted.attacked:
                break  # a machine that stands still may take its time before it was
        scripted.over.add(name)
        if first == OK and not may_pass(party, name, made):
            wrong.append("taken for a good answer")
        if name == LATE:
            await asyncio.sleep(0.3)  # it comes on a connection that is idle by then
        asked = len(scripted.server.requests)
        for _ in range(TRIES):
            if (second := await ask()) == OK or not party.recovers:
                break  # a machine that stands still takes the time that they are given
        after = [one for one in scripted.server.requests[asked:] if attack_of(one) == name]
        if second != OK and party.recovers:
            wrong.append(f"{first}, and then {second}")
        if not made.is_content and scripted.attacked.get(name) in {one.connection for one in after}:
            wrong.append("the connection was used again")
    return [f"{name}: {one}" for one in wrong]


def may_pass(party: Party, name: str, made: Attack) -> bool:
    return made.may_pass or name in party.passes or (party.takes_any and name in CONTENT)


@pytest.mark.parametrize("name", NAMES)
async def test_what_a_third_party_does_wrong_is_its_own_failure(name: str, tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "client").write_text("s3cret-client")
    party = parties(tmp_path)[name]
    scripted, slots = Scripted(party), asyncio.Semaphore(AT_ONCE)

    async def one(attack_name: str) -> list[str]:
        async with slots:
            try:
                return await attack(party, scripted, attack_name)
            except Exception as error:
                return [f"{attack_name}: {error!r}"]

    before = peak_memory(reset=True)
    with hostile_server(scripted) as server:
        scripted.server = server
        async with watched() as longest:
            wrong = list(chain.from_iterable(await asyncio.gather(*(one(each) for each in ATTACKS))))
    sent = Counter[str]()
    for request, size in server.sent:
        sent[attack_of(request)] += size
    wrong += [f"{each}: {size} bytes were read" for each, size in sent.items() if size > party.max_sent]
    assert not wrong, "\n".join(wrong)
    assert longest[0] < MAX_CPU
    assert peak_memory() - before < MAX_GROWTH
