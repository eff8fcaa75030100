"""Ways to damage a key, and what calls may say to it."""

from collections.abc import Callable
from typing import Any

import redis

from servicekit.errors import ServiceError
from servicekit.rpc_status import from_rpc_error


def wrong_type(client: "redis.Redis", key: str) -> None:
    was = client.type(key)
    client.delete(key)
    client.rpush(key, "x") if was in (b"none", b"string") else client.set(key, "x")


def cut_short(client: "redis.Redis", key: str) -> None:
    match client.type(key):
        case b"hash":
            fields: Any = client.hkeys(key)
            client.hdel(key, *sorted(fields)[::2])
        case b"list":
            last: Any = client.lindex(key, -1)
            client.lset(key, -1, last[: len(last) // 2])
        case b"string":
            text: Any = client.get(key)
            client.set(key, text[: len(text) // 2])
        case b"stream":
            client.xtrim(key, maxlen=0)


def garbage(client: "redis.Redis", key: str) -> None:
    junk = b"\xff\x00\xfe" * 7
    match client.type(key):
        case b"hash":
            fields: Any = client.hkeys(key)
            client.hset(key, mapping=dict.fromkeys(fields, junk))
        case b"list":
            client.lset(key, -1, junk)
        case b"string":
            client.set(key, junk)
        case b"stream":
            client.xadd(key, {junk: junk})
        case _:
            client.rpush(key, junk)


DAMAGES: dict[str, Callable[["redis.Redis", str], Any]] = {
    "deleted": lambda client, key: client.delete(key),
    "wrong type": wrong_type,
    "cut short": cut_short,
    "garbage": garbage,
}


async def outcome(call: Any) -> str:
    """`OK`, or the reason's name: nothing else comes of a call."""
    try:
        await call
    except Exception as error:
        named = error if isinstance(error, ServiceError) else from_rpc_error(error)  # type: ignore[arg-type]
        assert named.reason != "INTERNAL", str(named)
        return str(named.reason)
    return "OK"
