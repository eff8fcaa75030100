"""/v1/figures and /v1/replicas: metrics of the last hour, of this gateway and of all gateways."""

import asyncio
import os
import socket
from typing import Annotated, Final, Literal

import msgspec
from litestar import Response, Router, get
from msgspec import Meta

from access.caller import OPERATOR
from chat_gateway.clients.peer_replicas import PeerReplica
from chat_gateway.figures import INTERVAL_SECONDS, Sample
from chat_gateway.http_edge.admin.routing import Injected, JsonRequest
from chat_gateway.http_edge.dependencies import Dependencies
from chat_gateway.http_edge.wire.times import timestamp

_FRESH = {"Cache-Control": "no-store"}
_CIRCUITS: Final = ("closed", "half_open", "open")


class SampleJson(msgspec.Struct, kw_only=True):
    """What happened in the seconds before `time`; times are null where nothing was timed."""

    time: str
    turns: int
    """Turns that ended, however they did."""
    errors: dict[str, int]
    """Of them, those that failed, by code."""
    median_ms: float | None
    slow_ms: float | None
    """The 95th percentile."""
    first_token_median_ms: float | None
    """Of streamed calls of models."""
    first_token_slow_ms: float | None
    running: int
    """Turns that use a model, at that time."""
    queued: int
    instances: int


class ProviderFiguresJson(msgspec.Struct, kw_only=True):
    """One provider of models as a gateway sees it."""

    name: str
    circuit: Literal["closed", "half_open", "open"]
    """Open: it fails most of its calls, and is not called for a while."""
    running: int
    retries: int


class FiguresJson(msgspec.Struct, kw_only=True):
    """The last hour of one gateway, in samples of `interval_seconds`, the oldest first."""

    replica: str
    """Its host and process."""
    start_time: str
    ready: bool
    parts: dict[str, str]
    """Each part with `ok`, or what is wrong with it, as `/readyz` has it."""
    providers: list[ProviderFiguresJson]
    running: int
    queued: int
    instances: int
    interval_seconds: Annotated[float, Meta(gt=0)]
    samples: list[SampleJson]
    object: str = "figures"


class ReplicaJson(msgspec.Struct, kw_only=True):
    """One gateway: its figures, or the problem that kept them from being had."""

    address: str
    problem: str | None
    figures: FiguresJson | None
    object: str = "replica"


class ServiceReplicaJson(msgspec.Struct, kw_only=True):
    """One replica of a service behind the gateways, as this gateway sees it."""

    service: str
    """`config_svc` or `session_svc`."""
    address: str
    state: Literal["serving", "not_serving", "unreachable"]
    """What its health says; not serving: it is there and lacks its store, or drains."""
    latency_ms: float | None
    """How long it took to connect and to get the answer."""


class ReplicaList(msgspec.Struct, kw_only=True):
    """All gateways, and the replicas of the services behind them."""

    data: list[ReplicaJson]
    services: list[ServiceReplicaJson]
    object: str = "list"


@get("/v1/figures", scope=OPERATOR)
async def get_figures(deps: Injected) -> Response[FiguresJson]:
    """Reports what this gateway did in the last hour, and how it and what it depends on are."""
    return Response(_figures_json(deps), headers=_FRESH)


@get("/v1/replicas", scope=OPERATOR)
async def list_replicas(request: JsonRequest, deps: Injected) -> Response[ReplicaList]:
    """Lists all gateways that `PARLEY_GATEWAY_REPLICAS` names, with their figures; where it is unset, this one.

    `services` are the replicas of config_svc and session_svc, asked for their health one by one.
    """
    authorization = request.headers.get("authorization")
    gateways, peers = await asyncio.gather(_gateways(deps, authorization), deps.replicas.peers())
    return Response(ReplicaList(data=gateways, services=[_service_json(one) for one in peers]), headers=_FRESH)


async def _gateways(deps: Dependencies, authorization: str | None) -> list[ReplicaJson]:
    if not deps.replicas.known:
        own = _figures_json(deps)
        return [ReplicaJson(address=own.replica, problem=None, figures=own)]
    found = []
    for answer in await deps.replicas.figures(authorization):
        figures, problem = None, answer.problem or None
        if problem is None:
            try:
                figures = msgspec.json.decode(answer.figures, type=FiguresJson)
            except msgspec.DecodeError:
                problem = "is no gateway of this release"
        found.append(ReplicaJson(address=answer.address, problem=problem, figures=figures))
    return found


def _service_json(one: PeerReplica) -> ServiceReplicaJson:
    latency_ms = None if one.seconds is None else round(one.seconds * 1000, 2)
    return ServiceReplicaJson(service=one.service, address=one.address, state=one.state, latency_ms=latency_ms)


def figures_router() -> Router:
    """Returns the routes of this module."""
    return Router("/", route_handlers=[get_figures, list_replicas])


def _figures_json(deps: Dependencies) -> FiguresJson:
    figures = deps.figures
    figures_now = figures.now()
    return FiguresJson(
        replica=f"{socket.gethostname()}/{os.getpid()}",
        start_time=timestamp(figures.start_time),
        ready=deps.readiness.ready,
        parts=dict(deps.readiness.report()),
        providers=[
            ProviderFiguresJson(
                name=one.name,
                circuit=_CIRCUITS[one.circuit],
                running=one.running,
                retries=one.retries,
            )
            for one in figures_now.providers
        ],
        running=figures_now.running,
        queued=figures_now.queued,
        instances=figures_now.instances,
        interval_seconds=INTERVAL_SECONDS,
        samples=[_sample_json(one) for one in figures.samples],
    )


def _sample_json(one: Sample) -> SampleJson:
    return SampleJson(
        time=timestamp(one.time),
        turns=one.turns,
        errors=dict(one.errors),
        median_ms=one.median_ms,
        slow_ms=one.slow_ms,
        first_token_median_ms=one.first_token_median_ms,
        first_token_slow_ms=one.first_token_slow_ms,
        running=one.running,
        queued=one.queued,
        instances=one.instances,
    )
