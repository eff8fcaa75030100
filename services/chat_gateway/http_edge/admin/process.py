"""/v1/instances, health and metrics of this process."""

from typing import Annotated

import msgspec
from litestar import Response, Router, get, post
from litestar.params import JSONBody, QueryParameter

from access.caller import OPERATOR, RUNTIME_ADMIN
from chat_gateway.http_edge.admin.routing import VERB, Injected, JsonRequest, Page, Project
from chat_gateway.http_edge.wire.auth import OPEN
from chat_gateway.http_edge.wire.times import timestamp
from chat_gateway.instances import InstanceInfo
from servicekit.metrics import exposition


class InstanceJson(msgspec.Struct, kw_only=True):
    """An agent built from one revision of an agent config."""

    agent_id: str
    agent_uid: str
    agent_revision: int
    template_id: str
    build_time: str
    last_used_time: str
    turn_count: int
    object: str = "instance"


class EvictBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which instances to evict; all when no agent is named."""

    agent_id: str | None = None


class Evicted(msgspec.Struct, kw_only=True):
    """How many instances were evicted."""

    evicted: int


class Ready(msgspec.Struct, kw_only=True):
    """Whether the parts that this process depends on are available."""

    ready: bool
    parts: dict[str, str]
    """Each part with `ok`, or what is wrong with it."""


class Alive(msgspec.Struct, kw_only=True):
    """This process is alive."""

    status: str = "ok"


@get("/v1/instances", scope=RUNTIME_ADMIN)
async def list_instances(
    deps: Injected, project: Project, agent_id: Annotated[str, QueryParameter(description="Only of this agent.")] = ""
) -> Page[InstanceJson]:
    """Lists the agent instances of this process, the most recently used first."""
    return Page(data=[_instance_json(instance) for instance in deps.instances.list(project, agent_id)])


@post(f"/v1/instances/{VERB}evict", status_code=200, scope=RUNTIME_ADMIN)
async def evict_instances(deps: Injected, project: Project, data: JSONBody[EvictBody | None] = None) -> Evicted:
    """Evicts agent instances of this process; running turns finish on theirs."""
    return Evicted(evicted=deps.instances.evict(project, (data and data.agent_id) or ""))


@get("/livez", scope=OPEN)
async def livez() -> Alive:
    """Reports that the process is alive."""
    return Alive()


@get("/health", scope=OPEN)
async def health() -> Alive:
    """Reports that the process is alive, where OpenAI-compatible servers do."""
    return Alive()


@get("/readyz", scope=OPEN)
async def readyz(deps: Injected) -> Response[Ready]:
    """Reports which parts are available: 200 when turns can run, else 503."""
    ready = deps.readiness.ready
    return Response(Ready(ready=ready, parts=dict(deps.readiness.report())), status_code=200 if ready else 503)


@get("/startedz", scope=OPEN)
async def startedz(deps: Injected) -> Response[Alive]:
    """Reports whether this process has started and does not drain, whatever its peers do; for load balancers."""
    started = deps.readiness.started
    return Response(Alive(status="ok" if started else "not started, or draining"), status_code=200 if started else 503)


@get("/metrics", media_type="text/plain", scope=OPERATOR)
async def metrics(request: JsonRequest, deps: Injected) -> Response[bytes]:
    """Returns this process's metrics for Prometheus."""
    body, content_type = exposition(deps.registry, request.headers.get("accept", ""))
    return Response(body, media_type=content_type)


def process_router() -> Router:
    """Returns the routes of this module."""
    handlers = [list_instances, evict_instances, livez, health, readyz, startedz, metrics]
    return Router("/", route_handlers=handlers)


def _instance_json(instance: InstanceInfo) -> InstanceJson:
    return InstanceJson(
        agent_id=instance.agent_id,
        agent_uid=instance.agent_uid,
        agent_revision=instance.agent_revision,
        template_id=instance.template_id,
        build_time=timestamp(instance.build_time),
        last_used_time=timestamp(instance.last_used_time),
        turn_count=instance.turn_count,
    )
