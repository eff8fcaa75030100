"""Puts session_svc together: the only place that names what it is made of."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import grpc
import hiredis
import structlog

from access.access_control import CHAT_GATEWAY, SESSION_SVC, build_access_control, key_times, own_credential
from access.key_client import KeyClient
from access.peer_channel import as_service
from access.rules import require_audit, rules_of
from callstream.server import CallStreams
from parley.session.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from servicekit.channels import open_channel
from servicekit.errors import ServiceError, StartupError, Unavailable
from servicekit.lifecycle import Background
from servicekit.metrics import Down, State, serve_metrics
from servicekit.server import GrpcServer, serving
from servicekit.tls import Certificates, certificates
from session_svc.audited_sessions import RECORDED, AuditedSessions
from session_svc.branches import Branches
from session_svc.claim_waits import ClaimWaits
from session_svc.claims import Claims
from session_svc.clients.audit_log import AuditClient
from session_svc.clients.config_feed import ConfigClient
from session_svc.edge import session_servicer, turn_servicer
from session_svc.edge.session_servicer import SessionServicer
from session_svc.edge.turn_convert import early_calls, filled_turn, is_turn, named_parts
from session_svc.edge.turn_servicer import TurnServicer, add_turn_servicer_to_server, make_streams
from session_svc.follower import Follower
from session_svc.journal import Journals
from session_svc.metrics import Metrics
from session_svc.model.session import SessionBounds
from session_svc.redis_client.cluster import ClusterLink, Topology
from session_svc.redis_client.link import Link
from session_svc.redis_client.server import RedisLink
from session_svc.redis_client.url import Dial, parse_redis_url
from session_svc.redis_store.agents import RedisAgents
from session_svc.redis_store.claims import RedisClaims
from session_svc.redis_store.durability import Durability
from session_svc.redis_store.indexes import IndexAdditions
from session_svc.redis_store.journal import RedisJournals
from session_svc.redis_store.limits import RedisLimits
from session_svc.redis_store.parts import RedisParts, TurnParts
from session_svc.redis_store.push_configs import RedisPushConfigs
from session_svc.redis_store.script_runner import PROBE_SCRIPT, RedisScripts
from session_svc.redis_store.sessions import RedisSessions
from session_svc.redis_store.sweeper import Sweeper
from session_svc.redis_store.turns import RedisTurns
from session_svc.redis_store.waiting_turns import WaitingTurns
from session_svc.redis_store.wakeups import RedisWakes
from session_svc.sessions import Sessions
from session_svc.settings import SessionSettings
from session_svc.turn_limits import TurnLimiter
from session_svc.turns import Turns

COMMIT_CONNECTIONS = 8
PROBE_SECONDS = 0.5
PROBE_TIMEOUT = 1.0
PROBES_A_LOOK = 10
PROBE_KEPT_MS = 60_000
PROBE_KEY = "health:probe"
NO_SCRIPT = "0" * 40
"""The name of no script: who may run scripts by name is answered that it is unknown."""
SERVICES = (turn_servicer.NAME, session_servicer.NAME)
_PEERS = ("parley.config.v1.AgentConfigService", "parley.config.v1.AccessService")

log = structlog.get_logger("session_svc.redis")


@dataclass(frozen=True, slots=True)
class _Stores:
    """What is kept in Redis."""

    link: Link
    index_additions: IndexAdditions
    turns: RedisTurns
    journals: RedisJournals
    sessions: RedisSessions
    parts: RedisParts
    agents: RedisAgents
    limits: RedisLimits
    claims: RedisClaims
    push_configs: RedisPushConfigs


@contextlib.asynccontextmanager
async def build(settings: SessionSettings, metrics: Metrics | None = None) -> AsyncIterator[Mapping[str, object]]:
    """Serves session_svc while open; yields the bound ports. Starts, NOT_SERVING, also while Redis is unreachable."""
    metrics = metrics or Metrics()
    limits = settings.limits()
    session_rules = rules_of([session_servicer.NAME])
    require_audit(session_rules, {f"/{session_servicer.NAME}/{rpc}" for rpc in RECORDED})
    async with contextlib.AsyncExitStack() as stack:
        tls = await stack.enter_async_context(certificates(settings.tls_files))
        stores = await _stores(stack, settings, limits, metrics)
        sessions = Sessions(stores.sessions, stores.agents, metrics)
        turn_limits = TurnLimiter(stores.limits, lease_ms=limits.lease_ms)
        turns = Turns(stores.turns, turn_limits, metrics, longest_hold=settings.lease / 3)
        stack.push_async_callback(turns.close)
        channel = await stack.enter_async_context(_config_channel(settings, tls))
        keys = KeyClient(channel)
        access = build_access_control(settings, services=SERVICES, checker=keys, peers=(CHAT_GATEWAY,))
        stack.push_async_callback(access.close)
        audited = access.authenticator is not None
        served = AuditedSessions(stores.sessions, stores.agents, metrics, AuditClient(channel)) if audited else sessions
        journals = Journals(stores.journals, max_watches=max(settings.max_concurrent_rpcs // 2, 1))
        waits = ClaimWaits(stores.claims, max_waits=max(settings.max_concurrent_rpcs // 4, 1))
        claims = Claims(stores.claims, turn_limits, metrics, waits)
        branches = Branches(turns, stores.sessions)
        servicer = TurnServicer(turns, branches, journals, stores.parts, claims, stores.push_configs)
        streams = make_streams(servicer)
        health = RedisHealth(stores.link, metrics, streams)
        await health.probe()
        server = await stack.enter_async_context(
            serving(
                settings,
                add=[
                    (add_turn_servicer_to_server, (servicer, streams)),
                    (add_SessionServiceServicer_to_server, SessionServicer(served)),
                ],
                service_names=SERVICES,
                interceptors=access.interceptors,
                quiet=(f"{turn_servicer.NAME}/Turns",),  # its calls have lines and spans of their own
                ready=health.up,
                on_end=lambda: _end(streams, turns, journals, claims),
                tls=tls,
                max_message_bytes=settings.max_message_bytes,
            )
        )
        background = await stack.enter_async_context(Background())
        background.keep("redis health", lambda: health.watch(server))
        background.keep("follower", Follower(ConfigClient(channel), sessions, stores.agents, metrics).run)
        if access.keys is not None:
            background.keep("access watch", functools.partial(keys.follow, access.keys, key_times(settings)))
        background.keep("waiting turns", claims.keep_up)
        background.keep("turns to claim", waits.look_out)
        background.keep("index sweeper", Sweeper(stores.sessions, stores.index_additions, metrics).run)
        metrics_port = await stack.enter_async_context(_metrics_serving(settings, health, server))
        yield {"grpc_port": server.port, "metrics_port": metrics_port or 0}


def _metrics_serving(
    settings: SessionSettings, health: "RedisHealth", server: GrpcServer
) -> contextlib.AbstractAsyncContextManager[int | None]:
    return serve_metrics(
        settings.host, settings.metrics_port, readiness=health.readiness, started=lambda: server.started
    )


async def _stores(
    stack: contextlib.AsyncExitStack, settings: SessionSettings, limits: SessionBounds, metrics: Metrics
) -> _Stores:
    commit_links = COMMIT_CONNECTIONS if settings.wait_replicas else 0
    [link, large_link, *more], dial = await stack.enter_async_context(open_redis(settings.redis_url, 2 + commit_links))
    wakes = await stack.enter_async_context(RedisWakes(dial).open())
    scripts, index_additions = RedisScripts(link, metrics.redis_call, metrics.damaged), IndexAdditions()
    metrics.redis_waiting(lambda: scripts.under_way)
    waiting = [RedisScripts(other, metrics.redis_call, metrics.damaged) for other in more] or [scripts]
    durability = Durability(waiting, settings.wait_replicas, int(settings.wait_timeout * 1000))
    large_scripts = RedisScripts(large_link, metrics.redis_call, metrics.damaged)
    parts = RedisParts(large_scripts, TurnParts(named_parts, filled_turn))
    large = Durability([parts.scripts], settings.wait_replicas, int(settings.wait_timeout * 1000))
    waiting_turns = WaitingTurns(scripts, limits)
    claims = RedisClaims(scripts, limits, waiting_turns)
    metrics.queued_turns(lambda: claims.queued)
    turns = RedisTurns(
        scripts,
        wakes,
        limits,
        index_additions,
        durability,
        compressing=settings.compress_turns,
        is_turn=is_turn,
        large=large,
        waiting=waiting_turns,
    )
    return _Stores(
        link=link,
        index_additions=index_additions,
        turns=turns,
        journals=RedisJournals(scripts, wakes, limits, waiting_turns),
        claims=claims,
        push_configs=RedisPushConfigs(scripts),
        sessions=RedisSessions(
            scripts,
            turns,
            limits,
            index_additions,
            durability,
            compressing=settings.compress_turns,
            is_turn=is_turn,
            early_calls=early_calls,
            parts=parts,
        ),
        parts=parts,
        agents=RedisAgents(scripts, durability),
        limits=RedisLimits(scripts, wakes, limits.limit_times()),
    )


def _config_channel(settings: SessionSettings, tls: Certificates | None) -> grpc.aio.Channel:
    credential = own_credential(settings, SESSION_SVC)
    return as_service(open_channel(settings.config_target, tls), credential, rules_of(_PEERS))


@contextlib.asynccontextmanager
async def open_redis(url: str, links: int) -> AsyncIterator[tuple[list[Link], Dial]]:
    """Yields that many links to the Redis that a URL names, and how to connect to where its scripts publish.

    Does not wait for Redis. Raises `StartupError` for a URL that is none.
    """
    try:
        where = parse_redis_url(url)
    except StartupError as error:
        raise StartupError(f"PARLEY_SESSION_REDIS_URL: {error}") from None
    async with contextlib.AsyncExitStack() as stack:
        opened: list[RedisLink] | list[ClusterLink]
        if isinstance(where, list):
            topology = await stack.enter_async_context(contextlib.aclosing(Topology(where).start()))
            opened, where = [ClusterLink(topology).start() for _ in range(links)], topology.dial
        else:
            opened = [RedisLink(where).start() for _ in range(links)]
        for link in opened:
            stack.push_async_callback(link.aclose)
        yield [*opened], where


def _end(streams: CallStreams, turns: Turns, journals: Journals, claims: Claims) -> None:
    streams.set_serving(False)
    turns.drain()
    journals.drain()
    claims.drain()


class RedisHealth:
    """Reports that session_svc serves exactly while Redis answers."""

    def __init__(self, link: Link, metrics: Metrics, streams: CallStreams) -> None:
        self._link = link
        self._metrics = metrics
        self._streams = streams
        self.up = False
        self._probes = 0
        self._writes = True
        self._policy = ""
        self._refusal = ""
        self._fault = ""

    async def _look_closer(self) -> None:
        """Writes once, and reads whether Redis may evict what it holds. On a cluster, one node is asked for all."""
        *written, info = await self._link.send_in_order(
            [
                ("EVAL", PROBE_SCRIPT, 1, PROBE_KEY),
                ("EVALSHA", NO_SCRIPT, 1, PROBE_KEY),
                ("SET", PROBE_KEY, "1", "PX", PROBE_KEPT_MS),
            ],
            [("INFO", "memory")],
        )
        errors = [str(reply) for reply in written if isinstance(reply, hiredis.ReplyError)]
        refused = next((error for error in errors if not error.startswith("NOSCRIPT")), None)
        writes = refused is None
        if writes != self._writes:
            log.warning("redis_writes_again" if writes else "redis_write_refused", error=str(refused)[:200])
        self._writes = writes
        self._refusal = (refused or "").partition("\n")[0][:200]
        text = info.decode(errors="replace") if isinstance(info, bytes) else ""
        policy = text.partition("maxmemory_policy:")[2].partition("\r\n")[0]
        if policy != self._policy and policy not in ("", "noeviction"):
            log.warning("redis_may_evict", maxmemory_policy=policy, right="noeviction")
        self._policy = policy
        self._metrics.redis_evicts(self._evicts)

    @property
    def _evicts(self) -> bool:
        return self._policy not in ("", "noeviction")

    async def probe(self) -> bool:
        """Asks Redis once; returns whether it answered within a second."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._link.ping()
                if self._probes % PROBES_A_LOOK == 0:
                    await self._look_closer()
            self._probes += 1
            self.up = True
        except (ServiceError, TimeoutError) as error:
            self.up = False
            self._fault = error.why if isinstance(error, Unavailable) else "no answer"
        self._metrics.redis_up(self.up)
        # Health moves calls to another replica, but not those of streams that are there already.
        self._streams.set_serving(self.up)
        return self.up

    async def watch(self, server: GrpcServer) -> None:
        """Keeps the server's health as Redis' is."""
        while True:
            before = self.up
            if await self.probe() != before:
                for name in ("", *SERVICES):
                    await server.set_serving(name, self.up)
            await asyncio.sleep(PROBE_SECONDS)

    async def readiness(self) -> Mapping[str, State]:
        """Returns whether Redis answers and takes writes, or why not, and warns where it may evict."""
        parts: dict[str, State] = {
            "redis": self.up or Down(self._fault),
            "redis writes": self._writes or Down(self._refusal),
        }
        if self._evicts:
            parts["redis policy"] = f"maxmemory-policy {self._policy} evicts sessions: it must be noeviction"
        return parts
