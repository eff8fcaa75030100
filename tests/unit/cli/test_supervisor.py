import os
import signal
import sys
from pathlib import Path

import pytest

from parley_cli.errors import ChildDied, NotReady, PortTaken
from parley_cli.processes.child import Child
from parley_cli.processes.supervisor import MAX_RESTARTS, RESTART_WINDOW_SECONDS, Restarter, Supervisor

pytestmark = pytest.mark.slow

OBEDIENT = (
    "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(60)"
)
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
DYING = "import sys; print('first', flush=True); print('no such table', file=sys.stderr); sys.exit(3)"


class Program:
    """A part that is ready when it has said `up`."""

    def __init__(self, name: str, program: str, folder: Path, timeout: float = 60) -> None:
        self.name = name
        self._timeout = timeout
        self._log = folder / f"{name}.log"
        self._child = Child(name, [sys.executable, "-c", program], log=self._log)

    @property
    def child(self) -> Child:
        return self._child

    @property
    def ready_seconds(self) -> float:
        return self._timeout

    def launch(self) -> None:
        self._child.start()

    def ready(self) -> bool:
        return "up" in self._log.read_text()


def ignore(_: str) -> None:
    """Nobody wants to know."""


@pytest.fixture
def supervisor():
    supervisor = Supervisor()
    yield supervisor
    supervisor.stop(ignore, timeout=0)


def test_parts_stop_in_reverse_order(supervisor: Supervisor, tmp_path: Path) -> None:
    parts = [Program(name, OBEDIENT, tmp_path) for name in ("store", "service", "edge")]
    told: list[str] = []
    supervisor.start(parts[:1], told.append)
    assert told == ["store"]
    supervisor.start(parts[1:], told.append)
    assert sorted(told) == ["edge", "service", "store"]
    assert supervisor.parts == tuple(parts)
    told.clear()
    assert supervisor.stop(told.append) == []
    assert told == ["edge", "service", "store"]
    assert [part.child.exit_code for part in parts] == [0, 0, 0]
    assert supervisor.parts == ()


def test_a_part_that_dies_while_it_starts_names_its_log_and_last_line(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(ChildDied) as error:
        supervisor.start([Program("config_svc", DYING, tmp_path)], ignore)
    log = tmp_path / "config_svc.log"
    assert str(error.value) == f"config_svc ended with exit code 3 (log {log}): no such table"


def test_a_death_while_others_start_is_noticed_at_once(supervisor: Supervisor, tmp_path: Path) -> None:
    slow = Program("slow", "import time; time.sleep(60)", tmp_path, timeout=30)
    with pytest.raises(ChildDied, match="dying ended with exit code 3"):
        supervisor.start([slow, Program("dying", DYING, tmp_path)], ignore)


def test_a_part_that_never_gets_ready_is_named_and_stopped(supervisor: Supervisor, tmp_path: Path) -> None:
    part = Program("model", "import time; time.sleep(60)", tmp_path, timeout=0.2)
    with pytest.raises(NotReady, match=r"model was not ready after 0\.2 s"):
        supervisor.start([part], ignore)
    supervisor.stop(ignore)
    assert not part.child.running


def test_a_death_later_is_noticed(supervisor: Supervisor, tmp_path: Path) -> None:
    redis, other = Program("redis", OBEDIENT, tmp_path), Program("other", OBEDIENT, tmp_path)
    supervisor.start([redis], ignore)
    supervisor.check()
    os.kill(redis.child.pid, signal.SIGKILL)
    with pytest.raises(ChildDied, match="redis was killed by signal 9"):
        supervisor.watch(0.01, lambda: None)
    with pytest.raises(ChildDied, match="redis"):
        supervisor.start([other], ignore)
    assert other.child.exit_code is None
    assert not other.child.running


def test_a_part_that_ignores_the_request_is_killed_in_time(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start([Program("edge", STUBBORN, tmp_path)], ignore)
    complaints = supervisor.stop(ignore, timeout=0.2)
    assert complaints == [f"edge did not stop cleanly (exit code -9, log {tmp_path / 'edge.log'})"]


def test_a_second_request_hurries(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start([Program("edge", STUBBORN, tmp_path)], ignore)
    assert len(supervisor.stop(ignore, hurried=lambda: True, timeout=60)) == 1


def test_a_paused_part_stops(supervisor: Supervisor, tmp_path: Path) -> None:
    part = Program("edge", OBEDIENT, tmp_path)
    supervisor.start([part], ignore)
    part.child.pause()
    assert supervisor.stop(ignore, timeout=60) == []


class RestartWorld:
    """A supervisor with one part, a restarter, and a clock that the test moves."""

    def __init__(self, supervisor: Supervisor, folder: Path) -> None:
        self.part = Program("edge", OBEDIENT, folder)
        supervisor.start([self.part], ignore)
        self.now = 1000.0
        self.said: list[str] = []
        self.changes = 0
        self._restarter = Restarter(self.said.append, self._changed, first_pause=1.0, clock=lambda: self.now)

    def _changed(self) -> None:
        self.changes += 1

    def look(self) -> None:
        self._restarter.look_after(self.part, self.part.child)

    def die_and_return(self, pause: float) -> None:
        """The part is killed, and is back after `pause` seconds, not before."""
        self.part.child.kill()
        self.look()
        self.now += pause - 0.01
        self.look()
        assert not self.part.child.running
        self.now += 0.02
        self.look()
        assert self.part.child.running
        self.look()
        assert self.said[-1] == "edge is ready again"


def test_a_part_that_dies_is_started_again_three_times_a_minute(supervisor: Supervisor, tmp_path: Path) -> None:
    world = RestartWorld(supervisor, tmp_path)
    for pause in (1.0, 4.0, 16.0):
        world.die_and_return(pause)
    log = tmp_path / "edge.log"
    assert world.said[-2] == f"edge was killed by signal 9 (log {log}): up; starting it again in 16 s (3 of 3 a minute)"
    assert world.changes == 2 * MAX_RESTARTS, "each death and each start is in the state that `parley status` reads"
    world.part.child.kill()
    with pytest.raises(ChildDied, match="edge was killed by signal 9"):
        world.look()
    assert world.said[-1] == "edge died 4 times within a minute: not started again"


def test_restarts_of_an_earlier_minute_do_not_count(supervisor: Supervisor, tmp_path: Path) -> None:
    world = RestartWorld(supervisor, tmp_path)
    for _ in range(MAX_RESTARTS):
        world.die_and_return(1.0)
        world.now += RESTART_WINDOW_SECONDS


def test_a_part_that_does_not_get_ready_again_ends_the_watch(supervisor: Supervisor, tmp_path: Path) -> None:
    world = RestartWorld(supervisor, tmp_path)
    world.part.child.kill()
    world.look()
    world.part.ready = lambda: False  # type: ignore[method-assign]
    world.now += 1.1
    world.look()
    world.now += world.part.ready_seconds + 1
    with pytest.raises(NotReady):
        world.look()


def test_a_start_that_is_refused_is_tried_again_with_the_same_bound(supervisor: Supervisor, tmp_path: Path) -> None:
    world = RestartWorld(supervisor, tmp_path)
    world.part.child.kill()
    world.look()

    def refused() -> None:
        raise PortTaken("edge", 80)

    launch, world.part.launch = world.part.launch, refused  # type: ignore[method-assign]
    world.now += 1.1
    world.look()
    assert world.said[-1] == "edge: port 80 is taken; trying again in 4 s"
    world.part.launch = launch  # type: ignore[method-assign]
    world.now += 4.1
    world.look()
    assert world.part.child.running
    world.part.child.kill()
    world.look()
    world.part.launch = refused  # type: ignore[method-assign]
    world.now += 16.1
    with pytest.raises(PortTaken):
        world.look()
