"""The use cases that the edges serve, on their adapters."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

import grpc

from callstream.client import CallStreamClient
from chat_gateway.aborts import Aborts, AbortTimes
from chat_gateway.admission import Admission
from chat_gateway.agents.toolbox import CallMetrics, Toolboxes
from chat_gateway.background import BackgroundTurns
from chat_gateway.clients.claim_client import ClaimClient, StoredTurnClient
from chat_gateway.clients.config_client import ConfigClient
from chat_gateway.clients.journal_client import JournalClient
from chat_gateway.clients.session_client import PartClient, SessionAdminClient, SessionClient, SessionReaderClient
from chat_gateway.clients.stubs import Stubs
from chat_gateway.clients.tool_servers import ToolServerDirectory, ToolServerTimes
from chat_gateway.clients.turn_calls import turn_calls
from chat_gateway.config_directory import ConfigDirectory, WatchTimes
from chat_gateway.deletion import AgentDeletion
from chat_gateway.embedding import Embeddings
from chat_gateway.ended_tasks import EndedTasks
from chat_gateway.finishing import FinishingTurns
from chat_gateway.instances import Instances
from chat_gateway.leases import LeaseTimes
from chat_gateway.memory import MemoryBudget
from chat_gateway.metrics import PickupMetrics, TurnMetrics, observe_runtime
from chat_gateway.open_watches import OpenWatches
from chat_gateway.pickup import Pickups, PickupTimes
from chat_gateway.preview import PromptPreview
from chat_gateway.providers.http_client import open_client
from chat_gateway.providers.http_provider import ProviderBounds
from chat_gateway.providers.keys import Keys
from chat_gateway.providers.kinds import make_provider
from chat_gateway.providers.observed import ModelMetrics, ObservedProvider
from chat_gateway.providers.provider import Providers
from chat_gateway.providers.resilient import ResilientProvider
from chat_gateway.providers.settings import ProviderSettings
from chat_gateway.scheduler import Scheduler, TurnLimits
from chat_gateway.settings import GatewaySettings
from chat_gateway.templates.catalog import TemplateCatalog
from chat_gateway.tools.opening import ToolsConfig, open_toolboxes
from chat_gateway.tools.toolbox import ServerToolboxes
from chat_gateway.turn import TurnRunner
from chat_gateway.window_parts import WindowParts
from servicekit.freed_memory import FreedMemory
from servicekit.lifecycle import Background

_DECODED_BYTES = 8 * 1024 * 1024
"""Of requests that are decoded at the same time; a larger one is decoded alone. Decoding takes up to ten times as much,
and more at once would not be faster."""


@dataclass(frozen=True, slots=True)
class Core:
    """The use cases that the edges serve."""

    turns: FinishingTurns
    ended_tasks: EndedTasks
    background: BackgroundTurns
    pickups: Pickups
    aborts: Aborts
    preview: PromptPreview
    journals: JournalClient
    memory: MemoryBudget
    decoding: MemoryBudget
    embeddings: Embeddings
    instances: Instances
    scheduler: Scheduler
    configs: ConfigDirectory
    deletion: AgentDeletion
    providers: Mapping[str, ResilientProvider]


@dataclass(frozen=True, slots=True)
class _Sessions:
    """What turns call session_svc by."""

    calls: CallStreamClient
    turns: SessionClient
    claims: ClaimClient
    aborts: Aborts
    parts: WindowParts


async def open_core(
    stack: AsyncExitStack,
    settings: GatewaySettings,
    stubs: Stubs,
    session_channel: grpc.aio.Channel,
    templates: TemplateCatalog,
    toolboxes: Toolboxes,
    call_metrics: CallMetrics,
) -> Core:
    """Opens the use cases; the stack closes them."""
    models = ModelMetrics()
    providers = await _providers(stack, settings, models)
    instances = Instances(templates, Providers(providers), limit=settings.max_instances, metrics=models)
    client = ConfigClient(stubs, read_timeout=settings.config_read_timeout, write_timeout=settings.peer_timeout)
    configs = _configs(stack, settings, client, instances)
    sessions = await _open_sessions(stack, settings, stubs, session_channel)
    scheduler = Scheduler(_turn_limits(settings))
    observe_runtime(scheduler, instances, configs, lambda: len(sessions.calls.streams))
    lease_times = LeaseTimes(renew_interval=settings.lease_renew_interval)
    runner = TurnRunner(
        configs=configs,
        instances=instances,
        scheduler=scheduler,
        sessions=sessions.turns,
        aborts=sessions.aborts,
        lease_times=lease_times,
        metrics=TurnMetrics(),
        turn_timeout=settings.turn_timeout,
        bounds=settings.request_bounds,
        toolboxes=toolboxes,
        parts=sessions.parts,
        call_metrics=call_metrics,
    )
    ended_tasks = EndedTasks()
    turns = FinishingTurns(runner, ended_tasks)
    stack.push_async_callback(turns.close)
    journals = JournalClient(stubs, OpenWatches(settings.watch_bounds))
    times = PickupTimes(max_running=settings.max_background_turns)
    pickups = Pickups(runner, sessions.claims, journals, scheduler, times, PickupMetrics(), ended_tasks)
    stack.push_async_callback(pickups.close)
    reader = SessionReaderClient(stubs, timeout=settings.peer_timeout)
    admission = Admission(sessions.turns, sessions.aborts, lease_times)
    return Core(
        turns=turns,
        ended_tasks=ended_tasks,
        background=_background_turns(settings, stubs, configs, sessions, scheduler, pickups),
        pickups=pickups,
        aborts=sessions.aborts,
        preview=PromptPreview(configs, reader, instances, settings.request_bounds, toolboxes, sessions.parts),
        journals=journals,
        memory=MemoryBudget(settings.max_large_bytes, on_release=FreedMemory().note),
        decoding=MemoryBudget(min(_DECODED_BYTES, settings.max_body_bytes)),
        embeddings=_embeddings(settings, configs, providers, scheduler, admission),
        instances=instances,
        scheduler=scheduler,
        configs=configs,
        deletion=AgentDeletion(client, SessionAdminClient(stubs, timeout=settings.peer_timeout), configs, instances),
        providers=providers,
    )


async def _open_sessions(
    stack: AsyncExitStack, settings: GatewaySettings, stubs: Stubs, session_channel: grpc.aio.Channel
) -> _Sessions:
    calls = await stack.enter_async_context(turn_calls(session_channel).open())
    turns = SessionClient(
        calls,
        timeout=settings.peer_timeout,
        wait_timeout=settings.session_wait_timeout,
        large_part_bytes=settings.large_part_bytes,
    )
    claims = ClaimClient(stubs, timeout=settings.peer_timeout)
    aborts = Aborts(turns, AbortTimes(), claims)
    stack.push_async_callback(aborts.close, settings.peer_timeout)
    stored = PartClient(session_channel, timeout=settings.peer_timeout)
    parts = WindowParts(stored, settings.window_parts_bytes, MemoryBudget(settings.max_large_bytes))
    return _Sessions(calls, turns, claims, aborts, parts)


def _background_turns(
    settings: GatewaySettings,
    stubs: Stubs,
    configs: ConfigDirectory,
    sessions: _Sessions,
    scheduler: Scheduler,
    pickups: Pickups,
) -> BackgroundTurns:
    return BackgroundTurns(
        configs=configs,
        sessions=sessions.turns,
        claims=sessions.claims,
        stored=StoredTurnClient(stubs, timeout=settings.peer_timeout),
        aborts=sessions.aborts,
        scheduler=scheduler,
        pickups=pickups,
        bounds=settings.request_bounds,
    )


def _embeddings(
    settings: GatewaySettings,
    configs: ConfigDirectory,
    providers: Mapping[str, ResilientProvider],
    scheduler: Scheduler,
    admission: Admission,
) -> Embeddings:
    return Embeddings(
        configs=configs,
        providers=Providers(providers),
        models=settings.provider_models,
        scheduler=scheduler,
        admission=admission,
        timeout=settings.turn_timeout,
    )


def _configs(
    stack: AsyncExitStack, settings: GatewaySettings, client: ConfigClient, instances: Instances
) -> ConfigDirectory:
    configs = ConfigDirectory(
        client,
        WatchTimes(max_age=settings.config_max_age),
        limit=settings.max_known_configs,
        on_deleted=lambda config: instances.evict_uid(config.uid),
    )
    stack.push_async_callback(configs.close)
    return configs


def toolboxes_of(
    settings: GatewaySettings, servers: ToolServerDirectory, background: Background
) -> AbstractAsyncContextManager[ServerToolboxes]:
    """Opens the tools of tool servers."""
    config = ToolsConfig(
        egress_allow=settings.egress_allow,
        secrets_dir=settings.secrets_dir,
        connect_timeout=settings.tools_connect_timeout,
        list_ttl=settings.tools_list_ttl,
        max_connections=settings.max_tool_connections,
        idle_timeout=settings.tools_idle_timeout,
        operators=settings.tool_servers,
    )
    return open_toolboxes(config, servers, background)


def tool_servers_of(stack: AsyncExitStack, settings: GatewaySettings, stubs: Stubs) -> ToolServerDirectory:
    """Returns the cache of tool servers; the stack closes it."""
    times = ToolServerTimes(max_age=settings.config_max_age)
    servers = ToolServerDirectory(stubs, times, timeout=settings.config_read_timeout)
    stack.push_async_callback(servers.close)
    return servers


async def _providers(
    stack: AsyncExitStack, settings: GatewaySettings, metrics: ModelMetrics
) -> dict[str, ResilientProvider]:
    bounds = ProviderBounds(**settings.timeouts())
    session = await stack.enter_async_context(open_client(bounds.connect))

    def resilient(name: str, provider: ProviderSettings) -> ResilientProvider:
        def with_key(key: str | None) -> ObservedProvider:
            made = make_provider(name, provider, bounds, session, key=key, show_errors=settings.show_provider_errors)
            return ObservedProvider(made, metrics, content=settings.traces_content)

        keys = Keys(name, with_key, provider.api_key(), provider.api_key_files)
        return ResilientProvider(name, keys, provider.resilience)

    return {name: resilient(name, provider) for name, provider in settings.providers.items()}


def _turn_limits(settings: GatewaySettings) -> TurnLimits:
    return TurnLimits(
        running=settings.max_running_turns,
        queued=settings.max_queued_turns,
        agent_running=settings.max_running_turns_per_agent,
        agent_queued=settings.max_queued_turns_per_agent,
    )
