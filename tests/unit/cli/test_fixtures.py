import psycopg
import pytest
import redis

from tests.servers.stores import Choice, libpq_url


@pytest.mark.parametrize("_round", [1, 2])
def test_each_test_gets_an_empty_database(postgres_url: str, _round: int) -> None:
    with psycopg.connect(libpq_url(postgres_url)) as connection:
        connection.execute("CREATE TABLE once (n int)")


@pytest.mark.parametrize("_round", [1, 2])
def test_each_test_gets_an_empty_redis(redis_url: str, _round: int) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("key", "value")


def test_an_unknown_choice_of_servers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_TEST_SERVERS", "sqlite")
    with pytest.raises(pytest.UsageError, match="sqlite"):
        Choice.from_environment()


def test_urls_need_both_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_TEST_SERVERS", "urls")
    monkeypatch.setenv("PARLEY_TEST_POSTGRES_URL", "postgresql+psycopg://u:p@h/d")
    with pytest.raises(pytest.UsageError, match="PARLEY_TEST_REDIS_URL"):
        Choice.from_environment()


def test_the_first_line_hides_passwords() -> None:
    line = Choice("urls", "postgresql+psycopg://u:secret@h/d", "redis://:secret@r:6379/0").describe()
    assert line == "test servers: postgresql+psycopg://h/d, redis://r:6379/0"
