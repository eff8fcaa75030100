"""What PARLEY_SESSION_REDIS_URL may say."""

import functools
from typing import Any

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from servicekit.errors import StartupError
from session_svc.redis_client.url import parse_redis_url


def parsed(url: str) -> "functools.partial[Any]":
    dial = parse_redis_url(url)
    assert isinstance(dial, functools.partial)
    return dial


def test_one_server() -> None:
    tls = parsed("rediss://ann:p%40ss@redis:6380/3").keywords
    assert tls.items() >= {"host": "redis", "port": 6380, "username": "ann", "password": "p@ss", "db": 3}.items()
    assert tls["connection_class"] is SSLConnection
    unix = parsed("unix:///run/redis.sock?db=2").keywords
    assert unix.items() >= {"path": "/run/redis.sock", "db": 2}.items()
    assert unix["connection_class"] is UnixDomainSocketConnection


def test_sentinels() -> None:
    url = "redis+sentinel://ann:p%40ss@one,two:1234,[::1]:5/prim%2Fary/3?sentinel_password=s%3A&sentinel_username=u"
    sentinels, name, primary = parsed(url).args
    assert [(sentinel["host"], sentinel["port"]) for sentinel in sentinels] == [
        ("one", 26379),
        ("two", 1234),
        ("::1", 5),
    ]
    assert {(sentinel["username"], sentinel["password"]) for sentinel in sentinels} == {("u", "s:")}
    assert name == "prim/ary"
    assert primary.items() >= {"username": "ann", "password": "p@ss", "db": 3, "connection_class": Connection}.items()
    sentinels, _, primary = parsed("rediss+sentinel://one/name").args
    assert {primary["connection_class"], sentinels[0]["connection_class"]} == {SSLConnection}
    assert not sentinels[0].keys() & {"username", "password"}


def test_a_cluster() -> None:
    seeds = parse_redis_url("rediss+cluster://:secret@one,two:1234/0")
    assert isinstance(seeds, list)
    assert [(seed["host"], seed["port"], seed["password"]) for seed in seeds] == [
        ("one", 6379, "secret"),
        ("two", 1234, "secret"),
    ]
    assert {seed["connection_class"] for seed in seeds} == {SSLConnection}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+cluster://:secret@one/3", "no database but 0"),
        ("redis+cluster://:secret@one?x=1", "ends behind its hosts"),
        ("redis+cluster://:secret@one,,two", "names a host that is none"),
        ("redis+cluster://:secret@one:99999", "names a host 'one:99999' that is none"),
        ("redis+cluster://:secret@" + ",".join(f"h{n}" for n in range(33)), "at most 32"),
        ("redis+sentinel://:secret@one", "must name the primary"),
        ("redis+sentinel://:secret@one/", "must name the primary"),
        ("redis+sentinel://:secret@one/name/x", "database must be a number"),
        ("redis+sentinel://:secret@one/name?db=secret", "unknown option 'db'"),
        ("redis+ring://:secret@one", "must look like"),
        ("redis://:secret@one,two:1", "several hosts: say"),
        ("redis://redis://:secret@one:1/0", "database must be a number"),
        ("redis+cluster://u:secret", "names a host that is none"),
        ("redis+sentinel://[:secret@one/name", "must look like"),
        ("redis+sentinel://u:secretone,two:1/name?sentinel_password=secret", "names a host that is none"),
        ("redis://one?secret-1=x", "unknown option$"),
        ("redis://:secret@one/x", "database must be a number"),
        ("redis://:secret@one/1/2", "database must be a number"),
        ("redis://:secret@one?decode_responses=true", "unknown option 'decode_responses'"),
        ("redis://:secret@one?connection_class=x", "unknown option 'connection_class'"),
        ("redis://:secret@one/1?db=2", "unknown option 'db'"),
        ("redis://:secret@one?host=two", "unknown option 'host'"),
        ("redis://one?username=ann&password=secret", "unknown option 'password'"),
        ("redis://:secret@one?timeout=", "unknown option 'timeout'"),
        ("redis://:secret@o ne", "a space or a control character"),
        ("redis://:secret@one\n:1", "a space or a control character"),
        ("redis+cluster://:secret@one, two", "a space or a control character"),
        ("redis://:secret@one:x", "must look like"),
        ("redis://:secret@", "must look like"),
        ("unix://?db=1", "must look like"),
        ("unix:///redis.sock?db=x", "must look like"),
        ("http://:secret@one", "must look like"),
    ],
)
def test_what_is_none_of_these_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(StartupError, match=said) as refusal:
        parse_redis_url(url)
    assert "secret" not in str(refusal.value)
