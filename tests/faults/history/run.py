"""One run: clients and faults for so long; then all is healed, every session takes one more turn, and all is read."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.faults.history.checker import Anomaly, check
from tests.faults.history.clients import Client, Edges, Sessions
from tests.faults.history.cluster import LEASE_SECONDS, Cluster
from tests.faults.history.nemesis import Nemesis
from tests.faults.history.records import Ending, History, Message, Operation
from tests.faults.history.upstream import RecordingModel
from tests.faults.proxy import Proxies

WINDOW = 24
RECOVERY_SECONDS = 60.0
PROBE_SLACK_SECONDS = 10.0
"""On top of one lease: for a machine whose processors are busy with other tests."""
PROBES_AT_ONCE = 8
MOST_REPLAYS = 300


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is run. `pace` is the mean pause between two faults of the services, in seconds; 0 makes none."""

    seed: int
    seconds: float
    clients: int = 10
    sessions: int = 5
    turns_a_session: int = 60
    pace: float = 1.0
    session_entry: list[str] | None = None
    gateway_entry: list[str] | None = None
    session_settings: Mapping[str, str] = field(default_factory=dict)
    gateway_settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run."""

    scenario: Scenario
    history: History
    anomalies: list[Anomaly]
    model_faults: Mapping[str, int]


async def run(scenario: Scenario, folder: Path) -> Result:
    """Run a scenario on a system of its own, whose logs go to `folder`, and judge it."""
    history = History(window=WINDOW)
    async with _system(scenario, folder) as (cluster, edges, model):
        await _create_agent(cluster, edges)
        sessions = Sessions(scenario.sessions, scenario.turns_a_session)
        nemesis = Nemesis(cluster, scenario.seed, scenario.pace)
        await _under_faults(scenario, nemesis, model, edges, sessions, history)
        history.faults = nemesis.faults
        history.unrecovered += nemesis.complaints
        history.unrecovered += await _recovered(edges)
        await _probe(edges, sessions, history)
        await _repeat_keys(edges, model, history)
        for session in sessions.all:
            history.stored[session] = await _read(edges, session)
        history.calls = model.calls
        return Result(scenario, history, check(history), model.faults)


@asynccontextmanager
async def _system(scenario: Scenario, folder: Path) -> AsyncIterator[tuple[Cluster, Edges, RecordingModel]]:
    model = RecordingModel(scenario.seed)
    await model.start()
    with Proxies() as proxies:
        cluster = Cluster(
            folder,
            proxies,
            model.address,
            session_entry=scenario.session_entry,
            gateway_entry=scenario.gateway_entry,
            session_settings=scenario.session_settings,
            gateway_settings=scenario.gateway_settings,
        )
        try:
            await asyncio.to_thread(cluster.start)
            edges = Edges([g.http_url for g in cluster.gateways], [g.grpc_target for g in cluster.gateways])
            try:
                yield cluster, edges, model
            finally:
                await edges.close()
        finally:
            await asyncio.to_thread(cluster.close)
            await model.close()


async def _create_agent(cluster: Cluster, edges: Edges) -> None:
    async with edges.http.post(edges.url(0, "/v1/agents"), json=cluster.agent(WINDOW)) as response:
        assert response.status == 201, await response.text()


async def _under_faults(
    scenario: Scenario,
    nemesis: Nemesis,
    model: RecordingModel,
    edges: Edges,
    sessions: Sessions,
    history: History,
) -> None:
    until = time.monotonic() + scenario.seconds
    model.faulty, model.slow = scenario.pace > 0, True
    async with asyncio.TaskGroup() as group:
        for number in range(scenario.clients):
            client = Client(scenario.seed, number, edges, sessions, history.operations.append)
            group.create_task(client.run(until))
        if scenario.pace > 0:
            group.create_task(nemesis.run(until))
    model.faulty = model.slow = False


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

    async def probe(number: int, session: str) -> None:
        async with limit:
            bound = max(deadline, time.monotonic() + LEASE_SECONDS + PROBE_SLACK_SECONDS)
            said: list[str] = []
            tries = 0
            while time.monotonic() < bound:
                tries += 1
                operation = Operation(f"probe{number}.{tries}", session, (f"u probe {session} {tries}",))
                history.operations.append(operation)
                attempt = await edges.attempt(operation, (number + tries) % len(edges), bound - time.monotonic())
                if attempt.ending is Ending.ACKNOWLEDGED:
                    return
                said.append(attempt.detail)
                await asyncio.sleep(0.1)
            history.stuck[session] = ", ".join(said)

    async with asyncio.TaskGroup() as group:
        for number, session in enumerate(reversed(sessions.all)):
            group.create_task(probe(number, session))


async def _repeat_keys(edges: Edges, model: RecordingModel, history: History) -> None:
    """Repeat keys whose outcome is known; the answers must be the same, and the model must not be asked."""
    while model.running:
        await asyncio.sleep(0.05)
    history.quiet_since = time.monotonic()
    known = [operation for operation in history.operations if operation.key and operation.acknowledgement]
    for number, operation in enumerate(known[-MOST_REPLAYS:]):
        attempt = await edges.attempt(operation, number % len(edges), 20.0)
        if attempt.ending is not Ending.ACKNOWLEDGED:
            told = f"{attempt.detail} by gateway{attempt.gateway}: {attempt.said}"
            history.stuck[operation.session] = f"the key of {operation.id} was answered {told}"


async def _read(edges: Edges, session: str) -> list[Message]:
    messages: list[Message] = []
    token = ""
    while True:
        query = {"page_size": "100", **({"page_token": token} if token else {})}
        url = edges.url(0, f"/v1/sessions/{session}/messages")
        async with edges.http.get(url, params=query) as response:
            if response.status == 404:
                return []
            assert response.status == 200, await response.text()
            page = await response.json()
        messages += [Message(message["role"], message["content"]) for message in page["data"]]
        token = page.get("next_page_token") or ""
        if not token:
            return messages
