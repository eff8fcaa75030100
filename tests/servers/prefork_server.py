"""Imports one program, and forks a process of it for every connection; run by `prefork.py`, and ends with OWNER.

    python -P prefork_server.py MODULE FD OWNER

FD is a listening Unix socket, OWNER a process id. A connection sends one line of JSON, `{"module", "path", "arguments",
"env", "directory", "streams"}`, and is answered with the process id of `python -m module ARGUMENT ...` in that
environment and, when it ended, with its exit code, negative for a signal, each on a line of its own. `module` is MODULE
or one that runs it; `path` comes before sys.path; `streams` are the files to open as stdin, stdout and stderr. Whose
connection is closed before the end has the process killed.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from parley_cli.processes.launch import bind_to_parent

FLAGS = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def main(module: str, descriptor: int, owner: int) -> None:
    """Serve until the owner ends."""
    _import(module)
    # What was imported stays: no fork is to look through it, and so to copy it.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server, listener, life = os.getpid(), socket.socket(fileno=descriptor), os.pidfd_open(owner)
    while True:
        ready, _, _ = select.select([listener, life], [], [])
        if life in ready:
            return _remove(Path(listener.getsockname()))
        connection, _ = listener.accept()
        if os.fork() == 0:
            bind_to_parent(server, signal.SIGKILL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _keep(connection)
        connection.close()


def _remove(address: Path) -> None:
    # The last of the run's servers finds the folder empty.
    address.unlink(missing_ok=True)
    address.with_name("lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        address.parent.rmdir()


def _import(module: str) -> None:
    if module == "parley_cli":
        # What it is made of: its own modules look at the environment while they are imported.
        importlib.import_module(f"{module}.commands.app")
        for name in [name for name in sys.modules if name.partition(".")[0] == module]:
            del sys.modules[name]
        return
    for part in ("__main__", "wiring"):
        importlib.import_module(f"{module}.{part}")
    if module == "chat_gateway":
        importlib.import_module("chat_gateway.http_edge.admin.application").admin_application()


def _keep(connection: socket.socket) -> NoReturn:
    # Between this server and the process: it can wait for the one and leave the other free to accept.
    keeper = os.getpid()
    with connection.makefile("rw") as stream:
        order = json.loads(stream.readline())
        pid = os.fork()
        if pid == 0:
            _become(order, keeper, connection)
        stream.write(f"{pid}\n")
        stream.flush()
        process = os.pidfd_open(pid)
        if process not in select.select([process, connection], [], [])[0]:
            os.kill(pid, signal.SIGKILL)  # who asked for it is gone
        _, status = os.waitpid(pid, 0)
        stream.write(f"{os.waitstatus_to_exitcode(status)}\n")
    os._exit(0)


def _become(order: dict[str, Any], keeper: int, connection: socket.socket) -> NoReturn:
    bind_to_parent(keeper, signal.SIGKILL)
    os.setsid()
    os.close(connection.detach())
    for descriptor, (name, flags) in enumerate(zip(order["streams"], FLAGS, strict=True)):
        opened = os.open(name, flags | os.O_NOCTTY, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = [order["module"], *order["arguments"]]
    sys.path[:0] = order["path"]
    code: object = 0
    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.exit(code)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
