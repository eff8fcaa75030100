"""A proxy before PostgreSQL that falls silent."""

import asyncio
from typing import Any

from sqlalchemy import make_url


class Proxy:
    """Stands before PostgreSQL and can fall silent: connections stay, new ones are taken, nothing is passed on."""

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._left: int | None = None

    @property
    def connections(self) -> int:
        return len(self._tasks)

    def freeze_after(self, messages: int) -> None:
        """Falls silent once that many more pieces have been passed on, in both directions together."""
        self._left = messages

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return self._target.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)

    def freeze(self) -> None:
        self._open.clear()

    def thaw(self) -> None:
        self._left = None
        self._open.set()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection(self._target.host, self._target.port)
        try:
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            far_writer.close()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    self.freeze()
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        writer.close()
