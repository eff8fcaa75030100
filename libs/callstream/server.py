"""The server: concurrent calls over one stream, answered in batches as they become ready."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

import grpc
import structlog

from callstream.protocol import Method, Protocol
from servicekit.errors import (
    Draining,
    Internal,
    InvalidArgument,
    MessageTooLarge,
    ServiceError,
    Unavailable,
    UnknownMethod,
)
from servicekit.interceptors import Behavior
from servicekit.rpc_status import DETAILS_KEY, to_status
from servicekit.supervision import cancel_and_wait
from servicekit.wire import varint

MAX_CALLS = 1024
"""Concurrent calls of one stream; further ones are refused, as a server refuses RPCs beyond its limit."""

MAX_BATCH_BYTES = 256 * 1024
"""A message to the caller is sent when it reaches this size, so small results do not wait for many large ones."""

MAX_ANSWER_BYTES = 7 * 1024 * 1024
"""A larger response fails alone, instead of breaking the stream with all of its calls."""

MAX_UNSENT_BYTES = 4 * 1024 * 1024
"""While more bytes than this wait for a caller, no more of its calls are read."""

OVERLOAD_PAUSE_SECONDS = 0.5

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class CallStreams:
    """Serves the stream of `protocol` by the behaviors of its unary methods.

    Each behavior includes the observation and error mapping of a unary call (`servicekit.server.as_called`); it returns
    a message, or a serialized one. `name` is the service's name in the error for calls beyond `MAX_CALLS`.
    """

    def __init__(self, protocol: Protocol, behaviors: Mapping[Method[Any], Behavior], *, name: str) -> None:
        self._protocol = protocol
        self._name = name
        self._methods = {method.field: (behavior, method.result_tag) for method, behavior in behaviors.items()}
        self._streams: set[_Stream] = set()
        self._serving = True

    def set_serving(self, serving: bool) -> None:
        """Sets whether calls are accepted. If not, callers are asked to leave and new streams are refused. A stream
        ends when its last call is answered, and its calls are served until then.
        """
        was, self._serving = self._serving, serving
        if was and not serving:
            for stream in self._streams:
                stream.drain()

    async def serve(self, requests: AsyncIterator[Any], context: Context) -> None:
        """Serves one stream until the caller has closed its side and all calls are answered, or it disconnects. Raises
        `Draining`.

        `requests` yields messages; writes to `context` are already serialized.
        """
        if not self._serving:
            raise Draining
        stream = _Stream(self._protocol, self._methods, self._name, context)
        self._streams.add(stream)
        try:
            await stream.serve(requests)
        finally:
            self._streams.discard(stream)


class _Stream:
    """One stream: a task per call, and one that writes batches of results."""

    def __init__(
        self, protocol: Protocol, methods: Mapping[str, tuple[Behavior, bytes]], name: str, context: Context
    ) -> None:
        self._protocol = protocol
        self._methods = methods
        self._name = name
        self._context = context
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._cancelled: set[asyncio.Task[None]] = set()
        self._answers: list[bytes] = []
        self._unsent_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._ready = asyncio.Event()
        self._ended = False

    async def serve(self, requests: AsyncIterator[Any]) -> None:
        await self._context.write(b"")
        writer = asyncio.create_task(self._write(), name="stream answers")
        try:
            async for message in requests:
                self._take(message)
                # Yields once, so that the calls start before the next read, which takes as long as starting them.
                await asyncio.sleep(0)
                await self._room.wait()
            await asyncio.gather(*self._calls.values(), return_exceptions=True)
            self._ended = True
            self._ready.set()
            await writer
        finally:
            await cancel_and_wait(writer, *self._calls.values(), *self._cancelled)

    def drain(self) -> None:
        """Asks the caller to stop sending calls."""
        self._put(self._protocol.responses(draining=True).SerializeToString())

    def _take(self, message: Any) -> None:
        for call in message.calls:
            self._begin(call)
        for call_id in message.cancelled_ids:
            task = self._calls.pop(call_id, None)
            if task is not None:
                task.cancel()
                self._cancelled.add(task)
                task.add_done_callback(self._cancelled.discard)

    def _begin(self, call: Any) -> None:
        call_id, name = call.id, call.WhichOneof("request")
        if call_id in self._calls:
            raise InvalidArgument(message=f"duplicate call id {call_id}")
        if name is None:
            self._refuse(call_id, UnknownMethod())
        elif len(self._calls) + len(self._cancelled) >= MAX_CALLS:
            self._refuse(call_id, Unavailable(self._name, retry_after=OVERLOAD_PAUSE_SECONDS))
        else:
            self._calls[call_id] = asyncio.create_task(self._run(call_id, call, name))

    async def _run(self, call_id: int, call: Any, name: str) -> None:
        behavior, tag = self._methods[name]
        context = _CallContext(call)
        try:
            response = await behavior(getattr(call, name), context)
            data = response if type(response) is bytes else response.SerializeToString()
            if len(data) > MAX_ANSWER_BYTES:
                raise MessageTooLarge(f"the answer has {len(data)} bytes: at most {MAX_ANSWER_BYTES}")
            self._answer(call_id, tag, data)
        except grpc.aio.AbortError:
            self._answer(call_id, self._protocol.failure_tag, context.status)
        except MessageTooLarge as error:
            self._refuse(call_id, error)
        except Exception as error:  # such as a response that can't be serialized: the caller must not wait for ever
            log.error("call_failed", method=name, exc_info=error)
            self._refuse(call_id, Internal())
        finally:
            self._calls.pop(call_id, None)

    def _refuse(self, call_id: int, error: ServiceError) -> None:
        self._answer(call_id, self._protocol.failure_tag, to_status(error).SerializeToString())

    def _answer(self, call_id: int, tag: bytes, data: bytes) -> None:
        protocol = self._protocol
        result = b"".join((protocol.result_id_tag, varint(call_id), tag, varint(len(data)), data))
        self._put(b"".join((protocol.results_tag, varint(len(result)), result)))

    def _put(self, piece: bytes) -> None:
        self._answers.append(piece)
        self._unsent_bytes += len(piece)
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            self._room.clear()
        self._ready.set()

    async def _write(self) -> None:
        while not self._ended or self._answers:
            await self._ready.wait()
            self._ready.clear()
            while self._answers:
                batch = self._batch()
                await self._context.write(batch)
                self._unsent_bytes -= len(batch)
                if self._unsent_bytes <= MAX_UNSENT_BYTES:
                    self._room.set()

    def _batch(self) -> bytes:
        answers, size = self._answers, 0
        for count, answer in enumerate(answers, 1):
            size += len(answer)
            if size >= MAX_BATCH_BYTES:
                batch = b"".join(answers[:count])
                del answers[:count]
                return batch
        batch = b"".join(answers)
        answers.clear()
        return batch


class _CallContext:
    """The part of a unary call's context that methods and interceptors use."""

    __slots__ = ("_call", "_code", "_deadline", "status")

    def __init__(self, call: Any) -> None:
        timeout_ms: int = call.timeout_ms
        self._call = call
        self._deadline = asyncio.get_running_loop().time() + timeout_ms / 1000 if timeout_ms else None
        self._code: grpc.StatusCode | None = None
        self.status = b""
        """The serialized status that the call was aborted with."""

    def time_remaining(self) -> float | None:
        if self._deadline is None:
            return None
        return max(self._deadline - asyncio.get_running_loop().time(), 0.0)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._call.trace_context.items())

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def done(self) -> bool:
        return False

    async def abort(self, code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, bytes], ...]) -> NoReturn:
        self._code = code
        self.status = dict(trailing)[DETAILS_KEY]
        raise grpc.aio.AbortError(details)
