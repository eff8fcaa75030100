"""/v1/figures and /v1/replicas: the last hour of this gateway, and of all of them."""

import os
import socket
from typing import Annotated, Final, Literal

import msgspec
from litestar import Response, Router, get
from msgspec import Meta

from access.caller import OPERATOR
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
    """Open: it fails most of its calls, and is left alone for a while."""
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


class ReplicaList(msgspec.Struct, kw_only=True):
    """All gateways."""

    data: list[ReplicaJson]
    object: str = "list"


@get("/v1/figures", scope=OPERATOR)
async def get_figures(deps: Injected) -> Response[FiguresJson]:
    """Reports what this gateway did in the last hour, and how it and what it depends on are."""
    return Response(_figures_json(deps), headers=_FRESH)


@get("/v1/replicas", scope=OPERATOR)
async def list_replicas(request: JsonRequest, deps: Injected) -> Response[ReplicaList]:
    """Lists all gateways that `PARLEY_GATEWAY_REPLICAS` names, with their figures; where it is unset, this one."""
    if not deps.replicas.known:
        own = _figures_json(deps)
        return Response(ReplicaList(data=[ReplicaJson(address=own.replica, problem=None, figures=own)]), headers=_FRESH)
    found = []
    for answer in await deps.replicas.figures(request.headers.get("authorization")):
        figures, problem = None, answer.problem or None
        if problem is None:
            try:
                figures = msgspec.json.decode(answer.figures, type=FiguresJson)
            except msgspec.DecodeError:
                problem = "is no gateway of this release"
        found.append(ReplicaJson(address=answer.address, problem=problem, figures=figures))
    return Response(ReplicaList(data=found), headers=_FRESH)


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
