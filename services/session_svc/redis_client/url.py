"""What `PARLEY_SESSION_REDIS_URL` may say: one server, a primary that Sentinels watch, or a cluster."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from servicekit.errors import StartupError
from session_svc.redis_client.address import DEFAULT_PORT, RedisAddress, database_number

SENTINEL_PORT = 26379
MAX_HOSTS = 32

_SEVERAL = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>sentinel|cluster)://(?:(?P<user>[^@/]*)@)?(?P<hosts>[^@/?#]+)"
    r"(?:/(?P<path>[^?#]*))?(?:\?(?P<query>[^#]*))?",
    re.IGNORECASE,
)
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]\s]+))(?::(?P<port>\d{1,5}))?")
_KNOWN_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Sentinels, the name under which they watch a primary, and how one connects to that (`node`, but for its host)."""

    sentinels: Sequence[RedisAddress]
    primary: str
    node: RedisAddress


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """Some nodes of a cluster, from which the others are found."""

    seeds: Sequence[RedisAddress]


def parse_redis_url(url: str) -> RedisAddress | SentinelAddress | ClusterAddress:
    """Reads the URL of one server, or of several that belong together.

    One: see `RedisAddress.parse`. Several, with TLS where the scheme begins with `rediss`:
    `redis+sentinel://[user:password@]host[:26379],host…/primary-name[/database][?sentinel_password=…]` and
    `redis+cluster://[user:password@]host[:6379],host…`. Raises `StartupError`, whose message shows no password.
    """
    if "+" not in url.partition(":")[0]:
        return RedisAddress.parse(url)
    parts = _SEVERAL.fullmatch(url)
    if parts is None:
        raise StartupError(
            "the Redis URL must look like redis://host:6379/0, redis+sentinel://host,host/primary-name or"
            " redis+cluster://host,host (rediss… with TLS)"
        )
    username, _, password = (parts["user"] or "").partition(":")
    tls = parts["scheme"].lower() == "rediss"
    node = RedisAddress(tls=tls, username=unquote(username), password=unquote(password))
    if parts["kind"].lower() == "cluster":
        return _cluster(parts, node)
    return _sentinel(parts, node)


def _cluster(parts: "re.Match[str]", node: RedisAddress) -> ClusterAddress:
    if (parts["path"] or "0") != "0" or parts["query"]:
        raise StartupError("the Redis URL of a cluster ends behind its hosts: a cluster has no database but 0")
    hosts = _hosts(parts["hosts"], DEFAULT_PORT)
    return ClusterAddress([at(node, host, port) for host, port in hosts])


def _sentinel(parts: "re.Match[str]", node: RedisAddress) -> SentinelAddress:
    primary, _, number = (parts["path"] or "").partition("/")
    if not primary:
        raise StartupError("the Redis URL must name the primary that the Sentinels watch: redis+sentinel://host/name")
    options = dict(parse_qsl(parts["query"] or "", keep_blank_values=True))
    if unknown := sorted(options.keys() - _KNOWN_OPTIONS):
        raise StartupError(f"the Redis URL has an unknown option {unknown[0]!r}")
    sentinel = RedisAddress(
        tls=node.tls,
        username=options.get("sentinel_username", ""),
        password=options.get("sentinel_password", ""),
    )
    hosts = _hosts(parts["hosts"], SENTINEL_PORT)
    return SentinelAddress(
        [at(sentinel, host, port) for host, port in hosts],
        unquote(primary),
        RedisAddress(
            tls=node.tls,
            username=node.username,
            password=node.password,
            database=database_number(number or "0"),
            primary_only=True,
        ),
    )


def _hosts(text: str, default_port: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for part in text.split(","):
        host = _HOST.fullmatch(part)
        if host is None or not 0 < int(host["port"] or default_port) < 65536:
            raise StartupError(f"the Redis URL names {part!r} among its hosts: must be host or host:port")
        found.append((host["six"] or host["host"], int(host["port"] or default_port)))
    if len(found) > MAX_HOSTS:
        raise StartupError(f"the Redis URL names {len(found)} hosts: at most {MAX_HOSTS}")
    return found


def at(like: RedisAddress, host: str, port: int) -> RedisAddress:
    """Returns the address of another server that one connects to in the same way."""
    return RedisAddress(
        host=host,
        port=port,
        tls=like.tls,
        username=like.username,
        password=like.password,
        database=like.database,
        primary_only=like.primary_only,
    )
