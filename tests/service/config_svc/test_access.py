"""AccessService over gRPC and a real PostgreSQL: what only the database, the wire or a kill can show."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from pydantic import SecretStr

from config_svc.settings import ConfigSettings
from parley.config.v1 import access_service_pb2 as pb
from parley.config.v1 import agent_config_service_pb2 as agents_pb
from servicekit.channels import open_channel
from servicekit.rpc_status import from_rpc_error
from servicekit.settings import SettingsError
from tests.servers.ports import free_port
from tests.servers.processes import ServiceProcess
from tests.servers.stores import libpq_url
from tests.servers.web import read
from tests.service.config_svc.conftest import Running, agent, publish, running

OPERATOR_KEY = "an operator's key for the tests, not short".replace(" ", "-")


async def new_key(service: Running, *scopes: str, **fields: Any) -> tuple[str, str]:
    """Makes a key: its id, and itself."""
    request = pb.CreateApiKeyRequest(api_key=pb.ApiKey(scopes=scopes or ("chat",), **fields))
    made = await service.access.CreateApiKey(request)
    return made.api_key.id, made.key


async def watching(service: Running, milliseconds: int = 250) -> Any:
    """A watch that has begun."""
    request = pb.WatchAccessRequest(heartbeat_interval=Duration(nanos=milliseconds * 1_000_000))
    watch = service.access.WatchAccess(request)
    first = await asyncio.wait_for(watch.read(), 60)
    assert list(first.api_key_ids) == []
    return watch


async def next_end(watch: Any) -> list[str]:
    """The next ids that a watch sends."""
    async with asyncio.timeout(60):
        while True:
            ended = list((await watch.read()).api_key_ids)
            if ended:
                return ended


async def test_what_is_stored_of_a_key_is_no_key(service: Running, database_url: str) -> None:
    _, key = await new_key(service)
    checked = await service.access.CheckApiKey(pb.CheckApiKeyRequest(key=key))
    assert list(checked.api_key.scopes) == ["chat"]
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url)) as admin:
        for table in ("api_keys", "audit_events", "api_key_changes"):
            rows = await (await admin.execute(f"SELECT t::text FROM {table} t".encode())).fetchall()
            assert not [row for row in rows if key[10:] in str(row)]


async def test_a_held_open_revocation_is_not_overtaken(service: Running, database_url: str) -> None:
    held_id, _ = await new_key(service)
    later_id, _ = await new_key(service)
    watch = await watching(service)
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url)) as held:
        await held.execute("INSERT INTO api_key_changes (api_key_id, time) VALUES (%s, now())", [held_id])
        later = asyncio.create_task(_outcome(service.access.RevokeApiKey(pb.RevokeApiKeyRequest(id=later_id))))
        await asyncio.sleep(0.3)
        assert not later.done(), "it waits for its turn instead of overtaking"
        await held.commit()
    assert await later == "OK"
    sent = await next_end(watch)
    while len(sent) < 2:
        sent += await next_end(watch)
    assert sent == [held_id, later_id]
    watch.cancel()


async def test_a_lost_notification_costs_no_more_than_a_poll(service: Running, database_url: str) -> None:
    key_id, _ = await new_key(service)
    watch = await watching(service)
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as admin:
        await admin.execute(
            "CREATE OR REPLACE FUNCTION number_api_key_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "NEW.sequence := nextval('api_key_changes_sequence'); RETURN NEW; END $$"
        )
    await service.access.RevokeApiKey(pb.RevokeApiKeyRequest(id=key_id))
    assert await next_end(watch) == [key_id]
    watch.cancel()


async def test_every_replica_sends_a_revocation(service: Running, database_url: str) -> None:
    key_id, key = await new_key(service)
    async with running(database_url) as other:
        watches = [await watching(service), await watching(other)]
        await other.access.RevokeApiKey(pb.RevokeApiKeyRequest(id=key_id))
        for watch in watches:
            assert await next_end(watch) == [key_id]
            watch.cancel()
        for one in (service, other):
            with pytest.raises(grpc.aio.AioRpcError):
                await one.access.CheckApiKey(pb.CheckApiKeyRequest(key=key))


async def test_a_drain_ends_the_watch_and_says_so(database_url: str) -> None:
    async with contextlib.AsyncExitStack() as server:
        service = await server.enter_async_context(running(database_url))
        async with open_channel(f"127.0.0.1:{service.port}") as channel:
            watch = await watching(Running(service.port, channel))
            await server.aclose()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while True:
                    await watch.read()
            assert from_rpc_error(caught.value).reason == "DRAINING"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET actor = 'nobody'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "SET parley.audit = 'retention'; UPDATE audit_events SET actor = 'nobody'",
        "SET parley.audit = 'erasure'; DELETE FROM audit_events",
        "SET parley.audit = 'erasure'; UPDATE audit_events SET action = 'a.b'",
        "SET parley.audit = 'erasure'; UPDATE audit_events SET time = now()",
        "INSERT INTO audit_events (sequence, project, actor, action, resource, time, request_id, source, user_id, "
        "subjects) VALUES (1, 'default', 'a', 'a.b', 'r', now(), '', '', '', '{}')",
    ],
)
async def test_the_database_keeps_the_log_as_it_is(service: Running, database_url: str, statement: str) -> None:
    await new_key(service)
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as admin:
        with pytest.raises(psycopg.Error, match=r"append-only|GENERATED ALWAYS"):
            await admin.execute(statement.encode())
    listed = await service.access.ListAuditEvents(pb.ListAuditEventsRequest())
    assert [event.action for event in listed.audit_events][:1] == ["api_keys.create"]
    assert listed.audit_events[0].actor == "anonymous"


async def _outcome(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_a_deletion_survives_a_kill(database_url: str, tmp_path: Path) -> None:
    """The process that deletes a project is killed half-way; the next one finishes what it began."""
    async with running(database_url) as service:
        await service.templates.PublishTemplate(publish())
        await service.access.CreateProject(pb.CreateProjectRequest(project=pb.Project(id="doomed")))
        create = agents_pb.CreateAgentConfigRequest(project="doomed", agent_config=agent("a"))
        await service.agents.CreateAgentConfig(create)
        cursor = (await service.agents.WatchAgentConfigs(agents_pb.WatchAgentConfigsRequest()).read()).cursor
        async with (
            await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as admin,
            await psycopg.AsyncConnection.connect(libpq_url(database_url)) as holder,
        ):
            await admin.execute(
                "INSERT INTO agent_configs (uid, project, id, spec, revision, create_time, update_time) SELECT "
                "gen_random_uuid(), project, 'b' || n, spec, 1, now(), now() FROM agent_configs, "
                "generate_series(1, 500) n WHERE project = 'doomed'"
            )
            await holder.execute("SELECT 1 FROM agent_configs WHERE id = 'b99' FOR UPDATE")  # one of the last
            process = ServiceProcess("config_svc", {"PARLEY_CONFIG_DATABASE_URL": database_url}, logs=tmp_path)
            await asyncio.to_thread(process.start)
            async with open_channel(process.grpc_target) as channel:
                mortal = Running(0, channel)
                deletion = mortal.access.DeleteProject(pb.DeleteProjectRequest(id="doomed"))
                deleting = asyncio.create_task(_outcome(deletion))

                async def begun() -> bool:
                    counted = await admin.execute("SELECT count(*) FROM agent_configs WHERE project = 'doomed'")
                    row = await counted.fetchone()
                    return row is not None and row[0] < 501

                try:
                    await until(begun)
                finally:
                    process.kill()
                assert await deleting == "UNAVAILABLE"
            assert [p.id for p in (await service.access.ListProjects(pb.ListProjectsRequest())).projects] == [
                "default",
                "doomed",
            ]
    async with running(database_url, sweep_interval=0.1) as service:

        async def gone() -> bool:
            listed = await service.access.ListProjects(pb.ListProjectsRequest())
            return [project.id for project in listed.projects] == ["default"]

        await until(gone)
        watch = service.agents.WatchAgentConfigs(agents_pb.WatchAgentConfigsRequest(cursor=cursor))
        await watch.read()
        sent = {(await asyncio.wait_for(watch.read(), 60)).agent_config.id for _ in range(501)}
        assert len(sent) == 501, "every agent's end is announced, whoever announced it"
        watch.cancel()


async def test_callers_keys_are_checked_and_seen_to_end(database_url: str) -> None:
    """With authentication on: config_svc knows its own keys, and drops them when they end."""
    settings = {"auth": "required", "operator_key": SecretStr(OPERATOR_KEY)}
    async with running(database_url, **settings) as service:

        def bearing(key: str) -> dict[str, Any]:
            return {"metadata": [("authorization", f"Bearer {key}")]}

        operator = bearing(OPERATOR_KEY)
        request = pb.CreateApiKeyRequest(api_key=pb.ApiKey(scopes=["agents:read", "keys:admin"]))
        made = await service.access.CreateApiKey(request, **operator)
        listing = agents_pb.ListAgentConfigsRequest()
        await service.agents.ListAgentConfigs(listing, **bearing(made.key))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            wider = pb.CreateApiKeyRequest(api_key=pb.ApiKey(scopes=["chat"]))
            await service.access.CreateApiKey(wider, **bearing(made.key))
        assert from_rpc_error(caught.value).reason == "SCOPE_MISSING"
        await service.access.RevokeApiKey(pb.RevokeApiKeyRequest(id=made.api_key.id), **operator)

        async def refused() -> bool:
            try:
                await service.agents.ListAgentConfigs(listing, **bearing(made.key))
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.UNAUTHENTICATED
            return False

        begun = time.monotonic()
        await until(refused)
        assert time.monotonic() - begun < 50, "by the watch, not when keys in use are checked again"
        log = await service.access.ListAuditEvents(pb.ListAuditEventsRequest(), **operator)
        assert {event.actor for event in log.audit_events} == {"operator"}


async def test_the_bound_on_keys_is_a_setting_and_its_error_has_a_name(database_url: str) -> None:
    async with running(database_url, max_api_keys=2) as service, running(database_url, max_api_keys=2) as other:
        made = await asyncio.gather(
            *(new_key(replica) for replica in (service, other) for _ in range(4)), return_exceptions=True
        )
        failures = [one for one in made if isinstance(one, grpc.aio.AioRpcError)]
        assert len(failures) == 6, "exact over replicas"
        error = from_rpc_error(failures[0])
        assert (error.code.name, error.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_API_KEYS")
        assert error.metadata == {"project": "default", "limit": "2"}
        assert error.quota_subject == "project:default"


async def test_metrics_of_access(database_url: str) -> None:
    port = free_port()
    async with running(database_url, metrics_port=port) as service:
        key_id, key = await new_key(service)
        watch = await watching(service)
        await service.access.CheckApiKey(pb.CheckApiKeyRequest(key=key))
        await service.access.RevokeApiKey(pb.RevokeApiKeyRequest(id=key_id))
        await next_end(watch)
        for wrong in (key, "x"):
            with pytest.raises(grpc.aio.AioRpcError):
                await service.access.CheckApiKey(pb.CheckApiKeyRequest(key=wrong))
        answer = await read(port, "/metrics")
        for line in (
            'parley_config_access_writes_total{operation="create_api_key",outcome="ok"} 1.0',
            'parley_config_api_key_checks_total{outcome="ok"} 1.0',
            'parley_config_api_key_checks_total{outcome="ended"} 1.0',
            'parley_config_api_key_checks_total{outcome="malformed"} 1.0',
            "parley_config_access_watch_streams 1.0",
            "parley_config_access_feed_up 1.0",
            "parley_config_access_feed_delay_seconds_count 1.0",
        ):
            assert line in answer
        watch.cancel()


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(**settings: Any) -> tuple[bytes, ...]:
        return ConfigSettings(database_url=SecretStr("postgresql://x"), **settings).key_secrets

    first, second = "1" * 32, "2" * 40
    assert given() == ()
    monkeypatch.setenv("PARLEY_CONFIG_KEY_SECRET", f"{first} {second}")
    assert given() == (first.encode(), second.encode())
    monkeypatch.delenv("PARLEY_CONFIG_KEY_SECRET")
    file = tmp_path / "secret"
    file.write_text(f"{second}\n{first}\n")
    monkeypatch.setenv("PARLEY_CONFIG_KEY_SECRET_FILE", str(file))
    assert given() == (second.encode(), first.encode())
    for text in ("short", ""):
        file.write_text(text)
        with pytest.raises(SettingsError):
            given()
    with pytest.raises(SettingsError, match="can't be read"):
        given(key_secret_file=tmp_path / "none")
    with pytest.raises(SettingsError, match="both"):
        given(key_secret=SecretStr(first))
