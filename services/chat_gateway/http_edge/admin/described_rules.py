"""Patterns and ranges of request fields for the OpenAPI document.

They are checked where they belong, in the models of the services; `tests/system/test_openapi_rules.py` holds this page
against them.
"""

from typing import Any, Final

from access.caller import KEY_SCOPES
from chat_gateway.model.turn import OnDisconnect
from contract.enums import BusyPolicy, HistoryPolicy, Role
from contract.fields import (
    MAX_METADATA_PAIRS,
    MAX_METADATA_VALUE,
    RESOURCE_ID_PATTERN,
    SESSION_ID_PATTERN,
    USER_ID_PATTERN,
)

Rules = dict[str, Any]

_RESOURCE_ID: Rules = {"pattern": f"^{RESOURCE_ID_PATTERN}$"}
_SESSION_ID: Rules = {"pattern": f"^{SESSION_ID_PATTERN}$"}
_USER_ID: Rules = {"pattern": f"^{USER_ID_PATTERN}$"}
_DURATION: Rules = {"pattern": r"^[0-9]{1,12}(\.[0-9]{1,9})?s$", "example": "1800s"}
_TIME: Rules = {"format": "date-time"}
_NAME: Rules = {"maxLength": 200}
_COMMENT: Rules = {"maxLength": 1000}
_METADATA: Rules = {
    "maxProperties": MAX_METADATA_PAIRS,
    "additionalProperties": {"type": "string", "maxLength": MAX_METADATA_VALUE},
}
_TEMPERATURE: Rules = {"minimum": 0, "maximum": 2}
_TOP_P: Rules = {"minimum": 0, "exclusiveMinimum": True, "maximum": 1}
_PENALTY: Rules = {"minimum": -2, "maximum": 2}
_ONE_OR_MORE: Rules = {"minimum": 1}
_MODEL_SAMPLING: dict[str, Rules] = {
    "temperature": _TEMPERATURE,
    "top_p": _TOP_P,
    "max_output_tokens": _ONE_OR_MORE,
    "stop": {"maxItems": 4},
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
}

PARAMETERS: Final[dict[str, Rules]] = {
    "agent_id": _RESOURCE_ID,
    "project_id": _RESOURCE_ID,
    "session_id": _SESSION_ID,
    "user_id": _USER_ID,
    "comment": _COMMENT,
    "start_time": _TIME,
    "end_time": _TIME,
    "X-Project-ID": _RESOURCE_ID,
    "X-User-ID": _USER_ID,
    "X-Session-ID": _SESSION_ID,
}
"""By name, in paths, queries and headers alike. (A key of an agent's creation is a UUID, one of a turn is any text.)"""

SCHEMAS: Final[dict[str, dict[str, Rules]]] = {
    "AgentInput": {
        "id": _RESOURCE_ID,
        "name": _NAME,
        "template_id": _RESOURCE_ID,
        "template_version": {"maxLength": 32},
        "instructions": {"maxLength": 64 * 1024},
        "labels": {"maxProperties": 64, "additionalProperties": {"type": "string", "maxLength": 256}},
        "metadata_keys": {"maxItems": 64},
    },
    "Model": {
        "provider": {"minLength": 1, "maxLength": 63},
        "name": {"minLength": 1, "maxLength": 200},
        **_MODEL_SAMPLING,
        "fallbacks": {"maxItems": 4},
    },
    "Fallback": {
        "provider": {"minLength": 1, "maxLength": 63},
        "name": {"minLength": 1, "maxLength": 200},
        **_MODEL_SAMPLING,
    },
    "Memory": {"max_messages": {"minimum": 0, "maximum": 1000}},
    "SessionPolicy": {"idle_ttl": _DURATION, "max_lifetime": _DURATION},
    "Limits": {
        "max_concurrent_turns": {"minimum": 1, "maximum": 100_000},
        "turn_timeout": _DURATION,
        "requests_per_minute": {"minimum": 1, "maximum": 1_000_000},
    },
    "Rollback": {"revision": _ONE_OR_MORE, "comment": _COMMENT},
    "Undelete": {"id": _RESOURCE_ID},
    "NewProject": {"id": _RESOURCE_ID, "display_name": _NAME},
    "NewApiKey": {
        "scopes": {"minItems": 1, "items": {"type": "string", "enum": sorted(KEY_SCOPES)}},
        "project": _RESOURCE_ID,
        "user_id": _USER_ID,
        "expire_time": _TIME,
        "display_name": _NAME,
    },
    "Rotate": {"overlap": _DURATION},
    "SessionPatch": {"idle_ttl": _DURATION, "metadata": {"maxProperties": MAX_METADATA_PAIRS}},
    "ForkBody": {"id": _SESSION_ID},
    "PurgeBody": {"agent_id": _RESOURCE_ID, "user_id": _USER_ID, "idle_longer_than": _DURATION},
    "EvictBody": {"agent_id": _RESOURCE_ID},
    "User": {"user_id": _USER_ID},
    "ChatCompletionRequest": {
        "messages": {"minItems": 1},
        "temperature": _TEMPERATURE,
        "top_p": _TOP_P,
        "max_tokens": _ONE_OR_MORE,
        "max_completion_tokens": _ONE_OR_MORE,
        "presence_penalty": _PENALTY,
        "frequency_penalty": _PENALTY,
        "tools": {"maxItems": 128},
        "metadata": _METADATA,
        "session_id": _SESSION_ID,
        "user_id": _USER_ID,
        "busy": {"enum": list(BusyPolicy)},
        "history": {"enum": list(HistoryPolicy)},
        "on_disconnect": {"enum": list(OnDisconnect)},
    },
    "EmbeddingsRequest": {"encoding_format": {"enum": ["float", "base64"]}, "dimensions": _ONE_OR_MORE},
    "ChatMessage": {"role": {"enum": ["developer", *Role]}},
}
"""By schema and property."""


def with_rules(schema: Rules, rules: Rules) -> Rules:
    """Returns a schema that states the rules, too: a reference, and what has branches, as it is."""
    if not rules or {"$ref", "allOf", "oneOf", "anyOf"} & schema.keys():
        return schema
    # Null is one of an enumeration's values, or none: generators make types of their own of it.
    return {key: value for key, value in schema.items() if key != "nullable" or "enum" not in rules} | rules
