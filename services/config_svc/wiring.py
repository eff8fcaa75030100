"""Puts the service together: the only place that names concrete adapters."""

import asyncio
import contextlib
import functools
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector

from access.access_control import CHAT_GATEWAY, SESSION_SVC, AccessControl, build_access_control, mark_secret
from config_svc.access.api_keys import ApiKeys
from config_svc.access.key_feed import AccessFeed
from config_svc.access.key_hashes import KeyHashes
from config_svc.access.key_uses import KeyUses
from config_svc.access.own_keys import OwnKeys
from config_svc.access.projects import Projects
from config_svc.agents.change_feed import ChangeFeed
from config_svc.agents.configs import AgentConfigs
from config_svc.agents.providers import PublishedProviders
from config_svc.agents.templates import Templates
from config_svc.audit.log import AuditLog
from config_svc.edge.access_servicer import AccessServicer
from config_svc.edge.agents_servicer import AgentConfigServicer, ProviderServicer, TemplateServicer
from config_svc.edge.tool_servers_servicer import ToolServerServicer
from config_svc.metrics import Metrics
from config_svc.postgres.encoding import require_encoding
from config_svc.postgres.schema_version import current_version, oldest_served, require_usable
from config_svc.postgres.store import PostgresStore
from config_svc.postgres.tail import PEER
from config_svc.settings import ConfigSettings
from config_svc.sweep import Sweep
from config_svc.tool_servers.servers import ToolServers
from parley.config.v1 import (
    access_service_pb2_grpc,
    agent_config_service_pb2_grpc,
    provider_service_pb2_grpc,
    template_service_pb2_grpc,
    tool_server_service_pb2_grpc,
)
from servicekit.errors import StartupError, Unavailable
from servicekit.lifecycle import Background
from servicekit.metrics import Down, State, serve_metrics
from servicekit.server import GrpcServer, serving
from servicekit.tls import Certificates, certificates

SERVICES = (
    "parley.config.v1.AgentConfigService",
    "parley.config.v1.TemplateService",
    "parley.config.v1.ProviderService",
    "parley.config.v1.AccessService",
    "parley.config.v1.ToolServerService",
)
WATCHES = (
    "/parley.config.v1.AgentConfigService/WatchAgentConfigs",
    "/parley.config.v1.AccessService/WatchAccess",
)

_START_RETRY_SECONDS = 0.5

log = structlog.get_logger("config_svc")


class _Health:
    """Reports whether the database is available to the health service, as soon as there is one."""

    def __init__(self) -> None:
        self._server: GrpcServer | None = None
        self._up = False

    @property
    def started(self) -> bool:
        return self._server is not None and self._server.started

    async def set(self, up: bool) -> None:
        self._up = up
        if self._server is not None:
            for name in ("", *SERVICES):
                await self._server.set_serving(name, up)

    async def report_to(self, server: GrpcServer) -> None:
        self._server = server
        await self.set(self._up)


@asynccontextmanager
async def build(settings: ConfigSettings) -> AsyncIterator[Mapping[str, object]]:
    """Runs config_svc while open; yields its ports.

    Waits for the database as long as it takes; raises StartupError when its schema does not serve this release.
    """
    async with AsyncExitStack() as stack:
        tls = await stack.enter_async_context(certificates(settings.tls_files))
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        metrics = Metrics(registry)
        store = _store(settings)
        stack.push_async_callback(store.close)
        metrics.connections.set_function(lambda: store.connections_in_use)
        health = _Health()
        feed = ChangeFeed(
            store,
            clock=_now,
            metrics=metrics,
            peer=PEER,
            poll=settings.feed_poll,
            buffer=settings.watch_buffer,
            on_health=health.set,
        )
        metrics_port = await stack.enter_async_context(
            serve_metrics(
                settings.host,
                settings.metrics_port,
                readiness=functools.partial(_readiness, store, feed),
                started=lambda: health.started,
                registry=registry,
            )
        )
        await _require_schema(store)
        if settings.database_pooling == "session":
            await _require_sessions(store)
        background = await stack.enter_async_context(Background())
        background.keep("feed", feed.follow)
        await feed.reached()
        projects = Projects(store, clock=_now, metrics=metrics)
        background.keep("sweep", _sweep(settings, store, projects, metrics).run)
        access, own_keys = await _access(settings, store, projects, metrics, background)
        access_control = build_access_control(
            settings, services=SERVICES, checker=own_keys, peers=(CHAT_GATEWAY, SESSION_SVC)
        )
        stack.push_async_callback(access_control.close)
        if access_control.keys is not None:
            background.keep("own_keys", functools.partial(own_keys.follow, access_control.keys))
        server = await stack.enter_async_context(
            _server(settings, store, feed, access, metrics, registry, access_control, tls)
        )
        await health.report_to(server)
        yield {"grpc_port": server.port, "metrics_port": metrics_port}


def _store(settings: ConfigSettings) -> PostgresStore:
    return PostgresStore(
        settings.sqlalchemy_url,
        pool_size=settings.database_pool_size,
        answer_seconds=settings.database_timeout,
        by_transaction=settings.database_pooling == "transaction",
        direct_url=settings.direct_url,
    )


async def _readiness(store: PostgresStore, feed: ChangeFeed) -> Mapping[str, State]:
    if not feed.healthy:
        return {PEER: Down(feed.fault or store.recent_failure)}
    try:
        # A read-only replica is still useful: gateways follow its watch.
        if not await store.takes_writes():
            return {PEER: "is read-only: writes fail until there is a primary"}
        return {PEER: f"calls fail: {store.recent_failure}" if store.recent_failure else True}
    except Unavailable as error:
        return {PEER: Down(error.why)}


def _server(
    settings: ConfigSettings,
    store: PostgresStore,
    feed: ChangeFeed,
    access: AccessServicer,
    metrics: Metrics,
    registry: CollectorRegistry,
    access_control: AccessControl,
    tls: Certificates | None,
) -> AbstractAsyncContextManager[GrpcServer]:
    agents = AgentConfigs(store, clock=_now, retention=settings.deleted_retention, metrics=metrics)
    return serving(
        settings,
        add=[
            (
                agent_config_service_pb2_grpc.add_AgentConfigServiceServicer_to_server,
                AgentConfigServicer(agents, feed),
            ),
            (
                template_service_pb2_grpc.add_TemplateServiceServicer_to_server,
                TemplateServicer(Templates(store, clock=_now)),
            ),
            (
                provider_service_pb2_grpc.add_ProviderServiceServicer_to_server,
                ProviderServicer(PublishedProviders(store, clock=_now)),
            ),
            (access_service_pb2_grpc.add_AccessServiceServicer_to_server, access),
            (
                tool_server_service_pb2_grpc.add_ToolServerServiceServicer_to_server,
                ToolServerServicer(ToolServers(store, clock=_now, metrics=metrics)),
            ),
        ],
        service_names=SERVICES,
        endless=WATCHES,
        interceptors=access_control.interceptors,
        ready=feed.healthy,
        registry=registry,
        tls=tls,
    )


async def _access(
    settings: ConfigSettings, store: PostgresStore, projects: Projects, metrics: Metrics, background: Background
) -> tuple[AccessServicer, OwnKeys]:
    """Starts what follows the ends of keys and records their uses."""
    feed = AccessFeed(store, clock=_now, metrics=metrics, peer=PEER)
    background.keep("access_feed", feed.follow)
    await feed.reached()
    uses = KeyUses(store, clock=_now)
    background.keep("key_uses", uses.run)
    hashes = KeyHashes(settings.key_secrets or [await _kept_secret(store)])
    keys = ApiKeys(
        store,
        clock=_now,
        hashes=hashes,
        uses=uses,
        metrics=metrics,
        limit=settings.max_api_keys,
        mark_secret=mark_secret(settings),
    )
    return AccessServicer(projects, keys, feed, AuditLog(store, clock=_now)), OwnKeys(keys, feed)


async def _kept_secret(store: PostgresStore) -> bytes:
    """Returns the secret that the database keeps beside what is hashed under it; the first replica makes it."""
    log.warning("key_secret_in_database", set="PARLEY_CONFIG_KEY_SECRET")
    return await store.secret("api_keys", secrets.token_bytes(32))


def _sweep(settings: ConfigSettings, store: PostgresStore, projects: Projects, metrics: Metrics) -> Sweep:
    return Sweep(
        store,
        _now,
        metrics,
        projects=projects,
        key_retention=settings.ended_key_retention,
        audit_retention=settings.audit_retention,
        feed_retention=settings.feed_retention,
        keep_changes=settings.feed_keep,
        interval=settings.sweep_interval,
    )


async def _require_schema(store: PostgresStore) -> None:
    """Waits until the database answers; raises StartupError when its schema or encoding does not serve this release."""
    while True:
        try:
            await store.run_sync(require_encoding)
            version, oldest = await store.run_sync(current_version), await store.run_sync(oldest_served)
            break
        except Unavailable:
            log.warning("database_awaited", retry_in_seconds=_START_RETRY_SECONDS)
            await asyncio.sleep(_START_RETRY_SECONDS)
    require_usable(version, oldest)


async def _require_sessions(store: PostgresStore) -> None:
    with contextlib.suppress(Unavailable):  # what follows waits for the database
        if await store.shares_sessions():
            raise StartupError(
                "PARLEY_CONFIG_DATABASE_URL leads to a pooler that shares connections by transaction: set"
                " PARLEY_CONFIG_DATABASE_POOLING=transaction, or have it share them by session"
            )


def _now() -> datetime:
    return datetime.now(UTC)
