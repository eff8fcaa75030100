"""Bounds on replies that callers do not read: gRPC's flow control only makes their senders wait."""

import asyncio
from collections import Counter
from typing import Any

import grpc

from servicekit.errors import Code, ServiceError
from servicekit.interceptors import Behavior, Context, HandlerInterceptor, as_coroutine
from servicekit.message_width import SMALL_BYTES
from servicekit.peers import address_of
from servicekit.sites import site_of
from servicekit.unread import MAX_UNREAD_BYTES, STREAM_BYTES, Stalled, making_room

WRITE_SECONDS = 60.0
"""How long a message of a stream may wait for its reader."""
_CHECK_SECONDS = 1.0
_RETRY_SECONDS = 5.0


class UnreadReply(ServiceError):
    """The caller does not read its reply, or more is unread than all callers together, or its address, may leave so."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "TOO_MANY_CALLS"

    def __init__(self, scope: str, max_bytes: int) -> None:
        super().__init__(
            f"replies are not read: at most {max_bytes} bytes may be unread ({scope})",
            metadata={"scope": scope, "limit": str(max_bytes)},
            retry_after=_RETRY_SECONDS,
            quota_subject=scope,
        )


class UnreadReplies(HandlerInterceptor):
    """Ends streams whose messages are not read: after `WRITE_SECONDS`, or sooner while more than `max_bytes` are unread
    (`making_room`). Refuses large unary replies that would make it more, or three quarters of it for one address: once
    it is handed over, nothing of ours can take such a reply back.
    """

    def __init__(self, max_bytes: int = MAX_UNREAD_BYTES) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._replies: Counter[str] = Counter()
        """The bytes of large unary replies by their callers' addresses."""
        self._writes: dict[_Writing, float] = {}
        """Since when messages of streams wait."""
        self._timer: asyncio.TimerHandle | None = None

    def wrap(self, method: str, behavior: Behavior) -> Behavior:
        """Returns the behavior of a streaming method with its writes observed."""

        async def observed(request: Any, context: Context[Any, Any]) -> Any:
            writing = _Writing(context, self)
            try:
                return await behavior(request, writing)
            except UnreadReply:
                # gRPC takes no status before the message that waits. Nothing but that message is held meanwhile.
                await writing.settled()
                raise

        return observed

    def _wrap_handler(self, method: str, handler: Any) -> Any:
        if handler.response_streaming:
            return super()._wrap_handler(method, handler)
        kind = "stream_unary" if handler.request_streaming else "unary_unary"
        behavior, serialize = as_coroutine(getattr(handler, kind), False), handler.response_serializer

        async def serialized(request: Any, context: Context[Any, Any]) -> Any:
            reply = await behavior(request, context)
            data = reply if serialize is None else serialize(reply)
            del reply
            if (size := len(data)) > SMALL_BYTES and (refusal := self._count(size, context)) is not None:
                del data  # whoever keeps the error has its traceback, and all of this frame
                raise refusal
            return data

        return getattr(grpc, f"{kind}_rpc_method_handler")(serialized, handler.request_deserializer, None)

    def _count(self, size: int, context: Context[Any, Any]) -> UnreadReply | None:
        """Counts a reply until it is written, or its caller is gone; returns why it is refused, if it is."""
        replies, source = self._replies, site_of(address_of(context.peer()))
        for unread, scope, limit in (
            (replies.total(), "gateway", self._max_bytes),
            (replies[source], "address", self._max_bytes * 3 // 4),
        ):
            if unread and unread + size > limit:
                return UnreadReply(scope, limit)
        replies[source] += size

        def release(_: Any) -> None:
            replies[source] -= size
            if not replies[source]:
                del replies[source]

        done: Any = release
        context.add_done_callback(done)
        return None

    def begin(self, write: "_Writing") -> None:
        """Counts a message that waits for its reader, until `end`."""
        loop = asyncio.get_running_loop()
        self._writes[write] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(_CHECK_SECONDS, self._check)

    def end(self, write: "_Writing") -> None:
        """Counts one less."""
        self._writes.pop(write, None)

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = [write for write, since in self._writes.items() if now - since > WRITE_SECONDS]
        stalled = [(Stalled(since, since, STREAM_BYTES), write) for write, since in self._writes.items()]
        for write in {*late, *making_room(stalled, self._max_bytes, now)}:
            write.give_up(UnreadReply("stream", self._max_bytes))
        self._timer = loop.call_later(_CHECK_SECONDS, self._check) if self._writes else None


class _Writing:
    """A call's context whose writes are observed; everything else is the context's own."""

    __slots__ = ("_context", "_error", "_message", "_replies", "_task")

    def __init__(self, context: Context[Any, Any], replies: UnreadReplies) -> None:
        self._context = context
        self._replies = replies
        self._task: asyncio.Task[Any] | None = None
        self._message: asyncio.Future[None] | None = None
        self._error: UnreadReply | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        """Writes a message of the stream. Raises `UnreadReply` if it was given up."""
        self._task = asyncio.current_task()
        self._message = asyncio.ensure_future(self._context.write(message))
        self._replies.begin(self)
        try:
            await asyncio.shield(self._message)
        except asyncio.CancelledError:
            if self._error is None or self._task is None or self._task.uncancel():
                self._message.cancel()
                raise
            raise self._error from None
        finally:
            self._replies.end(self)

    async def settled(self) -> None:
        """Returns once the message that was given up is written. Raises if its caller is gone."""
        if self._message is not None:
            await self._message

    def give_up(self, error: UnreadReply) -> None:
        """Ends the stream; what it writes now stays under way."""
        self._replies.end(self)
        if self._task is not None:
            self._error = error
            self._task.cancel()
