"""The load driver: sessions played turn by turn over raw keep-alive HTTP/1.1 connections.

A process of its own (`python -m benchmarks.driver`): it reads one `Plan` as JSON from stdin and prints one list of
`Result`s. Closed loop: each connection sends its next turn when the last one is answered. Every reply must be the one
to its own turn, whole; anything else fails the run.
"""

import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httptools
import msgspec
import uvloop

from benchmarks import procfs
from benchmarks.conversation import INSTRUCTIONS, USER_BYTES, Profile, reply_tag, user_text

TURN_SECONDS = 30.0
_encode = msgspec.json.Encoder().encode


class Target(msgspec.Struct):
    """Where turns go: an agent of a gateway, which keeps the history, or (`direct`) the model, which is sent it."""

    port: int
    profile: str
    agent: str = ""
    direct: bool = False
    resumable: bool = False
    """Each turn keeps a journal of its stream."""


class Step(msgspec.Struct):
    """Some turns, and whether their cost counts.

    With `seconds`, new sessions of `turns` turns are played for so long after `warm` seconds; without, the given
    sessions go through turns `first_turn` to `first_turn + turns - 1`, and then the next step begins.
    """

    name: str
    concurrency: int
    turns: int
    first_session: int
    sessions: int = 0
    first_turn: int = 1
    warm: float = 0.0
    seconds: float = 0.0


class Plan(msgspec.Struct):
    """What one driver process does. `pids` are the processes whose CPU time is read around each step."""

    target: Target
    stream: bool
    steps: list[Step]
    pids: dict[str, int] = {}
    user_bytes: int = USER_BYTES


class Result(msgspec.Struct):
    """What a step cost. Times of turns are medians and a percentile in ms, CPU times are in ms a turn."""

    name: str
    turns: int
    seconds: float
    latency_ms: float
    latency_p95_ms: float
    first_token_ms: float
    cpu_ms: dict[str, float]
    driver_cpu_ms: float
    other_cores: float
    """How many cores worked for others than the driver and the processes in `pids`: a measure of disturbance."""


class TurnFailed(Exception):
    """An answer is missing, cut, of another turn, or an error."""


@dataclass(slots=True)
class Answer:
    """One response as it arrives."""

    tag: bytes
    status: int = 0
    body: bytes = b""
    first_token: float = 0.0
    end: float = 0.0


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._parser: Any = None
        self._pieces: list[bytes] = []
        self._answer = Answer(b"")
        self._done: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that waits."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(TurnFailed("the connection was closed before the answer was whole"))

    async def ask(self, request: bytes, tag: bytes) -> Answer:
        """Sends a request, and returns its whole answer, with the time at which `tag` had arrived."""
        self._done = asyncio.get_running_loop().create_future()
        self._answer, self._pieces = Answer(tag), []
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)
        return await self._done

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Collect, and look for the first token."""
        self._pieces.append(body)
        answer = self._answer
        if not answer.first_token and answer.tag in body:
            answer.first_token = time.perf_counter()

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        answer = self._answer
        answer.end = time.perf_counter()
        answer.status = self._parser.get_status_code()
        answer.body = b"".join(self._pieces)
        if self._done is not None and not self._done.done():
            self._done.set_result(answer)


@dataclass(slots=True)
class Turn:
    """One turn that was played; times are seconds on one clock."""

    start: float
    end: float
    first_token: float


class Player:
    """Plays sessions against one target and keeps the times of their turns."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._profile = Profile.parse(plan.target.profile)
        self._idle: list[Connection] = []
        self.turns: list[Turn] = []

    async def session(self, session: int, turns: Iterable[int], until: float = float("inf")) -> None:
        """Play turns of one session, one after the other, as long as the clock is before `until`."""
        loop = asyncio.get_running_loop()
        if self._idle:
            connection = self._idle.pop()
        else:
            _, connection = await loop.create_connection(Connection, "127.0.0.1", self._plan.target.port)
        for turn in turns:
            if time.perf_counter() >= until:
                break
            await self._turn(connection, session, turn)
        self._idle.append(connection)

    def close(self) -> None:
        """Closes every connection."""
        for connection in self._idle:
            connection.close()

    async def _turn(self, connection: Connection, session: int, turn: int) -> None:
        tag = reply_tag(session, turn).encode()
        request = self._request(session, turn)
        start = time.perf_counter()
        async with asyncio.timeout(TURN_SECONDS):
            answer = await connection.ask(request, tag)
        where = f"session {session}, turn {turn}"
        if answer.status != 200:
            raise TurnFailed(f"{where}: status {answer.status}: {answer.body[:300]!r}")
        if not answer.first_token:
            raise TurnFailed(f"{where}: the reply is not the one to this turn: {answer.body[:300]!r}")
        whole = self._profile.reply(session, turn).encode()
        if self._plan.stream:
            if not answer.body.endswith(b"data: [DONE]\n\n") or _streamed_bytes(answer.body) != len(whole):
                raise TurnFailed(f"{where}: the stream is cut: {answer.body[-300:]!r}")
        elif whole not in answer.body:
            raise TurnFailed(f"{where}: the reply is cut: {answer.body[:300]!r}")
        self.turns.append(Turn(start, answer.end, answer.first_token))

    def _request(self, session: int, turn: int) -> bytes:
        target, size = self._plan.target, self._plan.user_bytes
        headers = b""
        if target.direct:
            messages = [{"role": "system", "content": INSTRUCTIONS}]
            for earlier in range(self._profile.first_turn(turn), turn):
                messages.append({"role": "user", "content": user_text(session, earlier, size)})
                messages.append({"role": "assistant", "content": self._profile.reply(session, earlier)})
            messages.append({"role": "user", "content": user_text(session, turn, size)})
            body: dict[str, Any] = {"model": target.profile, "messages": messages}
        else:
            body = {"model": target.agent, "messages": [{"role": "user", "content": user_text(session, turn, size)}]}
            headers = b"x-session-id: bench-%08d\r\nx-user-id: bench\r\n" % session
        if self._plan.stream:
            body["stream"] = True
        if target.resumable:
            body["resumable"] = True
        data = _encode(body)
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n%b\r\n%b" % (len(data), headers, data)
        )


def _streamed_bytes(body: bytes) -> int:
    """Returns how long the content of all chunks together is; our texts have no character that JSON escapes."""
    return sum(len(part.partition(b'"')[0]) for part in body.split(b'"content":"')[1:])


class _Reading:
    """CPU times at one moment."""

    def __init__(self, pids: dict[str, int]) -> None:
        self.cpu = procfs.cpu_of(pids)
        self.driver = time.process_time()
        self.machine = procfs.machine_busy_seconds()
        self.time = time.perf_counter()


def result_of(name: str, turns: list[Turn], begin: _Reading, end: _Reading) -> Result:
    """Returns what the turns that ended between two readings cost. Raises `TurnFailed` when there is none."""
    counted = [turn for turn in turns if begin.time <= turn.end <= end.time]
    if len(counted) < 2:
        raise TurnFailed(f"{name}: no turn ended in {end.time - begin.time:.1f} s")
    latencies = [(turn.end - turn.start) * 1e3 for turn in counted]
    cpu = {process: end.cpu[process] - begin.cpu[process] for process in begin.cpu}
    driver = end.driver - begin.driver
    seconds = end.time - begin.time
    return Result(
        name=name,
        turns=len(counted),
        seconds=seconds,
        latency_ms=statistics.median(latencies),
        latency_p95_ms=statistics.quantiles(latencies, n=20)[-1],
        first_token_ms=statistics.median((turn.first_token - turn.start) * 1e3 for turn in counted),
        cpu_ms={process: spent * 1e3 / len(counted) for process, spent in cpu.items()},
        driver_cpu_ms=driver * 1e3 / len(counted),
        other_cores=(end.machine - begin.machine - sum(cpu.values()) - driver) / seconds,
    )


async def _for_seconds(player: Player, plan: Plan, step: Step) -> Result:
    begin = time.perf_counter() + step.warm
    until = begin + step.seconds
    numbers = itertools.count(step.first_session)

    async def play() -> None:
        while time.perf_counter() < until:
            await player.session(next(numbers), range(1, step.turns + 1), until)

    async with asyncio.TaskGroup() as group:
        for _ in range(step.concurrency):
            group.create_task(play())
        await asyncio.sleep(begin - time.perf_counter())
        at_begin = _Reading(plan.pids)
        await asyncio.sleep(until - time.perf_counter())
        at_end = _Reading(plan.pids)
    return result_of(step.name, player.turns, at_begin, at_end)


async def _given_sessions(player: Player, plan: Plan, step: Step) -> Result:
    waiting: Iterator[int] = iter(range(step.first_session, step.first_session + step.sessions))

    async def play() -> None:
        for session in waiting:
            await player.session(session, range(step.first_turn, step.first_turn + step.turns))

    at_begin = _Reading(plan.pids)
    async with asyncio.TaskGroup() as group:
        for _ in range(step.concurrency):
            group.create_task(play())
    return result_of(step.name, player.turns, at_begin, _Reading(plan.pids))


async def drive(plan: Plan) -> list[Result]:
    """Carry a plan out. Raises `TurnFailed`, alone or in a group."""
    player, results = Player(plan), []
    for step in plan.steps:
        player.turns.clear()
        results.append(await (_for_seconds if step.seconds else _given_sessions)(player, plan, step))
    player.close()
    return results


def main() -> None:
    """Runs the plan on stdin; exit code 1 with one line when a turn failed."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    try:
        results = uvloop.run(drive(plan))
    except* (TurnFailed, OSError, TimeoutError) as failed:
        first = failed.exceptions[0]
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        sys.exit(f"driver: {type(first).__name__}: {first}")
    sys.stdout.buffer.write(_encode(results))


if __name__ == "__main__":
    main()
