"""A small service, run as a process of its own by the lifecycle tests; its first argument says how it behaves."""

import asyncio
import atexit
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping

from servicekit.errors import Unavailable
from servicekit.lifecycle import Background, run
from servicekit.server import serving
from servicekit.settings import ServiceSettings


async def die_later() -> None:
    await asyncio.sleep(0.1)
    raise KeyError("the feed is gone")


async def live() -> None:
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def build(settings: ServiceSettings) -> AsyncIterator[Mapping[str, object]]:
    behaviour = sys.argv[1]
    if behaviour == "peer away":
        raise Unavailable("postgres")
    if behaviour == "bug":
        raise KeyError("a bug")
    if behaviour == "hangs at start":
        print("hanging", file=sys.stderr, flush=True)
        await asyncio.Event().wait()
    if behaviour == "is signalled while exiting":
        atexit.register(os.kill, os.getpid(), signal.SIGTERM)
    async with contextlib.AsyncExitStack() as stack:
        background = await stack.enter_async_context(Background())
        background.start("watch", die_later() if behaviour == "task dies" else live())
        server = await stack.enter_async_context(serving(settings, add=[], service_names=["test.Echo"]))
        try:
            yield {"grpc_port": server.port}
        finally:
            if behaviour == "hangs at the end":
                await asyncio.sleep(3600)
            print("left", flush=True)


if __name__ == "__main__":
    run(build, ServiceSettings)
