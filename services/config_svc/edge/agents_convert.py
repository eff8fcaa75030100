"""Between the contract's messages and the domain's values."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from config_svc.agents.change_feed import FeedEvent
from config_svc.edge.json_objects import exact_object_of, json_value_of, object_of, struct
from config_svc.edge.optional_fields import duration_of, set_or_none
from config_svc.edge.tools_convert import fill_tools, policy_of, tools_of
from config_svc.model.agent import (
    MAX_EXTRA_BYTES,
    MAX_FALLBACKS,
    SAMPLING_FIELDS,
    AgentConfig,
    AgentLimits,
    AgentSpec,
    MemoryPolicy,
    ModelConfig,
    ModelFallback,
    RequestPolicy,
    Revision,
    SessionPolicy,
)
from config_svc.model.change import ChangeType
from config_svc.model.fields import GROUPS, NOT_SET, NOT_WRITABLE, Difference
from config_svc.model.provider import Provider
from config_svc.model.rules import MAX_LABELS, canonical
from config_svc.model.template import Placeholders, Template
from config_svc.model.tools import AgentTool
from contract.chat_fields import MAX_EXTRA_FIELDS
from contract.enums import FallbackTrigger, HistoryPolicy
from contract.fields import DEFAULT_PROJECT
from contract.json_numbers import EXACT, text_unless_exact
from contract.wire import (
    FALLBACK_TRIGGER_NUMBERS,
    FALLBACK_TRIGGERS,
    HISTORY_POLICIES,
    HISTORY_POLICY_NUMBERS,
)
from parley.config.v1 import agent_config_pb2 as agents_pb
from parley.config.v1 import agent_config_service_pb2 as service_pb
from parley.config.v1 import provider_service_pb2 as providers_pb
from parley.config.v1 import template_service_pb2 as templates_pb

_CHANGE_TYPES = {
    ChangeType.CREATED: service_pb.CHANGE_TYPE_CREATED,
    ChangeType.UPDATED: service_pb.CHANGE_TYPE_UPDATED,
    ChangeType.DELETED: service_pb.CHANGE_TYPE_DELETED,
}


def project_of(name: str) -> str:
    """Returns the project that a request names, the default one when it names none."""
    return name or DEFAULT_PROJECT


def spec_of(agent: agents_pb.AgentConfig) -> AgentSpec:
    """Returns what a caller may write of an agent config, without output-only fields; raises as `object_of`."""
    return AgentSpec(
        display_name=agent.display_name,
        template_id=agent.template_id,
        template_version=agent.template_version,
        parameters=exact_object_of(
            agent.parameters, agent.parameters_json, "agent_config.parameters", "agent_config.parameters_json"
        ),
        instructions=agent.instructions,
        model=_model_of(agent.model),
        memory=MemoryPolicy(
            max_messages=set_or_none(agent.memory, "max_messages"), max_parts=set_or_none(agent.memory, "max_parts")
        ),
        session=SessionPolicy(
            idle_ttl=duration_of(agent.session, "idle_ttl"),
            max_lifetime=duration_of(agent.session, "max_lifetime"),
        ),
        limits=AgentLimits(
            max_concurrent_turns=set_or_none(agent.limits, "max_concurrent_turns"),
            turn_timeout=duration_of(agent.limits, "turn_timeout"),
            requests_per_minute=set_or_none(agent.limits, "requests_per_minute"),
        ),
        labels=dict(itertools.islice(agent.labels.items(), MAX_LABELS + 1)),
        metadata_keys=tuple(agent.metadata_keys),
        tools=tools_of(agent.tools, "agent_config.tools"),
        tool_policy=policy_of(agent.tool_policy),
        requests=RequestPolicy(
            store=set_or_none(agent.requests, "store"),
            history=history_of(agent.requests.history),
            overridable=tuple(agent.requests.overridable.names) if agent.requests.HasField("overridable") else None,
        ),
    )


def update_paths(request: service_pb.UpdateAgentConfigRequest) -> Sequence[str]:
    """Returns the paths of the update mask; without one, those of the fields that are set (AIP-134)."""
    if request.update_mask.paths:
        return ["parameters" if path == "parameters_json" else path for path in request.update_mask.paths]
    paths = []
    for field, value in request.agent_config.ListFields():
        if field.name in GROUPS:
            paths += [f"{field.name}.{inner.name}" for inner, _ in value.ListFields()]
        elif field.name not in NOT_WRITABLE:
            paths.append("parameters" if field.name == "parameters_json" else field.name)
    return paths


def template_of(template: templates_pb.Template) -> Template:
    """Returns a template that is to be published; raises as `object_of`."""
    return Template(
        id=template.id,
        version=template.version,
        description=template.description,
        parameters_schema=object_of(template.parameters_schema, "template.parameters_schema"),
        create_time=datetime.min.replace(tzinfo=UTC),
        placeholders=_placeholders_of(template.placeholders) if template.HasField("placeholders") else None,
    )


def provider_of(provider: providers_pb.Provider) -> Provider:
    """Returns a provider that is to be published."""
    return Provider(provider.name, tuple(provider.models))


def agent_to_proto(agent: AgentConfig) -> agents_pb.AgentConfig:
    """Returns the message of one snapshot. One that is not stored (no uid) has neither uid nor etag nor times."""
    spec = agent.spec
    message = agents_pb.AgentConfig(
        project=agent.project,
        id=agent.id,
        display_name=spec.display_name,
        template_id=spec.template_id,
        template_version=spec.template_version,
        instructions=spec.instructions,
        model=_model_to_proto(spec.model),
        labels=spec.labels,
        metadata_keys=spec.metadata_keys,
        revision=agent.revision,
    )
    if spec.parameters:
        message.parameters.CopyFrom(struct(spec.parameters))
        message.parameters_json = text_unless_exact(spec.parameters)
    _fill_policies(message, spec)
    fill_tools(message, spec)
    if agent.uid:
        message.uid = agent.uid
        message.etag = agent.etag
        for name in ("create_time", "update_time", "delete_time", "purge_time"):
            if (time := getattr(agent, name)) is not None:
                getattr(message, name).FromDatetime(time)
    return message


def revision_to_proto(agent: AgentConfig, revision: Revision) -> agents_pb.AgentConfigRevision:
    """Returns the message of a revision of `agent`."""
    snapshot = AgentConfig(
        agent.project,
        agent.id,
        agent.uid,
        revision.spec,
        revision.number,
        agent.create_time,
        revision.create_time,
    )
    return agents_pb.AgentConfigRevision(
        agent_config=agent_to_proto(snapshot),
        author=revision.author,
        comment=revision.comment,
        create_time=timestamp(revision.create_time),
        changed_fields=revision.changed_fields,
    )


def event_to_proto(event: FeedEvent) -> service_pb.WatchAgentConfigsResponse:
    """Returns the message of a change or a heartbeat."""
    message = service_pb.WatchAgentConfigsResponse(cursor=event.cursor, time=timestamp(event.time))
    if event.change is not None:
        message.change_type = _CHANGE_TYPES[event.change.type]
        message.agent_config.CopyFrom(agent_to_proto(event.change.agent_config))
    return message


def template_to_proto(template: Template) -> templates_pb.Template:
    """Returns the message of a published template."""
    message = templates_pb.Template(
        id=template.id,
        version=template.version,
        description=template.description,
        parameters_schema=struct(template.parameters_schema),
        create_time=timestamp(template.create_time),
    )
    if template.placeholders is not None:
        message.placeholders.parameters = template.placeholders.parameters
        message.placeholders.session_metadata = template.placeholders.session_metadata
        message.placeholders.names.extend(template.placeholders.names)
    return message


def provider_to_proto(provider: Provider) -> providers_pb.Provider:
    """Returns the message of a provider."""
    return providers_pb.Provider(name=provider.name, models=provider.models)


def difference_to_proto(difference: Difference) -> agents_pb.FieldDifference:
    """Returns the message of a field that differs; a value that is not set is left out."""
    message = agents_pb.FieldDifference(path=difference.path)
    if difference.before is not NOT_SET:
        message.from_value.CopyFrom(_value(difference.before))
        message.from_json = text_unless_exact(difference.before)
    if difference.after is not NOT_SET:
        message.to_value.CopyFrom(_value(difference.after))
        message.to_json = text_unless_exact(difference.after)
    return message


def history_of(number: int) -> str | None:
    """Returns the name of a history policy; an unknown number becomes a name that the rule rejects."""
    return HISTORY_POLICIES.get(number, str(number)) if number else None


def history_number(name: str) -> agents_pb.HistoryPolicy.ValueType:
    """Returns the number of a history policy that is stored; what a later release has stored is left out."""
    known = name in set(HistoryPolicy)
    return HISTORY_POLICY_NUMBERS[HistoryPolicy(name)] if known else agents_pb.HISTORY_POLICY_UNSPECIFIED


def timestamp(time: datetime) -> Timestamp:
    """Returns the message of a time."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def _placeholders_of(placeholders: templates_pb.Placeholders) -> Placeholders:
    return Placeholders(placeholders.parameters, placeholders.session_metadata, tuple(placeholders.names))


def _value(value: Any) -> Value:
    """Returns a field's value as JSON has it (ProtoJSON: durations and large whole numbers are text)."""
    if isinstance(value, timedelta):
        duration = Duration()
        duration.FromTimedelta(value)
        value = duration.ToJsonString()
    elif isinstance(value, tuple):
        value = [_entry_json(one) for one in value]
    elif isinstance(value, int) and abs(value) > EXACT:
        value = str(value)
    return ParseDict(value, Value())


def _entry_json(entry: Any) -> Any:
    if isinstance(entry, AgentTool):
        return entry.encoded()
    return _fallback_json(entry) if isinstance(entry, ModelFallback) else entry


def _fallback_json(fallback: ModelFallback) -> dict[str, Any]:
    also_on = {"also_on": list(fallback.also_on)} if fallback.also_on else {}
    said: dict[str, Any] = {name: getattr(fallback, name) for name in SAMPLING_FIELDS}
    said = {name: list(value) if name == "stop" else value for name, value in said.items() if value not in (None, ())}
    if abs(said.get("seed", 0)) > EXACT:
        said["seed"] = str(said["seed"])
    return {"provider": fallback.provider, "name": fallback.name, **also_on, **said}


def _sampling_of(model: agents_pb.ModelConfig | agents_pb.ModelFallback) -> dict[str, Any]:
    return {name: tuple(model.stop) if name == "stop" else set_or_none(model, name) for name in SAMPLING_FIELDS}


def _sampling_to_proto(model: ModelConfig | ModelFallback) -> dict[str, Any]:
    return {name: getattr(model, name) for name in SAMPLING_FIELDS}


def _model_of(model: agents_pb.ModelConfig) -> ModelConfig:
    return ModelConfig(
        provider=model.provider,
        name=model.name,
        **_sampling_of(model),
        fallbacks=tuple(
            ModelFallback(
                # A number that is none of ours breaks the rule by its name.
                one.provider,
                one.name,
                tuple(FALLBACK_TRIGGERS.get(number, str(number)) for number in one.also_on),
                **_sampling_of(one),
            )
            for one in model.fallbacks[: MAX_FALLBACKS + 1]  # one more, and there are too many
        ),
        extra={
            name: json_value_of(text, f"agent_config.model.extra.{name[:80]}", maximum=MAX_EXTRA_BYTES)
            for name, text in itertools.islice(model.extra.items(), MAX_EXTRA_FIELDS + 1)
        },
    )


def _model_to_proto(model: ModelConfig) -> agents_pb.ModelConfig:
    return agents_pb.ModelConfig(
        provider=model.provider,
        name=model.name,
        **_sampling_to_proto(model),
        fallbacks=[
            agents_pb.ModelFallback(
                provider=one.provider,
                name=one.name,
                # What a later release has stored is left out: this one can't act on it.
                also_on=[FALLBACK_TRIGGER_NUMBERS[trigger] for trigger in FallbackTrigger if trigger in one.also_on],
                **_sampling_to_proto(one),
            )
            for one in model.fallbacks
        ],
        extra={name: canonical(value) for name, value in model.extra.items()},
    )


def _fill_policies(message: agents_pb.AgentConfig, spec: AgentSpec) -> None:
    if spec.memory.max_messages is not None:
        message.memory.max_messages = spec.memory.max_messages
    if spec.memory.max_parts is not None:
        message.memory.max_parts = spec.memory.max_parts
    if spec.session.idle_ttl is not None:
        message.session.idle_ttl.FromTimedelta(spec.session.idle_ttl)
    if spec.session.max_lifetime is not None:
        message.session.max_lifetime.FromTimedelta(spec.session.max_lifetime)
    if spec.limits.max_concurrent_turns is not None:
        message.limits.max_concurrent_turns = spec.limits.max_concurrent_turns
    if spec.limits.turn_timeout is not None:
        message.limits.turn_timeout.FromTimedelta(spec.limits.turn_timeout)
    if spec.limits.requests_per_minute is not None:
        message.limits.requests_per_minute = spec.limits.requests_per_minute
    if spec.requests.store is not None:
        message.requests.store = spec.requests.store
    if spec.requests.history is not None:
        message.requests.history = history_number(spec.requests.history)
    if spec.requests.overridable is not None:
        message.requests.overridable.CopyFrom(agents_pb.FieldNames(names=spec.requests.overridable))
