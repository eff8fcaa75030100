"""Whoever a gateway asks, with everything that a server can do wrong on its connection (`answers.py`).

Each is asked twice over one client: what the attack was ends in a named outcome, within its time, and leaves nothing on
a connection that the next request would take for its answer.
"""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import aiohttp
import pytest

from tests.hostile.answers import ATTACKS, CONTENT, LATE, Attack, whole
from tests.hostile.server import Answer, HostileServer, Request, hostile_server
from tests.hostile.third_parties import OK, Party, parties

MAX_CPU = 1.0
"""Seconds that the event loop's thread may compute without a pause."""
MAX_GROWTH = 256 * 1024 * 1024
AT_ONCE = 16
TRIES = 6

NAMES = sorted(parties(Path()))


@pytest.fixture
def unreleased(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The responses that nobody needed any more while they still held a connection."""
    found: list[str] = []
    dropped = aiohttp.ClientResponse.__del__

    def drop(response: aiohttp.ClientResponse) -> None:
        if response.connection is not None:
            found.append(f"{response.method} {response.url.path}: the connection of a {response.status} was not closed")
        dropped(response)

    monkeypatch.setattr(aiohttp.ClientResponse, "__del__", drop)
    return found


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


async def came_late(server: HostileServer, name: str) -> None:
    """Has the server send what it has left for idle connections, and the event loop see it."""
    server.idle.set()
    while sum(attack_of(one) == name for one in server.requests) > sum(
        attack_of(one) == name for one, _ in server.sent
    ):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)


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
            await came_late(scripted.server, name)
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
async def test_what_a_third_party_does_wrong_is_its_own_failure(
    name: str, tmp_path: Path, unreleased: list[str]
) -> None:
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
    gc.collect()
    wrong += unreleased
    wrong += [f"{each}: {size} bytes were read" for each, size in sent.items() if size > party.max_sent]
    assert not wrong, "\n".join(wrong)
    assert longest[0] < MAX_CPU
    assert peak_memory() - before < MAX_GROWTH
