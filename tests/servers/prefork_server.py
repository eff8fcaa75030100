"""Imports one service, and forks a process of it for every connection; run by `prefork.py`, and ends with its stdin.

    python -P prefork_server.py MODULE FD

FD is a listening Unix socket. A connection sends one line of JSON, `{"module", "path", "env", "directory", "log"}`, and
is answered with the process id of `python -m module` in that environment and, when it ended, with its exit code,
negative for a signal, each on a line of its own. `module` is MODULE or one that runs it; `path` comes before sys.path.
"""

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
from typing import Any, NoReturn

from parley_cli.processes.launch import bind_to_parent


def main(module: str, descriptor: int) -> None:
    """Serve until the end of stdin, which is the end of the process that started this one."""
    for part in ("__main__", "wiring"):
        importlib.import_module(f"{module}.{part}")
    if module == "chat_gateway":
        importlib.import_module("chat_gateway.http_edge.admin.application").admin_application()
    # What was imported stays: no fork is to look through it, and so to copy it.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server, listener = os.getpid(), socket.socket(fileno=descriptor)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            bind_to_parent(server, signal.SIGKILL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _keep(connection)
        connection.close()


def _keep(connection: socket.socket) -> NoReturn:
    # Between this server and the service: it can wait for the one and leave the other free to accept.
    keeper = os.getpid()
    with connection.makefile("rw") as stream:
        order = json.loads(stream.readline())
        pid = os.fork()
        if pid == 0:
            _become(order, keeper, connection)
        stream.write(f"{pid}\n")
        stream.flush()
        _, status = os.waitpid(pid, 0)
        stream.write(f"{os.waitstatus_to_exitcode(status)}\n")
    os._exit(0)


def _become(order: dict[str, Any], keeper: int, connection: socket.socket) -> NoReturn:
    bind_to_parent(keeper, signal.SIGKILL)
    os.setsid()
    os.close(connection.detach())
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, descriptor in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, descriptor)
    os.close(nothing)
    os.close(log)
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = [order["module"]]
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
    main(sys.argv[1], int(sys.argv[2]))
