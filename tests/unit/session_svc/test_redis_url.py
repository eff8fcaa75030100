"""What PARLEY_SESSION_REDIS_URL may say, and which slot a key is in."""

import pytest
from redis.crc import key_slot

from servicekit.errors import StartupError
from session_svc.redis_client.address import RedisAddress
from session_svc.redis_client.slots import slot_of
from session_svc.redis_client.url import ClusterAddress, SentinelAddress, parse_redis_url


def test_one_server() -> None:
    assert parse_redis_url("rediss://ann:p%40ss@redis:6380/3") == RedisAddress(
        "redis", 6380, tls=True, username="ann", password="p@ss", database=3
    )
    assert parse_redis_url("unix:///run/redis.sock?db=2") == RedisAddress("", path="/run/redis.sock", database=2)


def test_sentinels() -> None:
    url = "redis+sentinel://ann:p%40ss@one,two:1234,[::1]:5/prim%2Fary/3?sentinel_password=s&sentinel_username=u"
    assert parse_redis_url(url) == SentinelAddress(
        [
            RedisAddress(host, port, username="u", password="s")
            for host, port in (("one", 26379), ("two", 1234), ("::1", 5))
        ],
        "prim/ary",
        RedisAddress(username="ann", password="p@ss", database=3, primary_only=True),
    )
    tls = parse_redis_url("rediss+sentinel://one/name")
    assert isinstance(tls, SentinelAddress)
    assert tls.node.tls
    assert [sentinel.tls for sentinel in tls.sentinels] == [True]


def test_a_cluster() -> None:
    assert parse_redis_url("rediss+cluster://:secret@one,two:1234/0") == ClusterAddress(
        [RedisAddress(host, port, tls=True, password="secret") for host, port in (("one", 6379), ("two", 1234))]
    )


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+cluster://:secret@one/3", "no database but 0"),
        ("redis+cluster://:secret@one?x=1", "ends behind its hosts"),
        ("redis+cluster://:secret@one,,two", "'' among its hosts"),
        ("redis+cluster://:secret@one:99999", "'one:99999' among its hosts"),
        ("redis+cluster://:secret@" + ",".join(f"h{n}" for n in range(33)), "at most 32"),
        ("redis+sentinel://:secret@one", "must name the primary"),
        ("redis+sentinel://:secret@one/", "must name the primary"),
        ("redis+sentinel://:secret@one/name/x", "'x' as its database"),
        ("redis+sentinel://:secret@one/name?db=secret", "unknown option 'db'"),
        ("redis+ring://:secret@one", "must look like"),
        ("redis://:secret@one,two:1", "several hosts: say"),
        ("http://:secret@one", "must look like"),
    ],
)
def test_what_is_none_of_these_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(StartupError, match=said) as refusal:
        parse_redis_url(url)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("key", ["foo", "{default:s1}:meta", "a{b}c{d}", "{}x", "x{", "x{}{y}", "fence:{p:ü}", "{{a}}"])
def test_slots_are_redis_own(key: str) -> None:
    assert slot_of(key) == slot_of(key.encode()) == key_slot(key.encode())
