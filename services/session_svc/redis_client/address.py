"""Where a Redis server is, and how a connection to it begins."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self
from urllib.parse import unquote, urlsplit

from hiredis import pack_command

from servicekit.errors import StartupError
from session_svc.redis_client.link import Command

DEFAULT_PORT = 6379


class Place(Protocol):
    """Knows which server to connect to; that may be another one each time."""

    async def find(self) -> "RedisAddress":
        """Returns the server to connect to now. Raises `OSError`, `TimeoutError`, `RedisUnavailable`, `RedisFault`."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis server and the logical database in it; with `primary_only`, one that must not be a replica."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    path: str = ""
    tls: bool = False
    username: str = ""
    password: str = ""
    database: int = 0
    primary_only: bool = False

    @classmethod
    def parse(cls, url: str) -> Self:
        """Reads `redis://[user:password@]host[:port][/database]`, `rediss://` (TLS) or `unix:///path[?db=n]`.

        Raises `StartupError` for anything else; the message never shows the password.
        """
        parts = urlsplit(url)
        if "," in parts.netloc.rpartition("@")[2]:
            raise StartupError("the Redis URL names several hosts: say redis+sentinel://… or redis+cluster://…")
        try:
            port = parts.port or DEFAULT_PORT
        except ValueError as error:
            raise StartupError("the Redis URL has a port that is no number") from error
        username, password = unquote(parts.username or ""), unquote(parts.password or "")
        if parts.scheme == "unix":
            number = parts.query.removeprefix("db=") or "0"
            host, path = "", unquote(parts.path)
        elif parts.scheme in ("redis", "rediss") and parts.hostname:
            number = parts.path.strip("/") or "0"
            host, path = parts.hostname, ""
        else:
            raise StartupError(
                "the Redis URL must look like redis://host:6379/0, rediss://…, unix:///path,"
                " redis+sentinel://host,host/primary-name or redis+cluster://host,host"
            )
        return cls(
            host=host,
            port=port,
            path=path,
            tls=parts.scheme == "rediss",
            username=username,
            password=password,
            database=database_number(number),
        )

    async def find(self) -> Self:
        """Returns itself: it is the place of one server."""
        return self

    def greeting(self, name: str) -> Sequence[Command]:
        """Returns the commands that a connection begins with; the server shows it under `name`."""
        commands: list[Command] = []
        if self.password:
            commands.append(("AUTH", self.username or "default", self.password))
        if self.database:
            commands.append(("SELECT", self.database))
        commands.append(("CLIENT", "SETNAME", name))
        return commands

    def tls_context(self) -> ssl.SSLContext | None:
        """Returns what a connection is encrypted with; None where it isn't."""
        return ssl.create_default_context() if self.tls else None


def database_number(text: str) -> int:
    """Returns the logical database that a URL names. Raises `StartupError`."""
    if not text.isdecimal():
        raise StartupError(f"the Redis URL names {text!r} as its database: must be a number")
    return int(text)


def pack(commands: Sequence[Command]) -> bytes:
    """Returns commands as they go over the wire."""
    write: Any = pack_command  # its stub takes tuples of one element only
    return b"".join([write(command) for command in commands])
