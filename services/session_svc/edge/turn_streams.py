"""`TurnService.Turns`: the calls of many turns over one stream, answered in batches of what is ready."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

import grpc

from parley.session.v1 import turn_service_pb2 as pb
from servicekit.errors import Draining, InvalidArgument, ServiceError, Unavailable, UnknownMethod
from servicekit.interceptors import Behavior
from servicekit.rpc_status import DETAILS_KEY, to_status
from servicekit.wire import bytes_tag, number_tag, varint

MAX_CALLS = 1024
"""Calls of one stream at a time; one more is refused, as a server refuses RPCs beyond its own limit."""

MAX_BATCH_BYTES = 256 * 1024
"""A message to the caller is sent when it has reached this: what is small does not wait for all that is large."""

MAX_UNSENT_BYTES = 4 * 1024 * 1024
"""Of a caller that does not take its answers, no more calls are read until it has taken all but so many bytes."""

OVERLOAD_PAUSE = 0.5

Context = grpc.aio.ServicerContext[Any, Any]

_RESULT = bytes_tag(pb.TurnsResponse.RESULTS_FIELD_NUMBER)
_ID = number_tag(pb.TurnResult.ID_FIELD_NUMBER)
_FAILURE = bytes_tag(pb.TurnResult.FAILURE_FIELD_NUMBER)
_HELLO = pb.TurnsResponse().SerializeToString()
_DRAINING = pb.TurnsResponse(draining=True).SerializeToString()


class TurnStreams:
    """Serves `Turns` by the behaviors of the unary methods.

    `methods` holds them by the name of their request in `TurnCall`, each with the observation and the error mapping
    that a unary call has. They return a message, or one serialized.
    """

    def __init__(self, methods: Mapping[str, Behavior]) -> None:
        self._methods = {name: (behavior, _outcome_tag(name)) for name, behavior in methods.items()}
        self._streams: set[_Stream] = set()
        self._serving = True

    def set_serving(self, serving: bool) -> None:
        """Tells whether calls are taken. If not, callers are asked to leave, and new streams are refused.

        A stream that is left ends when its last call is answered, and its calls are served as before until then.
        """
        was, self._serving = self._serving, serving
        if was and not serving:
            for stream in self._streams:
                stream.drain()

    async def turns(self, requests: AsyncIterator[pb.TurnsRequest], context: Context) -> None:
        """Serves one stream until the caller has closed its side and is answered, or is gone. Raises `Draining`."""
        if not self._serving:
            raise Draining
        stream = _Stream(self._methods, context)
        self._streams.add(stream)
        try:
            await stream.serve(requests)
        finally:
            self._streams.discard(stream)


class _Stream:
    """One stream: a task for each call, and one that writes the answers that have come together meanwhile."""

    def __init__(self, methods: Mapping[str, tuple[Behavior, bytes]], context: Context) -> None:
        self._methods = methods
        self._context = context
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._cancelled: set[asyncio.Task[None]] = set()
        self._answers: list[bytes] = []
        self._unsent_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._ready = asyncio.Event()
        self._ended = False

    async def serve(self, requests: AsyncIterator[pb.TurnsRequest]) -> None:
        await self._context.write(_HELLO)
        writer = asyncio.create_task(self._write(), name="turn answers")
        try:
            async for message in requests:
                self._take(message)
                # Once round the loop: to ask for the next message takes as long as a call needs to be on its way.
                await asyncio.sleep(0)
                await self._room.wait()
            await asyncio.gather(*self._calls.values(), return_exceptions=True)
            self._ended = True
            self._ready.set()
            await writer
        finally:
            left = [writer, *self._calls.values(), *self._cancelled]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def drain(self) -> None:
        """Asks the caller to send no more calls."""
        self._put(_DRAINING)

    def _take(self, message: pb.TurnsRequest) -> None:
        for call in message.calls:
            self._begin(call)
        for call_id in message.cancelled_ids:
            task = self._calls.pop(call_id, None)
            if task is not None:
                task.cancel()
                self._cancelled.add(task)
                task.add_done_callback(self._cancelled.discard)

    def _begin(self, call: pb.TurnCall) -> None:
        call_id, name = call.id, call.WhichOneof("request")
        if call_id in self._calls:
            raise InvalidArgument(message=f"call {call_id} is there already")
        if name is None:
            self._refuse(call_id, UnknownMethod())
        elif len(self._calls) + len(self._cancelled) >= MAX_CALLS:
            self._refuse(call_id, Unavailable("session_svc", retry_after=OVERLOAD_PAUSE))
        else:
            self._calls[call_id] = asyncio.create_task(self._run(call_id, call, name))

    async def _run(self, call_id: int, call: pb.TurnCall, name: str) -> None:
        behavior, tag = self._methods[name]
        context = _CallContext(call)
        try:
            response = await behavior(getattr(call, name), context)
            self._answer(call_id, tag, response if type(response) is bytes else response.SerializeToString())
        except grpc.aio.AbortError:
            self._answer(call_id, _FAILURE, context.status)
        finally:
            self._calls.pop(call_id, None)

    def _refuse(self, call_id: int, error: ServiceError) -> None:
        self._answer(call_id, _FAILURE, to_status(error).SerializeToString())

    def _answer(self, call_id: int, tag: bytes, data: bytes) -> None:
        result = b"".join((_ID, varint(call_id), tag, varint(len(data)), data))
        self._put(b"".join((_RESULT, varint(len(result)), result)))

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
    """What a method, and what stands around it, asks of the context of a unary call."""

    __slots__ = ("_call", "_code", "_deadline", "status")

    def __init__(self, call: pb.TurnCall) -> None:
        timeout_ms = call.timeout_ms
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


def _outcome_tag(name: str) -> bytes:
    return bytes_tag(pb.TurnResult.DESCRIPTOR.fields_by_name[name].number)
