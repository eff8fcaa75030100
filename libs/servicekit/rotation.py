"""A channel that moves to new connections when this process' certificates change."""

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from typing import Any, Self

import grpc
import structlog

from servicekit.supervision import cancel_and_wait, supervise
from servicekit.tls import Certificates, Material

OLD_CALLS_SECONDS = 3600.0
"""How long calls that run over the old connection may go on after a change, as long as the longest turn; then they are
cancelled, which only watches live to see."""

_FIRST_LOOK = 0.02
_LONGEST_PAUSE = 1.0
_READY = grpc.ChannelConnectivity.READY

log = structlog.get_logger("servicekit.tls")

Open = Callable[[Material], grpc.aio.Channel]


class RotatingChannel(grpc.aio.Channel):
    """One channel after another, each with the newest certificates.

    After a change, a new channel is connected first and takes the calls once it is ready, or once the old one is not
    ready either. Calls under way end on the old one, which is closed when they have, at the latest after
    `OLD_CALLS_SECONDS`. Certificates are followed from the first use on, until `close`.
    """

    def __init__(self, source: Certificates, open_with: Open) -> None:
        self._source = source
        self._open_with = open_with
        self._material = source.material
        self._channel = open_with(self._material)
        self._methods: weakref.WeakSet[_Method] = weakref.WeakSet()
        self._closing: set[asyncio.Task[None]] = set()
        self._following = asyncio.create_task(
            supervise("channel_certificates", self._follow), name="certificates of a channel"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes it; calls under way get `grace` seconds."""
        await cancel_and_wait(self._following, *self._closing)
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Returns the state of the channel that takes the calls now."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits until the state is another than `last_observed_state`."""
        while self.get_state() is last_observed_state:
            channel = self._channel
            with contextlib.suppress(grpc.aio.UsageError):
                await channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits until it is connected."""
        await self._channel.channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a callable for a method, as any channel does."""
        return self._method("unary_unary", args, kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a callable for a method, as any channel does."""
        return self._method("unary_stream", args, kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a callable for a method, as any channel does."""
        return self._method("stream_unary", args, kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a callable for a method, as any channel does."""
        return self._method("stream_stream", args, kwargs)

    def _method(self, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "_Method":
        method = _Method(lambda channel: getattr(channel, kind)(*args, **kwargs), self._channel)
        self._methods.add(method)
        return method

    async def _follow(self) -> None:
        while True:
            material = await self._source.after(self._material)
            channel = self._open_with(material)
            try:
                took = await self._until_better(channel, material)
            except BaseException:
                await channel.close()
                raise
            self._material = material
            if took:
                self._take(channel)
            else:
                await channel.close()

    async def _until_better(self, channel: grpc.aio.Channel, material: Material) -> bool:
        """Waits until `channel` is worth taking; returns false when newer certificates came before."""
        pause = _FIRST_LOOK
        while self._source.material is material:
            state = channel.get_state(try_to_connect=True)
            if state is _READY or self._channel.get_state() is not _READY:
                return True
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return False

    def _take(self, channel: grpc.aio.Channel) -> None:
        old, self._channel = self._channel, channel
        for method in self._methods:
            method.move_to(channel)
        closing = asyncio.create_task(old.close(OLD_CALLS_SECONDS), name="an old channel")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        log.info("channel_certificates_replaced", mark=self._material.mark())


class _Method:
    """A multi-callable that moves from channel to channel."""

    def __init__(self, make: Callable[[grpc.aio.Channel], Any], channel: grpc.aio.Channel) -> None:
        self._make = make
        self._callable = make(channel)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._callable(*args, **kwargs)

    def move_to(self, channel: grpc.aio.Channel) -> None:
        self._callable = self._make(channel)
