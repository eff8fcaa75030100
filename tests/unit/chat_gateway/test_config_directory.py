"""How fresh agent configs are while config_svc answers, half answers, and is unavailable (invariant 5)."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from chat_gateway.clients.config_client import ChangeKind, ConfigChange
from chat_gateway.config_directory import ConfigDirectory, WatchTimes
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.not_found import AgentNotFound
from servicekit.errors import Code, RemoteError, ServiceError, Unavailable
from tests.unit.chat_gateway.world import make_config, remote
from tests.unit.event_loop import settle


class FakeConfigClient:
    """config_svc as a test sees it: what it has, whether it answers, and what its watch says."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], AgentConfig] = {}
        self.unavailable = False
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.changes: asyncio.Queue[ConfigChange | ServiceError] = asyncio.Queue()
        self.cursors: list[str] = []

    async def get(self, project: str, agent_id: str, *, uid: str = "", revision: int = 0) -> AgentConfig:
        self.reads += 1
        found = self.stored.get((project, agent_id))
        await self.gate.wait()
        if self.unavailable:
            raise Unavailable("config_svc")
        if found is None:
            raise RemoteError("no", code=Code.NOT_FOUND, reason="AGENT_NOT_FOUND")
        return found

    async def watch(self, cursor: str, *, heartbeat: float, silence: float) -> AsyncGenerator[ConfigChange, None]:
        self.cursors.append(cursor)
        while True:
            change = await self.changes.get()
            if isinstance(change, ServiceError):
                raise change
            yield change


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Directory:
    def __init__(self) -> None:
        self.client = FakeConfigClient()
        self.clock = Clock()
        self.deleted: list[AgentConfig] = []
        self.directory = ConfigDirectory(
            self.client,  # type: ignore[arg-type]
            WatchTimes(reconnect=0.01),
            on_deleted=self.deleted.append,
            clock=self.clock,
        )
        self.store(make_config())

    def store(self, config: AgentConfig) -> None:
        self.client.stored[config.project, config.id] = config

    async def revision(self) -> int:
        return (await self.directory.current("default", "support")).revision

    async def says(self, kind: ChangeKind, cursor: str, config: AgentConfig | None = None) -> None:
        self.client.changes.put_nowait(ConfigChange(kind, cursor, config))
        await settle()

    async def loses_its_watch(self, error: ServiceError) -> None:
        """Has the watch end, and waits for the next one."""
        watches = len(self.client.cursors)
        self.client.changes.put_nowait(error)
        async with asyncio.timeout(60):
            while len(self.client.cursors) == watches:
                await asyncio.sleep(0.005)
        await settle()


@pytest.fixture
async def world() -> AsyncIterator[Directory]:
    directory = Directory()
    follower = asyncio.create_task(directory.directory.follow())
    await asyncio.sleep(0)
    yield directory
    follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)
    await directory.directory.close()


async def test_while_the_watch_is_up_a_config_is_read_once(world: Directory) -> None:
    await world.says(ChangeKind.HEARTBEAT, "1")
    for _ in range(5):
        assert await world.revision() == 1
        world.clock.now += 2
        await world.says(ChangeKind.HEARTBEAT, "1")
    assert world.client.reads == 1


async def test_a_pushed_change_is_used_at_once(world: Directory) -> None:
    await world.says(ChangeKind.HEARTBEAT, "1")
    await world.revision()
    await world.says(ChangeKind.WRITTEN, "2", make_config(revision=2))
    assert await world.revision() == 2
    assert world.client.reads == 1


async def test_a_deleted_agent_is_gone_and_its_instances_are_evicted(world: Directory) -> None:
    await world.says(ChangeKind.HEARTBEAT, "1")
    await world.revision()
    del world.client.stored["default", "support"]
    await world.says(ChangeKind.DELETED, "2", make_config())
    with pytest.raises(AgentNotFound):
        await world.revision()
    assert [config.uid for config in world.deleted] == ["uid-1"]


async def test_a_late_word_of_an_earlier_life_changes_nothing(world: Directory) -> None:
    await world.says(ChangeKind.HEARTBEAT, "1")
    world.store(make_config(uid="uid-2"))
    await world.revision()
    await world.says(ChangeKind.DELETED, "2", make_config(uid="uid-1"))
    await world.revision()
    assert world.client.reads == 1


async def test_while_the_watch_is_down_old_configs_are_read_again_before_use(world: Directory) -> None:
    await world.revision()
    world.clock.now += 4.9
    world.store(make_config(revision=2))
    assert await world.revision() == 1
    world.clock.now += 0.2
    assert await world.revision() == 2
    assert world.client.reads == 2


async def test_a_silent_watch_counts_as_down(world: Directory) -> None:
    await world.says(ChangeKind.HEARTBEAT, "1")
    await world.revision()
    world.store(make_config(revision=2))
    world.clock.now += 10
    assert not world.directory.watching
    assert await world.revision() == 2


async def test_while_config_svc_is_unavailable_known_agents_go_on_and_unknown_ones_fail(world: Directory) -> None:
    await world.revision()
    world.client.unavailable = True
    world.clock.now += 100
    assert await world.revision() == 1
    with pytest.raises(Unavailable):
        await world.directory.current("default", "other")


async def test_while_it_is_unavailable_only_one_turn_in_a_while_finds_out(world: Directory) -> None:
    await world.revision()
    world.client.unavailable = True
    world.clock.now += 100
    for _ in range(10):
        await world.revision()
    assert world.client.reads == 2
    world.clock.now += 1.1
    await world.revision()
    assert world.client.reads == 3


async def test_what_is_too_old_is_not_used_any_more(world: Directory) -> None:
    await world.revision()
    world.client.unavailable = True
    world.clock.now += 901
    with pytest.raises(Unavailable):
        await world.revision()


async def test_the_watch_resumes_where_it_left_off(world: Directory) -> None:
    await world.says(ChangeKind.HEARTBEAT, "1")
    await world.says(ChangeKind.WRITTEN, "2", make_config(revision=2))
    await world.loses_its_watch(Unavailable("config_svc"))
    assert world.client.cursors == ["", "2"]


async def test_a_cursor_that_is_too_old_makes_everything_unconfirmed(world: Directory) -> None:
    await world.says(ChangeKind.HEARTBEAT, "1")
    await world.revision()
    world.store(make_config(revision=2))
    await world.loses_its_watch(remote("CURSOR_TOO_OLD", Code.OUT_OF_RANGE))
    await world.says(ChangeKind.HEARTBEAT, "9")
    assert world.client.cursors == ["", ""]
    assert world.directory.watching
    assert await world.revision() == 2


async def test_many_turns_share_one_read(world: Directory) -> None:
    world.client.gate.clear()
    turns = [asyncio.create_task(world.revision()) for _ in range(10)]
    await asyncio.sleep(0)
    turns[0].cancel()
    await asyncio.sleep(0)
    world.client.gate.set()
    assert await asyncio.gather(*turns[1:]) == [1] * 9
    assert world.client.reads == 1


async def test_a_change_that_overtakes_a_read_is_not_lost(world: Directory) -> None:
    await world.says(ChangeKind.HEARTBEAT, "1")
    world.client.gate.clear()
    turn = asyncio.create_task(world.revision())
    await asyncio.sleep(0)
    world.store(make_config(revision=2))
    await world.says(ChangeKind.WRITTEN, "2", make_config(revision=2))
    world.client.gate.set()
    assert await turn == 2
    assert await world.revision() == 2


async def test_a_read_that_spans_the_beginning_of_the_watch_is_read_again(world: Directory) -> None:
    world.client.gate.clear()
    turn = asyncio.create_task(world.revision())
    await asyncio.sleep(0)
    world.store(make_config(revision=2))  # behind the answer that is on its way, and before the watch
    await world.says(ChangeKind.HEARTBEAT, "1")
    world.client.gate.set()
    assert await turn == 2


async def test_a_resumed_watch_is_up_once_it_has_caught_up(world: Directory) -> None:
    await world.says(ChangeKind.HEARTBEAT, "1")
    await world.revision()
    await world.loses_its_watch(Unavailable("config_svc"))
    world.clock.now += 6
    world.store(make_config(revision=9))
    await world.says(ChangeKind.HEARTBEAT, "1")
    assert not world.directory.watching
    assert await world.revision() == 9
    await world.says(ChangeKind.WRITTEN, "2", make_config(revision=3))
    assert not world.directory.watching
    assert await world.revision() == 9, "what was missed does not undo what was read since"
    await world.says(ChangeKind.HEARTBEAT, "2")
    assert world.directory.watching
    assert await world.revision() == 9


async def test_silence_and_lag_are_reported(world: Directory) -> None:
    assert world.directory.silence == float("inf")
    await world.says(ChangeKind.HEARTBEAT, "1")
    world.clock.now += 3
    assert world.directory.silence == 3
    written = datetime.now(UTC) - timedelta(seconds=2)
    world.client.changes.put_nowait(ConfigChange(ChangeKind.WRITTEN, "2", make_config(), written))
    await settle()
    assert (world.directory.silence, 2 <= world.directory.lag < 60) == (0, True)
