"""`parley up`: bring everything up in order, say hello, watch, and take everything down again."""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from parley_cli.api import Api
from parley_cli.errors import LocalError
from parley_cli.local import greeting
from parley_cli.local.data_directory import DataDirectory
from parley_cli.local.narrator import REFRESH_SECONDS, Narrator
from parley_cli.local.settings import UpSettings
from parley_cli.local.system import LocalSystem
from parley_cli.processes.child import last_line
from parley_cli.processes.supervisor import Restarter

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DETACHED_READY_SECONDS = 300.0
POLL_SECONDS = 0.1


class StopRequested(BaseException):
    """A signal asked this process to end; not an error, so no `except Exception` may swallow it."""


class StopSignals:
    """While entered: the first stop signal raises StopRequested, any further one sets `hurried`."""

    def __init__(self) -> None:
        self._count = 0

    def hurried(self) -> bool:
        """Whether a stop was requested again."""
        return self._count > 1

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Handle the signals in the block, and as before after it."""
        before = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            raise StopRequested


def up(data: DataDirectory, gateways: int, narrator: Narrator, *, greet: bool, restart: bool = True) -> None:
    """Runs the whole system until a stop signal; raises LocalError when a part is missing or refused.

    A part that dies is started again, at most three times a minute; the next end, or without `restart` the first, ends
    everything.

    Whatever the end, every child has been stopped when this returns or raises.
    """
    settings = UpSettings.read()
    signals = StopSignals()
    with signals.entered(), suppress(StopRequested):
        _run(data, settings, gateways, narrator, signals, greet=greet, restart=restart)


def _run(
    data: DataDirectory,
    settings: UpSettings,
    gateways: int,
    narrator: Narrator,
    signals: StopSignals,
    *,
    greet: bool,
    restart: bool,
) -> None:
    with data.owned():
        system = LocalSystem(data, settings, gateways)
        try:
            data.write_state(system.describe("starting"))
            with narrator.progress(system.stages) as on_ready:
                system.bring_up(on_ready)
            if system.postgres.note:
                narrator.say(system.postgres.note)
            data.write_state(system.describe("ready"))
            if greet:
                introduce(system.http_url, system.grpc_target, settings, narrator)
            restarter = Restarter(narrator.say, lambda: data.write_state(system.describe("ready")))
            with narrator.status(system.supervisor.parts, system.addresses) as tick:
                system.supervisor.watch(REFRESH_SECONDS, tick, restarter if restart else None)
        finally:
            _stop(system, data, narrator, signals)


def _stop(system: LocalSystem, data: DataDirectory, narrator: Narrator, signals: StopSignals) -> None:
    if not system.supervisor.parts:
        return
    data.write_state(system.describe("stopping"))
    stopped: list[str] = []
    complaints = system.take_down(stopped.append, signals.hurried)
    if stopped:
        narrator.say(f"\nstopped {', '.join(stopped)}")
    for complaint in complaints:
        narrator.say(complaint)


def introduce(http_url: str, grpc_target: str, settings: UpSettings, narrator: Narrator) -> None:
    """Runs a first turn with `hello`, which is created if missing, and prints what to try next.

    A model that does not answer is reported in a line; the system stays up.
    """
    with Api(http_url) as api:
        try:
            greeting.ensure_agents(api, settings)
            greeting.converse(api, narrator)
        except LocalError as error:
            narrator.say(f"no first turn: {error}")
    for line in greeting.endpoints(http_url, grpc_target, settings):
        narrator.say(line)


def up_detached(data: DataDirectory, gateways: int, narrator: Narrator, *, restart: bool = True) -> None:
    """Starts the system in the background, and returns when it is ready; raises LocalError if it fails."""
    settings = UpSettings.read()
    data.make()
    log = data.log("supervisor")
    command = [sys.executable, "-m", "parley_cli", "up", "--supervised"]
    command += ["--data", str(data.path), "--gateways", str(gateways)]
    command += [] if restart else ["--no-restart"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        with narrator.console.status("starting"):
            state = _wait_until_ready(data, process, log)
    except BaseException:
        process.terminate()
        raise
    if state["note"]:
        narrator.say(state["note"])
    introduce(state["http_url"], state["grpc_target"], settings, narrator)
    narrator.say(
        f"running in the background (pid {process.pid}); `parley down --data {shlex.quote(str(data.path))}` stops it"
    )


def _wait_until_ready(data: DataDirectory, process: "subprocess.Popen[bytes]", log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + DETACHED_READY_SECONDS
    while time.monotonic() < deadline:
        state = data.read_state()
        if state is not None and state["phase"] == "ready" and data.owner() == process.pid:
            return state
        if process.poll() is not None:
            raise LocalError(last_line(log).removeprefix("parley: "))
        time.sleep(POLL_SECONDS)
    raise LocalError(f"the system was not ready after {DETACHED_READY_SECONDS:g} s (log {log})")
