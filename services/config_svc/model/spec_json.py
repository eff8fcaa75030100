"""The JSON form of an agent config's content. It is what is stored, what is audited, and what requests are compared by.

A write makes it once and hands it on (`EncodedAgent`).
"""

import hashlib
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Self

from config_svc.model.agent import (
    SAMPLING_FIELDS,
    AgentConfig,
    AgentLimits,
    AgentSpec,
    MemoryPolicy,
    ModelConfig,
    ModelFallback,
    RequestPolicy,
    SessionPolicy,
)
from config_svc.model.json_form import decoded
from config_svc.model.rules import Json, canonical
from config_svc.model.tools import AgentTool, ToolPolicy

_GROUPS: dict[str, type[Any]] = {
    "model": ModelConfig,
    "memory": MemoryPolicy,
    "session": SessionPolicy,
    "limits": AgentLimits,
    "tool_policy": ToolPolicy,
    "requests": RequestPolicy,
}
_TUPLES = frozenset({"stop", "overridable"})
_DURATIONS = frozenset({"idle_ttl", "max_lifetime", "turn_timeout", "call_timeout"})
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class EncodedAgent:
    """An agent config beside the JSON form of its content, which must not be changed."""

    agent: AgentConfig
    spec: dict[str, Json]

    @classmethod
    def of(cls, agent: AgentConfig) -> Self:
        """Encodes the content of `agent`."""
        return cls(agent, encode_spec(agent.spec))

    def with_agent(self, agent: AgentConfig) -> "EncodedAgent":
        """Returns another state of the agent config, with the same content."""
        return replace(self, agent=agent)


def encode_spec(spec: AgentSpec) -> dict[str, Json]:
    """Returns the JSON form of a revision's content, with set fields only."""
    encoded: dict[str, Json] = {}
    for member in fields(spec):
        value = getattr(spec, member.name)
        if member.name in _GROUPS:
            value = {
                inner.name: _encode(inner.name, getattr(value, inner.name))
                for inner in fields(value)
                if _is_set(inner.name, getattr(value, inner.name))
            }
        elif member.name == "tools":
            value = [one.encoded() for one in value]
        if value:
            encoded[member.name] = list(value) if isinstance(value, tuple) else value
    return encoded


def decode_spec(encoded: dict[str, Any]) -> AgentSpec:
    """Returns a revision's content from its JSON form; keys that this release doesn't know are ignored."""
    values: dict[str, Any] = {}
    for member in fields(AgentSpec):
        if member.name not in encoded:
            continue
        value = encoded[member.name]
        group = _GROUPS.get(member.name)
        if group is not None:
            known = {inner.name for inner in fields(group)}
            value = group(**{name: _decode(name, one) for name, one in value.items() if name in known})
        elif member.name == "metadata_keys":
            value = tuple(value)
        elif member.name == "tools":
            value = tuple(decoded(AgentTool, one) for one in value)
        values[member.name] = value
    return AgentSpec(**values)


def with_template(spec: dict[str, Json], content: AgentSpec) -> dict[str, Json]:
    """Returns the JSON form of `content`, which differs from what `spec` was made of in its template alone."""
    return {**spec, "template_id": content.template_id, "template_version": content.template_version}


def fingerprint(agent_id: str, spec: dict[str, Json], comment: str) -> str:
    """Returns a digest of a create request with the JSON form `spec`: equal for equal requests only."""
    text = canonical({"id": agent_id, "spec": spec, "comment": comment})
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def _is_set(name: str, value: Any) -> bool:
    return value is not None if name == "overridable" else value not in (None, "", (), {})


def _encode(name: str, value: Any) -> Any:
    if name in _DURATIONS:
        return value // _MICROSECOND
    if name in _TUPLES:
        return list(value)
    if name == "fallbacks":
        return [_encode_fallback(one) for one in value]
    return str(value) if name == "seed" else value


def _decode(name: str, value: Any) -> Any:
    if name in _DURATIONS:
        return value * _MICROSECOND
    if name in _TUPLES:
        return tuple(value)
    if name == "fallbacks":
        return tuple(map(_decode_fallback, value))
    return int(value) if name == "seed" else value


def _encode_fallback(fallback: ModelFallback) -> dict[str, Json]:
    encoded: dict[str, Json] = {"provider": fallback.provider, "name": fallback.name}
    if fallback.also_on:
        encoded["also_on"] = list(fallback.also_on)
    said = {name: getattr(fallback, name) for name in SAMPLING_FIELDS}
    return encoded | {name: _encode(name, value) for name, value in said.items() if _is_set(name, value)}


def _decode_fallback(one: dict[str, Any]) -> ModelFallback:
    said = {name: _decode(name, one[name]) for name in SAMPLING_FIELDS if name in one}
    return ModelFallback(one.get("provider", ""), one.get("name", ""), tuple(one.get("also_on", ())), **said)
