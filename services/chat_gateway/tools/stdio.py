"""MCP over the standard input and output of a command of the operator's. Imports the SDK: load it where it is used."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import mcp_types as types
import structlog
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from chat_gateway.tools.mcp_session import Faults, Streams
from chat_gateway.tools.offered import plain_text
from chat_gateway.tools.secrets import Redaction
from chat_gateway.tools.server import MAX_RESULT_BYTES, ServerUnavailable
from servicekit.logs import SampledLines
from servicekit.values import value

log = structlog.get_logger(__name__)

GRACE_SECONDS = 1.5
"""For ending by itself once its input is closed, and once more after SIGTERM; its whole group is killed then."""

_MAX_STDERR_LINE = 1000
_STDERR_LINES_A_SECOND = 10
_KEPT = ("PATH", "HOME")


@value
class Command:
    """What is run. `env` is all that it gets beside `PATH`, `HOME` and `LANG`; secrets are in clear."""

    program: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str


def stdio_streams(name: str, command: Command, redaction: Redaction) -> Streams:
    """Returns what starts the command, as a process group of its own, and ends the group."""

    @asynccontextmanager
    async def streams(faults: Faults) -> AsyncIterator[TransportStreams]:
        process = await _start(command)
        log.info("tool_server_started", server=name, pid=process.pid)
        try:
            to_session, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
            from_session, to_server = anyio.create_memory_object_stream[SessionMessage](0)
            async with to_session, from_server, from_session, to_server, anyio.create_task_group() as group:
                group.start_soon(_read, process, to_session, faults)
                group.start_soon(_write, process, to_server)
                group.start_soon(_log_stderr, name, process, redaction)
                try:
                    yield from_server, from_session
                finally:
                    group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
            log.info("tool_server_ended", server=name, pid=process.pid, exit_code=process.returncode)

    return streams


async def _start(command: Command) -> asyncio.subprocess.Process:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    try:
        return await asyncio.create_subprocess_exec(
            command.program,
            *command.args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"LANG": "C.UTF-8", **kept, **command.env},
            cwd=command.cwd or "/",
            start_new_session=True,
            limit=MAX_RESULT_BYTES,
        )
    except (OSError, ValueError) as error:
        raise ServerUnavailable(f"can't be started ({type(error).__name__})") from None


async def _read(
    process: asyncio.subprocess.Process, to_session: ObjectSendStream[SessionMessage | Exception], faults: Faults
) -> None:
    stdout = process.stdout
    if stdout is None:
        raise AssertionError
    async with to_session:
        while True:
            try:
                line = await stdout.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                faults.lost("ended")
                return
            except asyncio.LimitOverrunError:
                faults.lost(f"wrote a line of more than {MAX_RESULT_BYTES >> 20} MiB")
                return
            try:
                message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValidationError:
                continue  # programs print what they like
            await to_session.send(SessionMessage(message))


async def _write(process: asyncio.subprocess.Process, to_server: ObjectReceiveStream[SessionMessage]) -> None:
    stdin = process.stdin
    if stdin is None:
        raise AssertionError
    with contextlib.suppress(ConnectionError, RuntimeError):
        async for message in to_server:
            stdin.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await stdin.drain()


async def _log_stderr(name: str, process: asyncio.subprocess.Process, redaction: Redaction) -> None:
    stderr = process.stderr
    if stderr is None:
        raise AssertionError
    sampled = SampledLines(_STDERR_LINES_A_SECOND)
    rest = b""
    while part := await stderr.read(4096):
        # A secret that is cut in two would not be found: what is left of a line waits for its end.
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > 16 * _MAX_STDERR_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            if line.strip() and sampled.take():
                text = plain_text(redaction.clean(line.decode("utf-8", "replace")), _MAX_STDERR_LINE)
                log.info("tool_server_stderr", server=name, line=text, **sampled.left_out())


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    for end in (None, signal.SIGTERM, signal.SIGKILL):
        if end is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, end)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await process.wait()
                break
    # What it had started itself goes with it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
