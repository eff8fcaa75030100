"""The calls of TurnService over a few long-lived streams, which is a fraction of the work of an RPC for each call.

What turns ask for within one turn of the event loop goes out in one message, and answers come as they are ready.
"""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import grpc
import structlog
from google.protobuf.message import Message

from chat_gateway.clients.stubs import SESSION_SVC, Stubs
from parley.session.v1 import turn_service_pb2 as pb
from servicekit import traces
from servicekit.channels import call
from servicekit.errors import DeadlineExceeded, ServiceError, Unavailable
from servicekit.rpc_status import from_status
from servicekit.supervision import supervise
from servicekit.wire import bytes_tag, number_tag, varint

STREAMS = 4
"""Streams of a gateway, each to one replica."""

ROUND_SECONDS = 0.01
"""How long calls go to one stream before it is the next one's turn: what comes together shares a message, and no
replica has all for long."""

STREAM_AGE = 10.0
"""Seconds, on average, after which a stream is replaced: the channel picks the replica of each anew, so that one that
came back gets its share."""

CONNECT_SECONDS = 5.0
LEAVE_SECONDS = 5.0
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
MAX_BATCH_BYTES = 256 * 1024
LARGEST_CALL_BYTES = 2 * 1024 * 1024
"""A larger request goes as a call of its own: what a message may not hold must fail by itself."""

log = structlog.get_logger(__name__)

Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Method(Generic[Response]):
    """A method of TurnService: its names as an RPC, and as a field of `TurnCall` and `TurnResult`."""

    rpc: str
    name: str
    field: str
    tag: bytes


def _method(rpc: str, field: str) -> Method[Any]:
    return Method(
        rpc,
        f"parley.session.v1.TurnService/{rpc}",
        field,
        bytes_tag(pb.TurnCall.DESCRIPTOR.fields_by_name[field].number),
    )


BEGIN: Final[Method[pb.BeginTurnResponse]] = _method("BeginTurn", "begin")
RENEW: Final[Method[pb.RenewTurnResponse]] = _method("RenewTurn", "renew")
COMMIT: Final[Method[pb.CommitTurnResponse]] = _method("CommitTurn", "commit")
ABORT: Final[Method[pb.AbortTurnResponse]] = _method("AbortTurn", "abort")

_CALL = bytes_tag(pb.TurnsRequest.CALLS_FIELD_NUMBER)
_ID = number_tag(pb.TurnCall.ID_FIELD_NUMBER)
_TIMEOUT = number_tag(pb.TurnCall.TIMEOUT_MS_FIELD_NUMBER)


class TurnStreams:
    """Makes the calls, and keeps the streams up while `open`. Where none is up, calls are RPCs of their own."""

    def __init__(self, stubs: Stubs, *, streams: int = STREAMS, age: float = STREAM_AGE) -> None:
        self._stubs = stubs
        self._number = streams
        self._age = age
        self._up: deque[Stream] = deque()
        self._next_round = 0.0
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def streams(self) -> "Sequence[Stream]":
        """Those that take calls now."""
        return tuple(self._up)

    async def call(self, method: Method[Response], request: Message, timeout: float) -> Response:
        """Calls a method and returns its response. Errors are those of `servicekit.channels.call`."""
        stream, give_up = self._next(), asyncio.get_running_loop().time() + timeout
        data = request.SerializeToString() if stream is not None else b""
        if stream is not None and len(data) <= LARGEST_CALL_BYTES:
            with suppress(NotSent):
                if not traces.on():
                    return await stream.call(method, data, timeout)
                with traces.span(method.name, "client", {"rpc.system.name": "grpc", "rpc.method": method.name}):
                    return await stream.call(method, data, timeout, dict(traces.outgoing()))
        rpc, left = getattr(self._stubs.turns, method.rpc), max(give_up - asyncio.get_running_loop().time(), 0.0)
        response: Response = await call(rpc, request, timeout=left, peer=SESSION_SVC)
        return response

    @asynccontextmanager
    async def open(self) -> "AsyncIterator[TurnStreams]":
        """Keeps streams up while open. Entering does not wait for session_svc."""
        keepers = [
            asyncio.create_task(supervise("turn stream", self._keep), name="turn stream") for _ in range(self._number)
        ]
        try:
            yield self
        finally:
            ending = [*keepers, *self._leaving]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    def _next(self) -> "Stream | None":
        up, now = self._up, asyncio.get_running_loop().time()
        if not up:
            return None
        if now >= self._next_round:
            self._next_round = now + ROUND_SECONDS
            for _ in range(len(up)):
                up.rotate(-1)
                if not up[0].writing:
                    break
        return up[0]

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            stream = Stream(self._stubs.turn_stream(wait_for_ready=True))
            serving = asyncio.create_task(stream.serve(), name="turn stream")
            self._leaving.add(serving)
            serving.add_done_callback(self._leaving.discard)
            if await stream.connected():
                pause = FIRST_PAUSE
                self._up.append(stream)
                try:
                    await stream.retired(self._age * random.uniform(0.5, 1.5))
                finally:
                    self._up.remove(stream)
                    stream.retire()
            else:
                serving.cancel()
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)


class NotSent(Exception):
    """The stream ended before the call was sent: it may go another way."""


class Stream:
    """One stream. Calls are open from `call` to their answer; a retired one ends when the last is answered."""

    def __init__(self, rpc: Any) -> None:
        self._rpc = rpc
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Future[pb.TurnResult]] = {}
        self._unsent: dict[int, bytes] = {}
        self._cancelled: list[int] = []
        self._wake = asyncio.Event()
        self._connected = asyncio.Event()
        self._retired = asyncio.Event()
        self._last_answer = 0.0
        self.writing = False
        """Whether a message is on its way into the connection."""

    async def connected(self) -> bool:
        """Waits until a replica takes calls; tells whether one does, in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connected.wait()
        return self._connected.is_set() and not self._retired.is_set()

    async def retired(self, age: float) -> None:
        """Waits until the stream takes no more calls: by its age, its end, or the server's wish."""
        with suppress(TimeoutError):
            async with asyncio.timeout(age):
                await self._retired.wait()

    def retire(self) -> None:
        """Ends the stream as soon as no call is open."""
        self._retired.set()
        self._connected.set()  # so that nobody waits for that any more
        self._end_if_idle()

    async def call(
        self, method: Method[Response], data: bytes, timeout: float, trace: Mapping[str, str] | None = None
    ) -> Response:
        """Sends a call and returns the answer. Raises `NotSent`, or what `TurnStreams.call` does."""
        if self._retired.is_set():
            raise NotSent
        call_id, begin = next(self._ids), self._loop.time()
        answer = self._open[call_id] = self._loop.create_future()
        timer = self._loop.call_at(begin + timeout, self._expire, answer, begin)
        self._unsent[call_id] = _encoded(call_id, method, data, timeout, trace)
        self._wake.set()
        try:
            result = await answer
        except (asyncio.CancelledError, DeadlineExceeded):
            if self._unsent.pop(call_id, None) is None:
                self._cancelled.append(call_id)
                self._wake.set()
            raise
        finally:
            timer.cancel()
            del self._open[call_id]
            if self._retired.is_set():
                self._end_if_idle()
        if result.failure:
            raise from_status(result.failure)
        response: Response = getattr(result, method.field)
        return response

    async def serve(self) -> None:
        """Writes and reads until the stream ends, whichever way; then fails what is open."""
        writer = asyncio.create_task(self._write(), name="turn calls")
        writer.add_done_callback(self._stop_reading)
        try:
            await self._read()
        finally:
            self.retire()
            self._rpc.cancel()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            self._fail_open()

    async def _read(self) -> None:
        try:
            while (message := await self._rpc.read()) is not grpc.aio.EOF:
                self._last_answer = self._loop.time()
                self._connected.set()
                for result in message.results:
                    answer = self._open.get(result.id)
                    if answer is not None and not answer.done():
                        answer.set_result(result)
                if message.draining:
                    self.retire()
                # Once round the loop: who has been answered goes on before the next message is asked for.
                await asyncio.sleep(0)
        except grpc.aio.AioRpcError as error:
            log.info("turn_stream_ended", code=error.code().name)

    def _stop_reading(self, writer: asyncio.Task[None]) -> None:
        if not writer.cancelled() and (error := writer.exception()) is not None:
            log.info("turn_stream_broke", error=type(error).__name__)
            self._rpc.cancel()

    async def _write(self) -> None:
        while self._open or not self._retired.is_set():
            await self._wake.wait()
            self._wake.clear()
            while self._unsent or self._cancelled:
                self.writing = True
                await self._rpc.write(self._batch())
                self.writing = False
        await self._rpc.done_writing()

    def _end_if_idle(self) -> None:
        if not self._open:
            # The writer ends it, unless the other end reads nothing any more, or does not end its side.
            self._wake.set()
            self._loop.call_later(LEAVE_SECONDS, self._rpc.cancel)

    def _batch(self) -> bytes:
        unsent = self._unsent
        pieces, size = [], 0
        if self._cancelled:
            pieces.append(pb.TurnsRequest(cancelled_ids=self._cancelled).SerializeToString())
            self._cancelled.clear()
        while unsent and size < MAX_BATCH_BYTES:
            piece = unsent.pop(next(iter(unsent)))
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def _expire(self, answer: asyncio.Future[pb.TurnResult], begin: float) -> None:
        if answer.done():
            return
        answer.set_exception(DeadlineExceeded(f"{SESSION_SVC} did not answer before the deadline"))
        if self._last_answer < begin:
            self.retire()  # it has said nothing since: whoever is at the other end may stand still

    def _fail_open(self) -> None:
        for call_id, answer in self._open.items():
            if not answer.done():
                answer.set_exception(NotSent() if call_id in self._unsent else _lost())


def _encoded(call_id: int, method: Method[Any], data: bytes, timeout: float, trace: Mapping[str, str] | None) -> bytes:
    timeout_ms = varint(max(int(timeout * 1000), 1))
    context = pb.TurnCall(trace_context=trace).SerializeToString() if trace else b""
    fields = b"".join((_ID, varint(call_id), _TIMEOUT, timeout_ms, context, method.tag, varint(len(data)), data))
    return b"".join((_CALL, varint(len(fields)), fields))


def _lost() -> ServiceError:
    return Unavailable(SESSION_SVC)
