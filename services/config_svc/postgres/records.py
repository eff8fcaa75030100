"""How agent configs are stored: as JSON in which only what is set stands.

Readers ignore keys that they don't know, so that an older release runs on what a newer one wrote.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from config_svc.model.agent import AgentConfig, AgentLimits, AgentSpec, MemoryPolicy, ModelConfig, SessionPolicy
from config_svc.model.provider import Provider
from config_svc.model.rules import Json, canonical
from config_svc.model.template import Placeholders

_GROUPS: dict[str, type[Any]] = {
    "model": ModelConfig,
    "memory": MemoryPolicy,
    "session": SessionPolicy,
    "limits": AgentLimits,
}
_DURATIONS = frozenset({"idle_ttl", "max_lifetime", "turn_timeout"})
_MICROSECOND = timedelta(microseconds=1)
_EXACT = 2**53
"""Larger whole numbers of JSON parameters were floats all along; `seed` is stored as text to stay exact."""


def encode_spec(spec: AgentSpec) -> dict[str, Json]:
    """Returns the stored form of a revision's content."""
    encoded: dict[str, Json] = {}
    for member in fields(spec):
        value = getattr(spec, member.name)
        if member.name in _GROUPS:
            value = {
                inner.name: _encode(inner.name, getattr(value, inner.name))
                for inner in fields(value)
                if getattr(value, inner.name) not in (None, "", ())
            }
        if value:
            encoded[member.name] = list(value) if isinstance(value, tuple) else value
    return encoded


def decode_spec(encoded: dict[str, Any]) -> AgentSpec:
    """Returns a revision's content from its stored form."""
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
        values[member.name] = value
    return AgentSpec(**values)


def encode_agent(agent: AgentConfig) -> dict[str, Json]:
    """Returns the stored form of a whole agent config."""
    times = {
        name: getattr(agent, name).isoformat()
        for name in ("create_time", "update_time", "delete_time", "purge_time")
        if getattr(agent, name) is not None
    }
    return {
        "project": agent.project,
        "id": agent.id,
        "uid": agent.uid,
        "spec": encode_spec(agent.spec),
        "revision": agent.revision,
        **times,
    }


def decode_agent(encoded: dict[str, Any]) -> AgentConfig:
    """Returns a whole agent config from its stored form."""
    times = {
        name: datetime.fromisoformat(encoded[name])
        for name in ("create_time", "update_time", "delete_time", "purge_time")
        if name in encoded
    }
    return AgentConfig(
        project=encoded["project"],
        id=encoded["id"],
        uid=encoded["uid"],
        spec=decode_spec(encoded["spec"]),
        revision=encoded["revision"],
        **times,
    )


def encode_placeholders(placeholders: Placeholders | None) -> dict[str, Json] | None:
    """Returns the stored form of what a template fills placeholders with."""
    if placeholders is None:
        return None
    return {
        "parameters": placeholders.parameters,
        "session_metadata": placeholders.session_metadata,
        "names": list(placeholders.names),
    }


def decode_placeholders(encoded: dict[str, Any] | None) -> Placeholders | None:
    """Returns what a template fills placeholders with from its stored form."""
    if encoded is None:
        return None
    return Placeholders(encoded["parameters"], encoded["session_metadata"], tuple(encoded["names"]))


def encode_providers(providers: Sequence[Provider]) -> list[Json]:
    """Returns the stored form of a gateway's providers."""
    return [{"name": one.name, "models": list(one.models)} for one in providers]


def decode_providers(encoded: list[dict[str, Any]]) -> tuple[Provider, ...]:
    """Returns a gateway's providers from their stored form."""
    return tuple(Provider(one["name"], tuple(one["models"])) for one in encoded)


def fingerprint(agent_id: str, spec: AgentSpec, comment: str) -> str:
    """Returns what stands for the content of a create request: equal for equal requests only."""
    text = canonical({"id": agent_id, "spec": encode_spec(spec), "comment": comment})
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def load_json(text: str | bytes) -> Any:
    """Parses stored JSON; numbers come back as they were, though PostgreSQL writes 1e+300 with 301 digits."""
    return json.loads(text, parse_int=_number)


def _number(digits: str) -> int | float:
    whole = int(digits)
    return whole if abs(whole) <= _EXACT else float(whole)


def _encode(name: str, value: Any) -> Any:
    if name in _DURATIONS:
        return value // _MICROSECOND
    if name == "stop":
        return list(value)
    return str(value) if name == "seed" else value


def _decode(name: str, value: Any) -> Any:
    if name in _DURATIONS:
        return value * _MICROSECOND
    if name == "stop":
        return tuple(value)
    return int(value) if name == "seed" else value
