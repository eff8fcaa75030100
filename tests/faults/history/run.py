"""One run: clients and faults for so long; then all is healed, every session takes one more turn, and all is read."""

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from tests.faults.history.admin import Admin
from tests.faults.history.background import taken_over
from tests.faults.history.checker import Anomaly, check
from tests.faults.history.clients import Client, Edges
from tests.faults.history.cluster import LEASE_SECONDS, TOOL_SERVER, Cluster
from tests.faults.history.lifetimes import Lifetimes
from tests.faults.history.nemesis import Nemesis
from tests.faults.history.records import Attempt, Ending, History, Operation
from tests.faults.history.slots import (
    AGENT,
    BRIEF_AGENT,
    BRIEF_TTL_SECONDS,
    MORTAL_AGENT,
    TOOLED_AGENT,
    Sessions,
)
from tests.faults.history.tool_server import GUARDED, CountingToolServer
from tests.faults.history.upstream import HELPER, RecordingModel
from tests.faults.proxy import Proxies

WINDOW = 24
TOOLED_WINDOW = 400
"""All that a session with tools ever has: the checker does not count what calls and results take of a window."""
RECOVERY_SECONDS = 60.0
PROBE_SLACK_SECONDS = 30.0
"""On top of one lease: for a machine whose processors are busy with other tests."""
AGAIN_SECONDS = 10.0
PROBES_AT_ONCE = 8
MAX_REPLAYS = 300
MAX_ROUNDS = 6
LEAVERS = 8
REVISITED = 12

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is run. `pace` is the mean pause between two faults of the services, in seconds; 0 makes none."""

    seed: int
    seconds: float
    clients: int = 12
    sessions: int = 3
    turns_a_session: int = 60
    pace: float = 1.0
    quiet_phases: bool = True
    """Whether the run goes on when all is healed: probes, turns left alone, keys repeated, sessions outlived."""
    session_entry: str | None = None
    gateway_entry: str | None = None
    session_settings: Mapping[str, str] = field(default_factory=dict)
    gateway_settings: Mapping[str, str] = field(default_factory=dict)
    enough: Callable[[History], bool] = lambda _: True
    """Whether a run has seen what it is for; clients and faults go on until then, for `MAX_ROUNDS` times `seconds`."""


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run."""

    scenario: Scenario
    history: History
    anomalies: list[Anomaly]
    model_faults: Mapping[str, int]
    tool_faults: Mapping[str, int] = field(default_factory=dict)


async def run(scenario: Scenario, folder: Path) -> Result:
    """Run a scenario on a system of its own, whose logs go to `folder`, and judge it."""
    history = History(window=WINDOW, brief_agent=BRIEF_AGENT, brief_ttl=BRIEF_TTL_SECONDS)
    async with _system(scenario, folder) as (cluster, edges, model, tools):
        mortal = await _create_agents(cluster, edges)
        admin = Admin(scenario.seed, edges, history, mortal)
        sessions = Sessions(scenario.sessions, scenario.turns_a_session)
        nemesis = Nemesis(cluster, scenario.seed, scenario.pace)
        history.faults, history.calls, history.tools = nemesis.faults, model.calls, model.tools
        history.executions = tools.executions
        for number in range(MAX_ROUNDS):
            await _under_faults(scenario, number, nemesis, model, tools, edges, sessions, admin, history)
            if scenario.enough(history):
                break
        history.unrecovered += nemesis.complaints
        history.unrecovered += await _recovered(edges)
        if scenario.quiet_phases:
            await _probe(edges, sessions, history)
            await _leave(edges, model, history)
        await _idle(edges, model, history)
        history.taken_over = taken_over(folder)
        await edges.submissions.settle(history)
        if scenario.quiet_phases:
            await _repeat_keys(edges, history)
            await _outlive(edges, sessions, admin, history)
        used = [operation.session for operation in history.operations]
        for session in dict.fromkeys([*used, *(fork.id for fork in history.forks)]):
            history.stored[session] = await _in_the_end(partial(edges.stored, session, 0), f"session {session}")
        for session in sessions.of(TOOLED_AGENT):
            child = f"{session}:{HELPER}"
            history.children[child] = await _in_the_end(partial(edges.stored, child, 0), f"session {child}")
        return Result(scenario, history, check(history), model.faults, tools.faults)


@asynccontextmanager
async def _system(
    scenario: Scenario, folder: Path
) -> AsyncIterator[tuple[Cluster, Edges, RecordingModel, CountingToolServer]]:
    model, tools = RecordingModel(scenario.seed), CountingToolServer(scenario.seed)
    await model.start()
    await tools.start()
    with Proxies() as proxies:
        cluster = Cluster(
            folder,
            proxies,
            model.address,
            tools.address,
            session_entry=scenario.session_entry,
            gateway_entry=scenario.gateway_entry,
            session_settings=scenario.session_settings,
            gateway_settings=scenario.gateway_settings,
        )
        try:
            await asyncio.to_thread(cluster.start)
            edges = Edges([g.http_url for g in cluster.gateways], [g.grpc_target for g in cluster.gateways])
            try:
                yield cluster, edges, model, tools
            finally:
                await edges.close()
        finally:
            await asyncio.to_thread(cluster.close)
            await model.close()
            await tools.close()


async def _create_agents(cluster: Cluster, edges: Edges) -> dict[str, Any]:
    """Create the agents; return the body that makes the mortal one again."""
    mortal = cluster.agent(MORTAL_AGENT, WINDOW)
    brief = cluster.agent(BRIEF_AGENT, WINDOW, session={"idle_ttl": f"{BRIEF_TTL_SECONDS:g}s"})
    for body in (cluster.agent(AGENT, WINDOW), mortal, brief, cluster.agent(HELPER, WINDOW), _tooled(cluster)):
        async with edges.http.post(edges.url(0, "/v1/agents"), json=body) as response:
            assert response.status == 201, await response.text()
    return mortal


def _tooled(cluster: Cluster) -> dict[str, Any]:
    tools = [
        {"mcp": {"operator_tool_server": TOOL_SERVER, "approval": [GUARDED]}},
        {"agent": {"agent_id": HELPER, "name": HELPER, "description": "Helps."}},
    ]
    policy = {"call_timeout": "3s", "max_steps": 6}
    return cluster.agent(TOOLED_AGENT, TOOLED_WINDOW, tools=tools, tool_policy=policy)


async def _under_faults(
    scenario: Scenario,
    round_number: int,
    nemesis: Nemesis,
    model: RecordingModel,
    tools: CountingToolServer,
    edges: Edges,
    sessions: Sessions,
    admin: Admin,
    history: History,
) -> None:
    until = time.monotonic() + scenario.seconds
    model.faulty, model.slow, tools.faulty = scenario.pace > 0, True, scenario.pace > 0
    async with asyncio.TaskGroup() as group:
        for number in range(round_number * scenario.clients, (round_number + 1) * scenario.clients):
            client = Client(scenario.seed, number, edges, sessions, history.operations.append)
            group.create_task(client.run(until))
        for work in (
            admin.delete_sessions(sessions, until),
            admin.renew_agent(until),
            admin.list_sessions(until),
            admin.fork_sessions(sessions, until),
        ):
            group.create_task(work)
        if scenario.pace > 0:
            group.create_task(nemesis.run(until))
    model.faulty = model.slow = tools.faulty = False


async def _recovered(edges: Edges) -> list[str]:
    """Wait until every gateway is ready; return those that are not in time."""
    late = []
    deadline = time.monotonic() + RECOVERY_SECONDS
    for gateway in range(len(edges)):
        while not await _ready(edges, gateway):
            if time.monotonic() > deadline:
                late.append(f"gateway{gateway} is not ready {RECOVERY_SECONDS} s after the last fault")
                break
            await asyncio.sleep(0.05)
    return late


async def _ready(edges: Edges, gateway: int) -> bool:
    try:
        async with asyncio.timeout(5), edges.http.get(edges.url(gateway, "/readyz")) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _probe(edges: Edges, sessions: Sessions, history: History) -> None:
    """Let every session take a turn; those that were used last first, since they are the ones that may be held."""
    limit = asyncio.Semaphore(PROBES_AT_ONCE)
    deadline = time.monotonic() + LEASE_SECONDS + PROBE_SLACK_SECONDS

    async def probe(number: int, session: str, agent: str) -> None:
        async with limit:
            bound = max(deadline, time.monotonic() + LEASE_SECONDS + PROBE_SLACK_SECONDS)
            said: list[str] = []
            tries = 0
            while time.monotonic() < bound:
                tries += 1
                texts = (f"u probe {session} {tries}",)
                operation = Operation(f"probe{number}.{tries}", session, texts, agent=agent)
                history.operations.append(operation)
                attempt = await edges.attempt(operation, (number + tries) % len(edges), bound - time.monotonic())
                if attempt.ending is Ending.ACKNOWLEDGED:
                    return
                said.append(attempt.detail)
                await asyncio.sleep(0.1)
            history.stuck[session] = ", ".join(said)

    async with asyncio.TaskGroup() as group:
        lasting = [(session, agent) for session, agent in reversed(sessions.all) if agent != BRIEF_AGENT]
        for number, (session, agent) in enumerate(lasting):
            group.create_task(probe(number, session, agent))


async def _leave(edges: Edges, model: RecordingModel, history: History) -> None:
    """Leave turns that are to be finished all the same, at several moments."""
    model.pause = 0.4
    async with asyncio.TaskGroup() as group:
        for number in range(LEAVERS):
            texts = (f"u leaver {number}",)
            operation = Operation(f"leaver{number}", f"f{number}", texts, streamed=number % 2 > 0, finish=True)
            operation.edge = "http" if number % 4 < 2 else "grpc"
            history.operations.append(operation)
            history.left.append(operation)
            # A gRPC caller's deadline ends its turn, whoever listens: it leaves long before that.
            group.create_task(edges.attempt(operation, number % len(edges), 0.1 + 0.05 * number, deadline=20.0))
    model.pause = 0.0


async def _attempt_again(edges: Edges, operation: Operation, gateway: int) -> Attempt:
    """Try until it is acknowledged, where that can't store it twice: a busy machine meets bounds of some seconds."""
    bound = time.monotonic() + AGAIN_SECONDS
    while True:
        attempt = await edges.attempt(operation, gateway, 20.0)
        repeatable = bool(operation.key) or attempt.ending is Ending.REFUSED
        if attempt.ending is Ending.ACKNOWLEDGED or not repeatable or time.monotonic() > bound:
            return attempt
        await asyncio.sleep(0.2)


async def _in_the_end(read: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Read what can be read, for nothing is broken any more; a busy machine may be late."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            if (found := await read()) is not None:
                return found
        assert time.monotonic() < deadline, f"{what} can't be read, and nothing is broken any more"
        await asyncio.sleep(0.1)


async def _idle(edges: Edges, model: RecordingModel, history: History) -> None:
    """Wait until no turn runs anywhere."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while model.running or any([await _running(edges, gateway) for gateway in range(len(edges))]):
        if time.monotonic() > deadline:
            history.unrecovered.append(f"turns run {RECOVERY_SECONDS} s after the last request")
            return
        await asyncio.sleep(0.05)
    history.idle_since = time.monotonic()


async def _running(edges: Edges, gateway: int) -> bool:
    async with edges.http.get(edges.url(gateway, "/metrics")) as response:
        gauges = r"^parley_turns_(?:running|queued|taken_over_running)\S* (\S+)$"
        found = re.findall(gauges, await response.text(), re.MULTILINE)
    assert found, "the gateway shows no gauges of turns"
    return any(float(value) for value in found)


async def _outlive(edges: Edges, sessions: Sessions, admin: Admin, history: History) -> None:
    """Wait until every brief session has expired; then none is listed, and those that are used again begin anew."""
    await asyncio.sleep(max(history.idle_since + BRIEF_TTL_SECONDS + 0.2 - time.monotonic(), 0.0))
    draw = random.Random(0)
    for agent in (BRIEF_AGENT, MORTAL_AGENT, AGENT):
        history.listings.append(await _in_the_end(partial(admin.listed, draw, agent), f"sessions of {agent}"))
    for number, session in enumerate(sessions.of(BRIEF_AGENT)[-REVISITED:]):
        operation = Operation(f"revisit{number}", session, (f"u revisit {session}",), agent=BRIEF_AGENT)
        history.operations.append(operation)
        attempt = await _attempt_again(edges, operation, number % len(edges))
        if attempt.ending is not Ending.ACKNOWLEDGED:
            history.stuck[session] = f"{attempt.detail}: {attempt.said}"


async def _repeat_keys(edges: Edges, history: History) -> None:
    """Repeat keys whose outcome is known; the answers must be the same, and the model must not be asked."""
    history.quiet_since = time.monotonic()
    lifetimes = Lifetimes(history)
    known = [
        operation
        for operation in history.operations
        if operation.key and operation.acknowledgement and not lifetimes.may_run_anew(operation)
    ]
    for number, operation in enumerate(known[-MAX_REPLAYS:]):
        attempt = await _attempt_again(edges, operation, number % len(edges))
        if attempt.ending is not Ending.ACKNOWLEDGED:
            told = f"{attempt.detail} by gateway{attempt.gateway}: {attempt.said}"
            history.stuck[operation.session] = f"the key of {operation.id} was answered {told}"
