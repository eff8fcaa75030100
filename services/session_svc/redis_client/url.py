"""What `PARLEY_SESSION_REDIS_URL` may say (one server, a primary that Sentinels watch, a cluster), and how to connect.

Connections are redis-py's, and so are the URLs of one server with their options.
"""

import asyncio
import contextlib
import functools
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import RedisError

from servicekit.errors import StartupError

STEP_SECONDS = 0.5
ASK_SECONDS = 0.4
PORT = 6379
SENTINEL_PORT = 26379
MAX_HOSTS = 32

_KNOWN = frozenset({"connection_class", "host", "port", "path", "username", "password", "db"})
_NO_PART_OF_A_URL = re.compile(r"[\s\x00-\x1f\x7f]")
_SHAPE = (
    "the Redis URL must look like redis://host:6379/0, rediss://…, unix:///path,"
    " redis+sentinel://host,host/primary-name or redis+cluster://host,host"
)

Options = dict[str, Any]
"""The arguments of a redis-py connection, and its class as `connection_class`."""
Dial = Callable[[], Awaitable[AbstractConnection]]
"""Returns a new connection to the server to use now. Raises `OSError`, `TimeoutError`, `RedisError`."""


def parse_redis_url(url: str) -> Dial | list[Options]:
    """Returns how to connect to the server, or to the primary, that a URL names; of a cluster, to some of its nodes.

    Raises `StartupError`, whose message shows no password.
    """
    if _NO_PART_OF_A_URL.search(url):
        raise StartupError("the Redis URL has a space or a control character in it")
    scheme, _, kind = url.partition("://")[0].lower().partition("+")
    if not kind:
        return functools.partial(connect, **_server(url))
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that hold no address
        raise StartupError(_SHAPE) from None
    if kind not in ("sentinel", "cluster") or parts.fragment:
        raise StartupError(_SHAPE)
    user, at, names = parts.netloc.rpartition("@")
    hosts, path = names.split(","), parts.path.removeprefix("/")
    if len(hosts) > MAX_HOSTS:
        raise StartupError(f"the Redis URL names {len(hosts)} hosts: at most {MAX_HOSTS}")
    if kind == "cluster":
        if path not in ("", "0") or parts.query:
            raise StartupError("the Redis URL of a cluster ends behind its hosts: a cluster has no database but 0")
        return [{"port": PORT} | _server(f"{scheme}://{user}{at}{host}", host, shown=bool(at)) for host in hosts]
    primary, _, database = path.partition("/")
    if not primary:
        raise StartupError("the Redis URL must name the primary that the Sentinels watch: redis+sentinel://host/name")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    credentials = [quote(query.pop(option, ""), "") for option in ("sentinel_username", "sentinel_password")]
    if query:
        raise StartupError(f"the Redis URL has an unknown option{_shown(min(query))}")
    sentinels = [
        {"port": SENTINEL_PORT} | _server(f"{scheme}://{':'.join(credentials)}@{host}", host, shown=bool(at))
        for host in hosts
    ]
    return functools.partial(
        _connect_primary, sentinels, unquote(primary), _server(f"{scheme}://{user}{at}-/{database}")
    )


async def connect(connection_class: type[AbstractConnection], **options: Any) -> AbstractConnection:
    """Returns a new connection. Raises what a `Dial` does."""
    connection = connection_class(**options)
    with closed_on_error(connection):
        await connection.connect()
    return connection


@contextlib.contextmanager
def closed_on_error(connection: AbstractConnection) -> Iterator[None]:
    """Closes a connection that is not to be handed on; redis-py leaves it open when it is cancelled."""
    try:
        yield
    except BaseException:
        connection._close()
        raise


async def _connect_primary(sentinels: Sequence[Options], name: str, options: Options) -> AbstractConnection:
    # All are asked, and what most say is taken: one alone may be cut off from the others and not know of a failover.
    answers = await asyncio.gather(*(_ask(sentinel, name) for sentinel in sentinels))
    named = Counter(answer for answer in answers if answer is not None)
    if not named:
        raise MasterNotFoundError(f"no Sentinel names a primary {name!r}")
    [((host, port), _)] = named.most_common(1)
    connection = await connect(**options | {"host": host, "port": port})
    with closed_on_error(connection):
        await connection.send_command("ROLE")
        if (await connection.read_response())[0] != b"master":
            raise MasterNotFoundError(f"{host}:{port} is not the primary")
    return connection


async def _ask(sentinel: Options, name: str) -> tuple[str, int] | None:
    options = dict(sentinel)
    address = options.pop("host"), options.pop("port")
    options["ssl"] = options.pop("connection_class") is SSLConnection
    asked = Sentinel([address], sentinel_kwargs=options)
    try:
        async with asyncio.timeout(ASK_SECONDS):
            return cast("tuple[str, int]", await asked.discover_master(name))
    except (OSError, TimeoutError, RedisError):
        return None
    finally:
        # Without waiting: what waits here can be cancelled once more, and would leave its connection open.
        for client in asked.sentinels:
            pool = client.connection_pool
            for connection in (*pool._available_connections, *pool._in_use_connections):
                connection._close()


def _shown(option: str) -> str:
    """An option's name for a message; a text that may be a piece of a password is not shown."""
    return f" {option!r}" if re.fullmatch("[a-z_]+", option) else ""


def _server(url: str, host: str | None = None, *, shown: bool = False) -> Options:
    """Returns how to connect to a server; to one of several hosts, if it is given.

    A host is `shown` in an error only where an @ stands before it: without one it may be a password that misses it.
    """
    name = f" {host!r}" if shown and host else ""
    refusal = _SHAPE if host is None else f"the Redis URL names a host{name} that is none: must be host or host:port"
    try:
        options, parts = dict[str, Any](parse_url(url)), urlsplit(url)
    except ValueError:
        raise StartupError(refusal) from None
    if "," in options.get("host", ""):
        raise StartupError("the Redis URL names several hosts: say redis+sentinel://… or redis+cluster://…")
    if not options.get("host", options.get("path")):
        raise StartupError(refusal)
    # redis-py lets options name what the URL's other parts say, or takes the one and drops the other.
    named = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    wanted = {"db"} if "path" in options else set()
    if unknown := (options.keys() - _KNOWN) | (named - wanted):
        raise StartupError(f"the Redis URL has an unknown option{_shown(min(unknown))}")
    database = "" if "path" in options else parts.path.strip("/")
    if database and not database.isdecimal():
        raise StartupError("the Redis URL's database must be a number")
    always = {
        "protocol": 2,
        "client_name": "session_svc",
        "health_check_interval": 10,  # a server that loads its data refuses the first
        "socket_timeout": STEP_SECONDS,
        "socket_connect_timeout": STEP_SECONDS,
    }
    return {"connection_class": Connection} | options | always
