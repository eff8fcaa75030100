"""Agent configs, their revisions, templates and models: JSON to and from protobuf."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from chat_gateway.convert.free_form import exact_json_of
from chat_gateway.http_edge.admin.agents.fields import durations, given_fields, set_durations, set_fields
from chat_gateway.http_edge.admin.agents.model import Int32, Int64, ModelJson, model_json, to_model_config
from chat_gateway.http_edge.admin.agents.tools import (
    ToolJson,
    ToolPolicyJson,
    policy_json,
    to_policy,
    to_tools,
    tool_json,
)
from chat_gateway.http_edge.wire.bodies import check_free_form
from chat_gateway.http_edge.wire.times import proto_timestamp
from contract.enums import HistoryPolicy
from contract.fields import DEFAULT_PROJECT
from contract.json_numbers import text_unless_exact
from contract.wire import (
    HISTORY_POLICIES,
    HISTORY_POLICY_NUMBERS,
)
from parley.config.v1 import agent_config_pb2 as pb
from parley.config.v1.agent_config_service_pb2 import CompareAgentConfigRevisionsResponse
from parley.config.v1.provider_service_pb2 import Provider
from parley.config.v1.template_service_pb2 import Template
from servicekit.errors import RemoteError, ServiceError, Violation


class RequestsJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What requests for turns get where they say nothing, and what they may say."""

    store: bool | UnsetType | None = UNSET
    """False: a turn whose request names no session has none."""
    history: HistoryPolicy | UnsetType | None = UNSET
    overridable: list[str] | UnsetType | None = UNSET
    """The fields that requests may set, such as `temperature`; any when omitted, none when empty."""


class MemoryJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How much of the history is sent to the model."""

    max_messages: Int32 | UnsetType | None = UNSET
    max_parts: Int32 | UnsetType | None = UNSET
    """Large images, sounds and files of earlier turns."""


class SessionPolicyJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How long the agent's sessions live: durations such as `"1800s"`."""

    idle_ttl: str | UnsetType | None = UNSET
    max_lifetime: str | UnsetType | None = UNSET


class LimitsJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Bounds on the agent's turns."""

    max_concurrent_turns: Int32 | UnsetType | None = UNSET
    turn_timeout: str | UnsetType | None = UNSET
    requests_per_minute: Int32 | UnsetType | None = UNSET


class AgentJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An agent config. The fields from `object` on are output only and ignored in requests (AIP-203)."""

    id: str = ""
    name: str | None = ""
    template_id: str | None = ""
    template_version: str | None = ""
    instructions: str | None = ""
    parameters: dict[str, Any] | None = {}
    model: ModelJson | UnsetType | None = UNSET
    memory: MemoryJson | UnsetType | None = UNSET
    session: SessionPolicyJson | UnsetType | None = UNSET
    limits: LimitsJson | UnsetType | None = UNSET
    labels: dict[str, str] | None = {}
    metadata_keys: list[str] | None = []
    tools: list[ToolJson] | None = []
    tool_policy: ToolPolicyJson | UnsetType | None = UNSET
    requests: RequestsJson | UnsetType | None = UNSET
    etag: str | None = ""
    object: str = "agent"
    uid: str | UnsetType = UNSET
    revision: int | UnsetType = UNSET
    create_time: str | UnsetType = UNSET
    update_time: str | UnsetType = UNSET
    delete_time: str | UnsetType = UNSET
    purge_time: str | UnsetType = UNSET


class RevisionJson(msgspec.Struct, kw_only=True):
    """One immutable snapshot of an agent config."""

    revision: int
    create_time: str
    author: str
    comment: str
    changed_fields: list[str]
    agent: AgentJson
    object: str = "agent.revision"


class RollbackJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Restores the content of an older revision."""

    revision: Int64
    etag: str | None = None
    comment: str | None = None


class UndeleteJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Restores a deleted agent config."""

    uid: str | None = None
    """Which of the agents that had this id; the one deleted last when omitted."""
    id: str | None = None
    """The new id; its own when omitted."""


class DifferenceJson(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One field, or entry of `labels` or `parameters`, that differs. A value that is not set is omitted."""

    path: str
    before: Any = msgspec.field(name="from", default=UNSET)
    after: Any = msgspec.field(name="to", default=UNSET)


class ComparisonJson(msgspec.Struct, kw_only=True):
    """The differences between two revisions."""

    before: int = msgspec.field(name="from_revision")
    """0 before revision 1."""
    after: int = msgspec.field(name="to_revision")
    differences: list[DifferenceJson]
    object: str = "agent.comparison"


class PlaceholdersJson(msgspec.Struct, kw_only=True):
    """Where a template takes the values for placeholders in instructions from."""

    parameters: bool
    session_metadata: bool
    names: list[str]


class TemplateJson(msgspec.Struct, kw_only=True):
    """A kind of agent that the gateways can build. Without `placeholders`, instructions are used as they are."""

    id: str
    version: str
    description: str
    parameters_schema: dict[str, Any]
    create_time: str
    placeholders: PlaceholdersJson | UnsetType = UNSET
    object: str = "template"


class ProviderJson(msgspec.Struct, kw_only=True):
    """A provider of the running gateways. Agents may use the listed models, or any model if the list is empty."""

    name: str
    models: list[str]
    object: str = "provider"


class ModelCardJson(msgspec.Struct, kw_only=True):
    """An agent, as OpenAI's clients list models."""

    id: str
    created: int
    owned_by: str
    object: str = "model"


PATHS: Mapping[str, str] = {
    "name": "display_name",
    "template_id": "template_id",
    "template_version": "template_version",
    "instructions": "instructions",
    "parameters": "parameters",
    "model": "model",
    "memory": "memory",
    "session": "session",
    "limits": "limits",
    "labels": "labels",
    "metadata_keys": "metadata_keys",
    "tools": "tools",
    "tool_policy": "tool_policy",
    "requests": "requests",
}
"""The writable fields of the JSON, and their paths in an update mask."""


_PREFIXES = ("agent_config.", "tool_server.")
_COUNTS = ("max_concurrent_turns", "requests_per_minute")


def json_path(path: str) -> str:
    """Returns what a field of the contract, such as `agent_config.display_name`, is called in this API."""
    if path == "request_id":
        return "Idempotency-Key"
    prefix = next((one for one in _PREFIXES if path.startswith(one)), "")
    path = path.removeprefix(prefix).replace(".approval.tools", ".approval")
    return "name" + path.removeprefix("display_name") if path.startswith("display_name") else path


def with_api_names(error: ServiceError) -> ServiceError:
    """Returns an error of config_svc with its fields under the names that the caller used."""
    if all(json_path(violation.field) == violation.field for violation in error.violations):
        return error
    message = error.message
    for violation in error.violations:
        message = message.replace(violation.field, json_path(violation.field))
    return RemoteError(
        message,
        code=error.code,
        reason=error.reason,
        metadata=error.metadata,
        violations=[Violation(json_path(violation.field), violation.description) for violation in error.violations],
        retry_after=error.retry_after,
        quota_subject=error.quota_subject,
    )


def to_agent_config(agent: AgentJson) -> pb.AgentConfig:
    """Returns what a client may write of an agent config. Raises `InvalidArgument`, `MalformedBody`."""
    check_free_form(agent.parameters, "parameters")
    config = pb.AgentConfig(
        id=agent.id,
        display_name=agent.name or "",
        template_id=agent.template_id or "",
        template_version=agent.template_version or "",
        instructions=agent.instructions or "",
        labels=agent.labels or {},
        metadata_keys=agent.metadata_keys or (),
        tools=to_tools(agent.tools or []),
        etag=agent.etag or "",
    )
    if agent.parameters:
        config.parameters.update(agent.parameters)
        config.parameters_json = text_unless_exact(agent.parameters)
    if agent.model:
        config.model.CopyFrom(to_model_config(agent.model))
    if agent.memory:
        config.memory.CopyFrom(pb.MemoryPolicy(**given_fields(agent.memory)))
    if agent.session:
        config.session.CopyFrom(pb.SessionPolicy())
        set_durations(config.session, agent.session, "session", ("idle_ttl", "max_lifetime"))
    if agent.limits:
        config.limits.CopyFrom(pb.AgentLimits())
        for name in _COUNTS:
            if isinstance(count := getattr(agent.limits, name), int):
                setattr(config.limits, name, count)
        set_durations(config.limits, agent.limits, "limits", ("turn_timeout",))
    if agent.tool_policy:
        config.tool_policy.CopyFrom(to_policy(agent.tool_policy))
    if agent.requests:
        config.requests.CopyFrom(_to_request_policy(agent.requests))
    return config


def agent_json(config: pb.AgentConfig) -> AgentJson:
    """Returns an agent config as clients see it."""
    agent = AgentJson(
        id=config.id,
        name=config.display_name,
        template_id=config.template_id,
        template_version=config.template_version,
        instructions=config.instructions,
        parameters=exact_json_of(config.parameters, config.parameters_json),
        model=model_json(config.model) if config.HasField("model") else UNSET,
        labels=dict(config.labels),
        metadata_keys=list(config.metadata_keys),
        tools=[tool_json(tool) for tool in config.tools],
        etag=config.etag,
        uid=config.uid,
        revision=config.revision,
    )
    if config.HasField("memory"):
        agent.memory = MemoryJson(**set_fields(config.memory, ("max_messages", "max_parts")))
    if config.HasField("session"):
        agent.session = SessionPolicyJson(**durations(config.session, ("idle_ttl", "max_lifetime")))
    if config.HasField("limits"):
        limits = set_fields(config.limits, _COUNTS) | durations(config.limits, ("turn_timeout",))
        agent.limits = LimitsJson(**limits)
    if config.HasField("tool_policy"):
        agent.tool_policy = policy_json(config.tool_policy)
    if config.HasField("requests"):
        agent.requests = _requests_json(config.requests)
    for field in ("create_time", "update_time", "delete_time", "purge_time"):
        if config.HasField(field):
            setattr(agent, field, proto_timestamp(getattr(config, field)))
    return agent


def revision_json(revision: pb.AgentConfigRevision) -> RevisionJson:
    """Returns a revision as clients see it."""
    return RevisionJson(
        revision=revision.agent_config.revision,
        create_time=proto_timestamp(revision.create_time),
        author=revision.author,
        comment=revision.comment,
        changed_fields=[json_path(path) for path in revision.changed_fields],
        agent=agent_json(revision.agent_config),
    )


def template_json(template: Template) -> TemplateJson:
    """Returns a template as clients see it."""
    answer = TemplateJson(
        id=template.id,
        version=template.version,
        description=template.description,
        parameters_schema=exact_json_of(template.parameters_schema),
        create_time=proto_timestamp(template.create_time),
    )
    if template.HasField("placeholders"):
        sources = template.placeholders
        answer.placeholders = PlaceholdersJson(
            parameters=sources.parameters, session_metadata=sources.session_metadata, names=list(sources.names)
        )
    return answer


def provider_json(provider: Provider) -> ProviderJson:
    """Returns a provider as clients see it."""
    return ProviderJson(name=provider.name, models=list(provider.models))


def comparison_json(comparison: CompareAgentConfigRevisionsResponse) -> ComparisonJson:
    """Returns a comparison as clients see it, with the field names of `AgentJson`."""
    return ComparisonJson(
        before=comparison.from_revision,
        after=comparison.to_revision,
        differences=[
            DifferenceJson(
                path=json_path(one.path),
                before=exact_json_of(one.from_value, one.from_json) if one.HasField("from_value") else UNSET,
                after=exact_json_of(one.to_value, one.to_json) if one.HasField("to_value") else UNSET,
            )
            for one in comparison.differences
        ],
    )


def model_card(config: pb.AgentConfig) -> ModelCardJson:
    """Returns an agent as a model."""
    return ModelCardJson(id=config.id, created=config.create_time.seconds, owned_by=config.project or DEFAULT_PROJECT)


def _to_request_policy(requests: RequestsJson) -> pb.RequestPolicy:
    policy = pb.RequestPolicy()
    if isinstance(requests.store, bool):
        policy.store = requests.store
    if requests.history:
        policy.history = HISTORY_POLICY_NUMBERS[requests.history]
    if isinstance(requests.overridable, list):
        policy.overridable.CopyFrom(pb.FieldNames(names=requests.overridable))
    return policy


def _requests_json(policy: pb.RequestPolicy) -> RequestsJson:
    return RequestsJson(
        store=policy.store if policy.HasField("store") else UNSET,
        history=HISTORY_POLICIES.get(policy.history, UNSET),
        overridable=list(policy.overridable.names) if policy.HasField("overridable") else UNSET,
    )
