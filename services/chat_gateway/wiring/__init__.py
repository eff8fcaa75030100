"""Puts the gateway together. The only place that names concrete adapters."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import grpc
from litestar.types import ASGIApp

from access.access_control import (
    CHAT_GATEWAY,
    AccessControl,
    build_access_control,
    key_times,
    mark_secret,
    own_credential,
)
from access.key_client import KeyClient
from access.peer_channel import as_service
from access.rules import rules_of
from chat_gateway.a2a_edges import A2A_RULES, A2AEdges, PushSettings
from chat_gateway.clients.peer_replicas import PeerReplicas
from chat_gateway.clients.provider_publisher import ProviderPublisher
from chat_gateway.clients.readiness import Readiness
from chat_gateway.clients.replicas import Replicas
from chat_gateway.clients.stubs import CONFIG_SVC, SESSION_SVC, Stubs, make_stubs
from chat_gateway.clients.template_publisher import publish_templates
from chat_gateway.figures import Figures
from chat_gateway.grpc_edge.a2a.lazy import LazyHandlers
from chat_gateway.grpc_edge.chat_servicer import ChatServicer
from chat_gateway.grpc_edge.runtime_servicer import RuntimeServicer
from chat_gateway.http_edge.app import build_app
from chat_gateway.http_edge.console.files import ConsoleFiles, origin_of
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.wire.connections import ConnectionLimits
from chat_gateway.http_edge.wire.server import HttpServer, http_serving
from chat_gateway.metrics import PushMetrics, observe_keys
from chat_gateway.ports import ToolServerTests
from chat_gateway.providers.health import ProvidersHealth
from chat_gateway.settings import GatewaySettings
from chat_gateway.templates.assistant import AssistantTemplate, AssistantTemplate1
from chat_gateway.templates.catalog import TemplateCatalog
from chat_gateway.templates.plugins import all_templates
from chat_gateway.templates.router import RouterTemplate
from chat_gateway.tools.probe import ToolServerProbe
from chat_gateway.wiring.core import Core, open_core, tool_servers_of, toolboxes_of
from parley.chat.v1 import chat_service_pb2_grpc, runtime_service_pb2_grpc
from servicekit.bounded_calls import LargeRequests
from servicekit.channels import MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES, message_options, open_channel
from servicekit.lifecycle import Background
from servicekit.metrics import serve_metrics
from servicekit.server import CallerBounds, GrpcServer, serving
from servicekit.tls import Certificates, certificates

_LAST_CALLS = 0.1
"""Seconds in which calls accepted before the stop reach the scheduler, which then counts them."""

SERVICES = ("parley.chat.v1.ChatService", "parley.chat.v1.RuntimeService")
_PEERS = (
    "parley.config.v1.AgentConfigService",
    "parley.config.v1.TemplateService",
    "parley.config.v1.AccessService",
    "parley.session.v1.SessionService",
    "parley.session.v1.TurnService",
)


def _healthy_replicas(service: str) -> list[tuple[str, str]]:
    # Calls go to replicas that report SERVING (gRFC A17), not to those that lost their store or are stopping.
    return [("grpc.service_config", json.dumps({"healthCheckConfig": {"serviceName": service}}))]


@asynccontextmanager
async def build(settings: GatewaySettings) -> AsyncIterator[Mapping[str, object]]:
    """Serves while open, and yields the bound ports.

    Leaving drains: new turns are refused, and running turns finish.
    """
    async with AsyncExitStack() as stack:
        background = await stack.enter_async_context(Background())
        tls = await stack.enter_async_context(certificates(settings.tls_files))
        edge_tls = await stack.enter_async_context(certificates(settings.edge_tls_files))
        config_channel, session_channel = await _channels(stack, settings, tls)
        access, keys = _access_control(settings, config_channel)
        stack.push_async_callback(access.close)
        if access.keys is not None:
            observe_keys(access.keys)
            background.keep("access watch", functools.partial(keys.follow, access.keys, key_times(settings)))
        stubs = make_stubs(config_channel, session_channel)
        templates = TemplateCatalog(all_templates([AssistantTemplate(), AssistantTemplate1(), RouterTemplate()]))
        tool_servers = tool_servers_of(stack, settings, stubs)
        toolboxes = await stack.enter_async_context(toolboxes_of(settings, tool_servers, background))
        tests = ToolServerProbe(tool_servers, toolboxes.servers)
        core = await open_core(stack, settings, stubs, session_channel, templates, toolboxes, toolboxes.metrics)
        health = ProvidersHealth(core.providers)
        readiness = Readiness(config_channel, session_channel, core.configs, access.keys, health.report)

        _keep_following(background, settings, core, readiness)
        providers = ProviderPublisher(stubs, settings.provider_models, settings.providers_ttl)
        stack.push_async_callback(providers.withdraw)
        background.keep("publication", functools.partial(_publication, stubs, templates, providers, readiness))

        a2a = _a2a_edges(settings, stubs, core, guarded=access.authenticator is not None)
        core.ended_tasks.listen(a2a.task_ended)
        stack.push_async_callback(a2a.close)
        figures = Figures()
        peers = {CONFIG_SVC: settings.config_target, SESSION_SVC: settings.session_target}
        background.keep("figures", figures.follow)
        app = build_app(
            turns=core.turns,
            background=core.background,
            stubs=stubs,
            configs=core.configs,
            deletion=core.deletion,
            instances=core.instances,
            readiness=readiness,
            settings=_http_settings(settings, core),
            authenticator=access.authenticator,
            embeddings=core.embeddings,
            preview=core.preview,
            figures=figures,
            replicas=Replicas(settings.replicas, PeerReplicas(peers, tls)),
            tool_servers=tests,
            console=ConsoleFiles.read(_login_origins(settings)) if settings.console else None,
            a2a=a2a.http_route,
            journals=core.journals,
        )
        http = await stack.enter_async_context(_http_serving(settings, app, edge_tls))
        grpc_server = await stack.enter_async_context(_grpc_serving(settings, core, tests, access, edge_tls, a2a))
        metrics_port = await stack.enter_async_context(_metrics_serving(settings, readiness))
        background.keep("health", lambda: readiness.publish(grpc_server, SERVICES))
        stack.push_async_callback(_drain, settings, core, readiness, http, grpc_server)
        yield {"http_port": http.port, "grpc_port": grpc_server.port, "metrics_port": metrics_port}


def _keep_following(background: Background, settings: GatewaySettings, core: Core, readiness: Readiness) -> None:
    for name, provider in core.providers.items():
        if settings.providers[name].api_key_files:
            background.keep(f"keys of provider {name}", provider.keys.follow)
    background.keep("config watch", core.configs.follow)
    background.keep("readiness", readiness.follow)
    background.keep("pick-up of turns", core.pickups.follow)


def _a2a_edges(settings: GatewaySettings, stubs: Stubs, core: Core, *, guarded: bool) -> A2AEdges:
    push = PushSettings(
        mark_secret(settings) or b"",
        settings.secrets_dir,
        settings.egress_allow,
        settings.tools_connect_timeout,
        PushMetrics(),
    )
    return A2AEdges(
        stubs,
        core.turns,
        core.background,
        core.journals,
        settings.a2a_url,
        settings.a2a_grpc_url,
        settings.peer_timeout,
        guarded=guarded,
        push=push,
    )


def _http_settings(settings: GatewaySettings, core: Core) -> HttpSettings:
    return HttpSettings(
        max_body_bytes=settings.max_body_bytes,
        memory=core.memory,
        decoding=core.decoding,
        request_bounds=settings.request_bounds,
        keep_alive_interval=settings.keep_alive_interval,
        issuers=settings.oidc,
        grpc_target=settings.a2a_grpc_url,
        grpc_port=settings.grpc_port,
        # More than the scheduler admits, so that the scheduler, not the edge, reports which limit was reached.
        max_requests=settings.max_running_turns + settings.max_queued_turns + 256,
    )


def _http_serving(
    settings: GatewaySettings, app: ASGIApp, tls: Certificates | None
) -> AbstractAsyncContextManager[HttpServer]:
    return http_serving(
        app,
        settings.host,
        settings.http_port,
        _edge_drain(settings),
        tls=tls,
        limits=ConnectionLimits(settings.max_connections, settings.max_connections_per_source),
        cors_origins=settings.cors_origins,
    )


def _login_origins(settings: GatewaySettings) -> Iterator[str]:
    """Yields the other origins to which the console's page sends login requests."""
    for issuer in settings.oidc:
        if issuer.client_id is not None:
            yield origin_of(issuer.issuer)
            if issuer.token_url is not None:
                yield origin_of(issuer.token_url)


def _metrics_serving(settings: GatewaySettings, readiness: Readiness) -> AbstractAsyncContextManager[int | None]:
    async def parts() -> Mapping[str, bool]:
        return {"turns": readiness.ready}

    return serve_metrics(settings.host, settings.metrics_port, readiness=parts, started=lambda: readiness.started)


async def _channels(
    stack: AsyncExitStack, settings: GatewaySettings, tls: Certificates | None
) -> tuple[grpc.aio.Channel, grpc.aio.Channel]:
    """Returns the channels to config_svc and session_svc, whose calls carry the gateway's credential."""
    config_health = _healthy_replicas("parley.config.v1.AgentConfigService")
    session_health = _healthy_replicas("parley.session.v1.TurnService")
    config_channel = open_channel(settings.config_target, tls, options=config_health)
    large = message_options(MAX_ANSWER_BYTES, MAX_ANSWER_BYTES)
    session_channel = open_channel(settings.session_target, tls, options=(*session_health, *large))
    credential, rules = own_credential(settings, CHAT_GATEWAY), rules_of(_PEERS)
    return (
        await stack.enter_async_context(as_service(config_channel, credential, rules)),
        await stack.enter_async_context(as_service(session_channel, credential, rules)),
    )


def _access_control(settings: GatewaySettings, config_channel: grpc.aio.Channel) -> tuple[AccessControl, KeyClient]:
    keys = KeyClient(config_channel)
    control = build_access_control(settings, services=SERVICES, checker=keys, record_origin=False, more_rules=A2A_RULES)
    return control, keys


async def _drain(
    settings: GatewaySettings, core: Core, readiness: Readiness, http: HttpServer, grpc_server: GrpcServer
) -> None:
    readiness.drain()
    http.retire()
    await grpc_server.retire()
    await asyncio.sleep(settings.drain_notice)
    http.stop_accepting()
    grpc_server.stop_accepting(settings.drain_timeout + _edge_drain(settings))
    await asyncio.sleep(_LAST_CALLS)
    await core.scheduler.drain(settings.drain_timeout)
    # Turns that still run end here, or are handed over; the edges have a moment to report it.
    core.aborts.stopping = True
    core.turns.stop()
    core.journals.stop()
    await core.pickups.close()


async def _publication(
    stubs: Stubs, templates: TemplateCatalog, providers: ProviderPublisher, readiness: Readiness
) -> None:
    await publish_templates(stubs, templates)
    await providers.publish()
    readiness.published()
    await providers.repeat()


def _edge_drain(settings: GatewaySettings) -> float:
    # The scheduler has already waited for turns; the edges only finish responses.
    return min(settings.drain_timeout, 1.0)


def _grpc_serving(
    settings: GatewaySettings,
    core: Core,
    tests: ToolServerTests,
    access: AccessControl,
    tls: Certificates | None,
    a2a: A2AEdges,
) -> AbstractAsyncContextManager[GrpcServer]:
    chat = ChatServicer(core.turns, core.background, core.preview, core.journals)
    runtime = RuntimeServicer(core.instances, core.scheduler, tests)
    return serving(
        settings.model_copy(update={"drain_notice": 0.0, "drain_timeout": _edge_drain(settings)}),
        add=[
            (chat_service_pb2_grpc.add_ChatServiceServicer_to_server, chat),
            (runtime_service_pb2_grpc.add_RuntimeServiceServicer_to_server, runtime),
        ],
        service_names=SERVICES,
        interceptors=access.interceptors,
        ready=False,
        tls=tls,
        callers=CallerBounds(
            max_streams=settings.max_streams_per_connection,
            max_calls_per_source=settings.max_calls_per_source,
            longest_call_seconds=settings.turn_timeout + 60,
            large=LargeRequests(core.memory, max(8, 4 * settings.max_large_bytes // settings.max_body_bytes)),
            admit=access.admit,
        ),
        max_message_bytes=max(settings.max_body_bytes, MAX_MESSAGE_BYTES),
        generic=[LazyHandlers(a2a.grpc_handlers)],
    )
