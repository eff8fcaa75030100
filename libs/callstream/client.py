"""The client: a few streams that are kept open, and the calls over them."""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.message import Message

from callstream.protocol import Method, Protocol
from servicekit import traces
from servicekit.backoff import Backoff
from servicekit.channels import call
from servicekit.errors import DeadlineExceeded, Unavailable
from servicekit.rpc_status import from_status
from servicekit.supervision import cancel_and_wait, supervise
from servicekit.wire import varint

STREAMS = 4
"""Streams of a caller, each to one replica."""

ROUND_SECONDS = 0.01
"""How long calls go to one stream before the next: concurrent calls share a message, and replicas share the load."""

STREAM_AGE_SECONDS = 10.0
"""The average age at which a used stream is replaced.

The channel picks a replica for each new stream, so a replica that came back gets its share.
"""

CONNECT_SECONDS = 5.0
LEAVE_SECONDS = 5.0
MIN_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 2.0
MAX_BATCH_BYTES = 256 * 1024
MAX_CALL_BYTES = 2 * 1024 * 1024
"""Larger requests are sent as separate RPCs, so that one that is too large fails alone."""

log = structlog.get_logger(__name__)

Response = TypeVar("Response", bound=Message)


class CallStreamClient:
    """Makes calls, and keeps the streams open while `open`. Without an open stream, calls are separate RPCs.

    The channel is not closed; `peer` is the name used in errors. `age_seconds` is the average age at which a used
    stream is replaced; its running calls are answered on it.
    """

    def __init__(
        self,
        protocol: Protocol,
        methods: Iterable[Method[Any]],
        channel: grpc.aio.Channel,
        *,
        peer: str,
        streams: int = STREAMS,
        age_seconds: float = STREAM_AGE_SECONDS,
    ) -> None:
        self._protocol = protocol
        self._peer = peer
        self._number = streams
        self._age_seconds = age_seconds
        self._open_stream: Any = channel.stream_stream(
            f"/{protocol.stream}", response_deserializer=protocol.read_responses
        )
        self._unary: dict[str, Any] = {
            method.name: channel.unary_unary(
                f"/{method.name}",
                request_serializer=_serialized,
                response_deserializer=method.response.FromString,
            )
            for method in methods
        }
        self._up: deque[Stream] = deque()
        self._next_round = 0.0
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def streams(self) -> "Sequence[Stream]":
        """The streams that accept calls."""
        return tuple(self._up)

    async def call(self, method: Method[Response], request: Message | bytes, timeout: float) -> Response:
        """Calls a method with a message, or a serialized one, and returns its response. Errors are those of
        `channels.call`.

        `timeout` is in seconds. A call that was not sent before its stream ended is made as an RPC, in the remaining
        time.
        """
        stream, give_up = self._next(), asyncio.get_running_loop().time() + timeout
        data = b""
        if stream is not None:
            data = request if type(request) is bytes else request.SerializeToString()  # type: ignore[union-attr]
        if stream is not None and len(data) <= MAX_CALL_BYTES:
            with suppress(NotSent):
                if not traces.on():
                    return await stream.call(method, data, timeout)
                with traces.span(method.name, "client", {"rpc.system.name": "grpc", "rpc.method": method.name}):
                    return await stream.call(method, data, timeout, dict(traces.outgoing()))
        left = max(give_up - asyncio.get_running_loop().time(), 0.0)
        response: Response = await call(self._unary[method.name], request, timeout=left, peer=self._peer)
        return response

    @asynccontextmanager
    async def open(self) -> "AsyncIterator[CallStreamClient]":
        """Keeps streams open while entered. Entering does not wait for the peer."""
        keepers = [
            asyncio.create_task(supervise("call stream", self._keep), name="call stream") for _ in range(self._number)
        ]
        try:
            yield self
        finally:
            await cancel_and_wait(*keepers, *self._leaving)

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
        attempts = Backoff(MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
        async for _ in attempts:
            while await self._keep_one():
                attempts.reset()

    async def _keep_one(self) -> bool:
        """Opens a stream and waits until it accepts no more calls; returns whether it accepted any."""
        stream = Stream(self._protocol, self._open_stream(wait_for_ready=True), self._peer)
        serving = asyncio.create_task(stream.serve(), name="call stream")
        self._leaving.add(serving)
        serving.add_done_callback(self._leaving.discard)
        if not await stream.connected():
            serving.cancel()
            return False
        self._up.append(stream)
        try:
            await stream.worn_out(self._age_seconds * random.uniform(0.5, 1.5))
        finally:
            self._up.remove(stream)
            stream.retire()
        return True


def _serialized(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


class NotSent(Exception):
    """The stream ended before the call was sent, so the call can be made in another way."""


class Stream:
    """One stream. A retired stream ends when its last open call is answered."""

    def __init__(self, protocol: Protocol, rpc: Any, peer: str, *, leave_seconds: float = LEAVE_SECONDS) -> None:
        self._protocol = protocol
        self._rpc = rpc
        self._peer = peer
        self._leave_seconds = leave_seconds
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._unsent: dict[int, bytes] = {}
        self._cancelled: list[int] = []
        self._wake = asyncio.Event()
        self._connected = asyncio.Event()
        self._used = asyncio.Event()
        self._retired = asyncio.Event()
        self._last_answer = 0.0
        self.writing = False
        """Whether a message is being written."""

    async def connected(self) -> bool:
        """Waits until a replica accepts calls; returns false on a timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connected.wait()
        return self._connected.is_set() and not self._retired.is_set()

    async def worn_out(self, age_seconds: float) -> None:
        """Waits until the stream should accept no more calls: it ended, the server asked for it, or it reached its age.
        Unused streams do not age, since replacing them would gain nothing.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(age_seconds):
                await self._retired.wait()
        await self._used.wait()

    def retire(self) -> None:
        """Ends the stream as soon as it has no open call."""
        self._retired.set()
        self._connected.set()  # wakes those who wait for it
        self._used.set()
        self._end_if_idle()

    async def call(
        self, method: Method[Response], data: bytes, timeout: float, trace: Mapping[str, str] | None = None
    ) -> Response:
        """Sends a call and returns the answer. Raises `NotSent`, or what `CallStreamClient.call` does."""
        if self._retired.is_set():
            raise NotSent
        call_id, begin = next(self._ids), self._loop.time()
        answer = self._open[call_id] = self._loop.create_future()
        timer = self._loop.call_at(begin + timeout, self._expire, answer, begin)
        self._unsent[call_id] = self._encoded(call_id, method, data, timeout, trace)
        self._wake.set()
        self._used.set()
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
        """Writes and reads until the stream ends; then fails the open calls."""
        writer = asyncio.create_task(self._write(), name="stream calls")
        writer.add_done_callback(self._stop_reading)
        try:
            await self._read()
        finally:
            self.retire()
            self._rpc.cancel()
            await cancel_and_wait(writer)
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
                # Yields once, so that answered callers run before the next read.
                await asyncio.sleep(0)
        except grpc.aio.AioRpcError as error:
            log.info("call_stream_ended", stream=self._protocol.stream, code=error.code().name)

    def _stop_reading(self, writer: asyncio.Task[None]) -> None:
        if not writer.cancelled() and (error := writer.exception()) is not None:
            log.info("call_stream_broke", stream=self._protocol.stream, error=type(error).__name__)
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
            # Normally the writer ends it, unless the peer no longer reads or does not close its side.
            self._wake.set()
            self._loop.call_later(self._leave_seconds, self._rpc.cancel)

    def _batch(self) -> bytes:
        unsent = self._unsent
        pieces, size = [], 0
        if self._cancelled:
            pieces.append(self._protocol.requests(cancelled_ids=self._cancelled).SerializeToString())
            self._cancelled.clear()
        while unsent and size < MAX_BATCH_BYTES:
            piece = unsent.pop(next(iter(unsent)))
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def _expire(self, answer: asyncio.Future[Any], begin: float) -> None:
        if answer.done():
            return
        answer.set_exception(DeadlineExceeded(f"{self._peer} did not answer before the deadline"))
        if self._last_answer < begin:
            self.retire()  # nothing received since: the peer may hang

    def _fail_open(self) -> None:
        for call_id, answer in self._open.items():
            if not answer.done():
                answer.set_exception(NotSent() if call_id in self._unsent else Unavailable(self._peer))

    def _encoded(
        self, call_id: int, method: Method[Any], data: bytes, timeout: float, trace: Mapping[str, str] | None
    ) -> bytes:
        protocol = self._protocol
        timeout_ms = varint(max(int(timeout * 1000), 1))
        context = protocol.call(trace_context=trace).SerializeToString() if trace else b""
        fields = b"".join(
            (
                protocol.call_id_tag,
                varint(call_id),
                protocol.timeout_tag,
                timeout_ms,
                context,
                method.call_tag,
                varint(len(data)),
                data,
            )
        )
        return b"".join((protocol.calls_tag, varint(len(fields)), fields))
