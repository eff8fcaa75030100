"""Where Redis is, and how a connection to it begins."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from hiredis import pack_command

from servicekit.errors import StartupError

Argument = bytes | str | int
Command = tuple[Argument, ...]

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis server and the logical database in it."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    path: str = ""
    tls: bool = False
    username: str = ""
    password: str = ""
    database: int = 0

    @classmethod
    def parse(cls, url: str) -> Self:
        """Reads `redis://[user:password@]host[:port][/database]`, `rediss://` (TLS) or `unix:///path[?db=n]`.

        Raises `StartupError` for anything else; the message never shows the password.
        """
        parts = urlsplit(url)
        try:
            port = parts.port or DEFAULT_PORT
        except ValueError as error:
            raise StartupError("the Redis URL has a port that is no number") from error
        username, password = unquote(parts.username or ""), unquote(parts.password or "")
        if parts.scheme == "unix":
            number = parts.query.removeprefix("db=") or "0"
            where: dict[str, str] = {"path": unquote(parts.path)}
        elif parts.scheme in ("redis", "rediss") and parts.hostname:
            number = parts.path.strip("/") or "0"
            where = {"host": parts.hostname}
        else:
            raise StartupError("the Redis URL must look like redis://host:6379/0, rediss://… or unix:///path")
        if not number.isdecimal():
            raise StartupError(f"the Redis URL names {number!r} as its database: must be a number")
        return cls(
            **where,
            port=port,
            tls=parts.scheme == "rediss",
            username=username,
            password=password,
            database=int(number),
        )

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


def pack(commands: Sequence[Command]) -> bytes:
    """Returns commands as they go over the wire."""
    write: Any = pack_command  # its stub takes tuples of one element only
    return b"".join([write(command) for command in commands])
