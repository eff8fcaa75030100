"""A channel to another Parley service whose calls carry the service's credential and the caller's identity."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc

from access.caller import SERVICE, current
from access.interceptor import CALLER_KEY, REQUEST_ID_KEY, SCOPES_KEY, SOURCE_KEY, USER_KEY
from access.rules import MethodRule

Metadata = tuple[tuple[str, str], ...]


def as_service(
    channel: grpc.aio.Channel, credential: str | None, rules: Mapping[str, MethodRule]
) -> "_IdentifiedChannel":
    """Returns the channel as one whose calls carry `credential`, where there is one.

    Calls of methods that are not for services only (`rules`) also name the caller, `current()` of the calling task, if
    it serves a request. This is not an interceptor, because those of grpc.aio cost more than the call.
    """
    own: Metadata = (("authorization", f"Bearer {credential}"),) if credential else ()
    return _IdentifiedChannel(channel, own, rules)


def _on_behalf() -> Metadata:
    caller = current()
    if not caller.source:
        return ()
    return (
        (CALLER_KEY, caller.id),
        (USER_KEY, caller.user_id),
        (REQUEST_ID_KEY, caller.request_id),
        (SOURCE_KEY, caller.source),
        (SCOPES_KEY, " ".join(sorted(caller.scopes))),
    )


class _IdentifiedChannel(grpc.aio.Channel):
    """The channel that `as_service` returns."""

    def __init__(self, channel: grpc.aio.Channel, own: Metadata, rules: Mapping[str, MethodRule]) -> None:
        self._channel = channel
        self._own = own
        self._rules = rules

    def _identified(self, kind: str, method: str, *rest: Any, **options: Any) -> Any:
        call: Callable[..., Any] = getattr(self._channel, kind)(method, *rest, **options)
        rule, own = self._rules.get(method), self._own
        if rule is not None and rule.scope != SERVICE:

            def on_behalf(request: Any, *, metadata: Any = None, **settings: Any) -> Any:
                return call(request, metadata=(*own, *_on_behalf(), *(metadata or ())), **settings)

            return on_behalf
        if not own:
            return call

        def as_itself(request: Any = None, *, metadata: Any = None, **settings: Any) -> Any:
            return call(request, metadata=(*own, *metadata) if metadata else own, **settings)

        return as_itself

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        return self._identified("unary_unary", *args, **options)

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        return self._identified("unary_stream", *args, **options)

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        return self._identified("stream_unary", *args, **options)

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        return self._identified("stream_stream", *args, **options)

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._channel.__aexit__(kind, error, trace)
