import fcntl
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from parley_cli.errors import DataInUse, LocalError
from parley_cli.local.data_directory import DataDirectory

HOLDER = """
import sys
from pathlib import Path
from parley_cli.local.data_directory import DataDirectory
with DataDirectory(Path(sys.argv[1])).owned():
    print("owned", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_two_owners_are_refused_and_the_first_is_named(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path / "data")
    command = [sys.executable, "-c", HOLDER, str(data.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"owned\n"
        with pytest.raises(DataInUse, match=rf"another `parley up` \(pid {holder.pid}\)"), data.owned():
            pass
        assert data.owner() == holder.pid
        holder.kill()
    assert data.owner() is None
    with data.owned():
        assert data.owner() == os.getpid()


def test_state_goes_with_its_owner(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    assert data.read_state() is None
    with data.owned():
        data.write_state({"phase": "ready"})
        assert data.read_state() == {"phase": "ready"}
    assert data.read_state() is None


def test_state_of_one_that_was_killed_is_not_taken_for_the_next_ones(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    data.write_state({"phase": "ready"})
    with data.owned():
        assert data.read_state() is None


def test_whoever_only_looks_keeps_nobody_out(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    with data.owned():
        pass
    with (tmp_path / "lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.2, fcntl.flock, (looking.fileno(), fcntl.LOCK_UN)).start()
        with data.owned():
            assert data.owner() == os.getpid()


def test_a_port_is_remembered_until_somebody_takes_it(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    port = data.port_for("redis", None)
    assert data.port_for("redis", None) == port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        moved = data.port_for("redis", None)
    assert moved != port
    assert data.port_for("redis", 4000) == 4000
    assert data.port_for("redis", None) == moved


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match=r"cannot use .*/file/data for data: Not a directory"):
        DataDirectory(tmp_path / "file" / "data").make()


def test_only_this_user_reads_it(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path / "data")
    data.make()
    assert data.path.stat().st_mode & 0o077 == 0


def test_a_large_log_is_set_aside(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    data.make()
    with data.log("redis").open("wb") as log:
        log.truncate(17 * 2**20)
    data.log("model").write_text("short")
    data.make()
    assert sorted(file.name for file in data.log("any").parent.iterdir()) == ["model.log", "redis.log.1"]
