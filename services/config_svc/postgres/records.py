"""The JSON columns beside a revision's content: whole agent configs in the outbox, placeholders, providers.

Readers ignore keys that they don't know, so that an older release runs on what a newer one wrote.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from config_svc.model.agent import AgentConfig
from config_svc.model.provider import Provider
from config_svc.model.rules import Json
from config_svc.model.spec_json import EncodedAgent, decode_spec
from config_svc.model.template import Placeholders
from contract.json_numbers import normalized_number


def encode_agent(encoded: EncodedAgent) -> dict[str, Json]:
    """Returns the stored form of a whole agent config."""
    agent = encoded.agent
    times = {
        name: getattr(agent, name).isoformat()
        for name in ("create_time", "update_time", "delete_time", "purge_time")
        if getattr(agent, name) is not None
    }
    return {
        "project": agent.project,
        "id": agent.id,
        "uid": agent.uid,
        "spec": encoded.spec,
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


def load_json(text: str | bytes) -> Any:
    """Parses stored JSON; numbers come back as they were, though PostgreSQL writes 1e+300 with 301 digits."""
    return json.loads(text, parse_int=lambda digits: normalized_number(int(digits)))
