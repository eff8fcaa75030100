"""What PARLEY_CONFIG_DATABASE_URL may say."""

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from config_svc.postgres.store import PostgresStore
from config_svc.settings import ConfigSettings
from tests.servers.ports import free_port


@pytest.mark.parametrize("asked", ["", "?target_session_attrs=read-write", "?application_name=ours"])
async def test_of_several_hosts_the_one_that_answers_is_used(database_url: str, asked: str) -> None:
    url = make_url(database_url)
    hosts = f"127.0.0.1:{free_port()},{url.host}:{url.port}"
    given = f"postgresql://{url.username}:{url.password}@{hosts}/{url.database}{asked}"
    settings = ConfigSettings(database_url=SecretStr(given))
    store = PostgresStore(settings.sqlalchemy_url)
    assert await store.templates("", 1) == []
    await store.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://ann:secret@one/db?no_such_option=1", "no_such_option"),
        ("postgresql://ann:secret@o ne/db", "space"),
        ("postgresql://ann:secret@one,/db", "must be a URL"),
        ("mysql://ann:secret@one/db", "must begin with"),
    ],
)
def test_what_is_not_honoured_is_refused_at_start(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refusal:
        ConfigSettings(database_url=SecretStr(url))
    assert "secret" not in str(refusal.value)
