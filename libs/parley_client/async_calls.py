"""`calls` for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import grpc

from parley_client.calls import Rules
from parley_client.errors import Unavailable, error_of


class Channel(grpc.aio.Channel):
    """A channel around another one."""

    def __init__(self, inner: grpc.aio.Channel, rules: Rules) -> None:
        self._inner = inner
        self._rules = rules

    def unary_unary(self, method: str, *serializers: Any, **options: Any) -> Any:
        """As gRPC's."""
        return _Method(self._inner.unary_unary(method, *serializers, **options), method, self._rules)

    def unary_stream(self, method: str, *serializers: Any, **options: Any) -> Any:
        """As gRPC's."""
        return _Method(self._inner.unary_stream(method, *serializers, **options), method, self._rules)

    def stream_unary(self, method: str, *serializers: Any, **options: Any) -> Any:
        """As gRPC's."""
        return _Method(self._inner.stream_unary(method, *serializers, **options), method, self._rules)

    def stream_stream(self, method: str, *serializers: Any, **options: Any) -> Any:
        """As gRPC's."""
        return _Method(self._inner.stream_stream(method, *serializers, **options), method, self._rules)

    async def close(self, grace: float | None = None) -> None:
        """Cancels open calls after `grace` seconds."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As gRPC's."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As gRPC's."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """As gRPC's."""
        await self._inner.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()


class _Method:
    def __init__(self, inner: Any, path: str, rules: Rules) -> None:
        self._inner = inner
        self._path = path
        self._rules = rules

    def __call__(self, request: Any, *, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        request, chosen = self._rules.applied(self._path, request, timeout, metadata)
        return AsyncCall(self._inner(request, **chosen, **options))


class AsyncCall:
    """A call: `await` its response, or iterate over its responses; `async with` cancels an unfinished call, since
    grpc.aio never cancels an abandoned stream.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._arriving: AsyncIterator[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        with _translated():
            return await self._inner

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._arriving is None:
            self._arriving = aiter(self._inner)
        with _translated():
            return await anext(self._arriving)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._inner.cancel()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as failed:
        raise error_of(failed) from failed
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # A closed channel cancels its calls in tasks that were not cancelled.
        raise Unavailable("the channel was closed", code=grpc.StatusCode.CANCELLED) from None
