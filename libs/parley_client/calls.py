"""A channel whose calls have deadlines and credentials and raise `ParleyError`; any generated stub takes it."""

import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from parley_client.errors import error_of
from parley_client.promises import promise_of

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Rules:
    """Defaults for every call of a channel."""

    api_key: str | Callable[[], str] = ""
    keyed: bool = True
    """Whether requests get a request id where that makes them repeatable."""

    def applied(self, path: str, request: Any, timeout: float | None, metadata: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the request, the deadline and the metadata. Raises ValueError for an unbounded deadline."""
        promise = promise_of(path)
        if self.keyed and promise.request_id:
            request = promise.keyed(request, str(uuid.uuid4()))
        if timeout is None:
            timeout = promise.seconds
        elif not 0 < timeout < math.inf:
            raise ValueError(f"a deadline is a number of seconds over 0, not {timeout!r}")
        key = self.api_key if isinstance(self.api_key, str) else self.api_key()
        credentials = [("authorization", f"Bearer {key}")] if key else []
        return request, {"timeout": timeout, "metadata": [*(metadata or ()), *credentials]}


class Channel(grpc.Channel):
    """A channel around another one."""

    def __init__(self, inner: grpc.Channel, rules: Rules) -> None:
        self._inner = inner
        self._rules = rules
        self._closed = False

    def unary_unary(self, method: str, *serializers: Any, **options: Any) -> Any:
        """As gRPC's."""
        return _Unary(self._usable().unary_unary(method, *serializers, **options), method, self._rules)

    def unary_stream(self, method: str, *serializers: Any, **options: Any) -> Any:
        """As gRPC's."""
        return _Streaming(self._usable().unary_stream(method, *serializers, **options), method, self._rules)

    def stream_unary(self, method: str, *serializers: Any, **options: Any) -> Any:
        """As gRPC's."""
        return _Unary(self._usable().stream_unary(method, *serializers, **options), method, self._rules)

    def stream_stream(self, method: str, *serializers: Any, **options: Any) -> Any:
        """As gRPC's."""
        return _Streaming(self._usable().stream_stream(method, *serializers, **options), method, self._rules)

    def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
        """As gRPC's."""
        self._inner.subscribe(callback, try_to_connect=bool(try_to_connect))

    def unsubscribe(self, callback: Any) -> None:
        """As gRPC's."""
        self._inner.unsubscribe(callback)

    def close(self) -> None:
        """Cancels open calls."""
        self._closed = True
        self._inner.close()

    def _usable(self) -> grpc.Channel:
        # Making a stub on a closed channel crashes the process in grpcio 1.85.
        if self._closed:
            raise ValueError("the channel is closed")
        return self._inner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _Unary:
    """A method with one response."""

    def __init__(self, inner: Any, path: str, rules: Rules) -> None:
        self._inner = inner
        self._path = path
        self._rules = rules

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        return self.with_call(request, timeout, metadata, **options)[0]

    def with_call(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """As gRPC's: the response and the call, which has its metadata."""
        request, chosen = self._rules.applied(self._path, request, timeout, metadata)
        try:
            return self._inner.with_call(request, **chosen, **options)
        except grpc.RpcError as failed:
            raise error_of(failed) from failed

    def future(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """As gRPC's; `result` raises ParleyError."""
        request, chosen = self._rules.applied(self._path, request, timeout, metadata)
        return _Future(self._inner.future(request, **chosen, **options))


class _Streaming:
    """A method with a stream of responses."""

    def __init__(self, inner: Any, path: str, rules: Rules) -> None:
        self._inner = inner
        self._path = path
        self._rules = rules

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        request, chosen = self._rules.applied(self._path, request, timeout, metadata)
        return Stream(self._inner(request, **chosen, **options))


class _Future:
    """A running call."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def result(self, timeout: float | None = None) -> Any:
        """Waits for the response for at most `timeout` seconds."""
        try:
            return self._inner.result(timeout)
        except grpc.RpcError as failed:
            raise error_of(failed) from failed


class Stream:
    """A stream of responses: iterate over it, or `cancel` it; `with` cancels an unfinished stream."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._inner)
        except grpc.RpcError as failed:
            raise error_of(failed) from failed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.cancel()
