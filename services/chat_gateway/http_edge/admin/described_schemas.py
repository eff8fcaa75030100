"""The schemas of the OpenAPI document: fields always present in responses, and fields of requests."""

from typing import Any, Final

from chat_gateway.http_edge.admin.access.caller import AuthJson, CallerJson, IssuerJson
from chat_gateway.http_edge.admin.access.schema import (
    ApiKeyJson,
    ApiKeyLimitsJson,
    AuditEventJson,
    NewApiKeyJson,
    NewProjectJson,
    ProjectJson,
    RotatedJson,
    RotateJson,
)
from chat_gateway.http_edge.admin.agents.schema import (
    AgentJson,
    ComparisonJson,
    ModelCardJson,
    ProviderJson,
    RevisionJson,
    RollbackJson,
    TemplateJson,
    UndeleteJson,
)
from chat_gateway.http_edge.admin.completions.preview import PromptJson, PromptMessage
from chat_gateway.http_edge.admin.completions.schema import (
    CompletionDeleted,
    CompletionList,
    CompletionPatch,
    MessageList,
    StoredCompletion,
    StoredMessage,
)
from chat_gateway.http_edge.admin.described_rules import PARAMETERS, SCHEMAS, with_rules
from chat_gateway.http_edge.admin.figures import (
    FiguresJson,
    ProviderFiguresJson,
    ReplicaJson,
    ReplicaList,
    SampleJson,
    ServiceReplicaJson,
)
from chat_gateway.http_edge.admin.process import Alive, EvictBody, Evicted, InstanceJson, Ready
from chat_gateway.http_edge.admin.sessions.schema import (
    ErasureJson,
    ForkBody,
    PurgeBody,
    Purged,
    SessionJson,
    SessionMessageJson,
    SessionPatch,
    UserJson,
)
from chat_gateway.http_edge.admin.tool_servers.schema import (
    OfferedToolJson,
    ToolServerJson,
    ToolServerRevisionJson,
    ToolServerTestJson,
)
from chat_gateway.http_edge.openai.chat.schema import ChatCompletion, ChatCompletionRequest
from chat_gateway.http_edge.openai.conversations.schema import (
    Conversation,
    ConversationDeleted,
    ConversationPatch,
    NewConversation,
    NewItems,
)
from chat_gateway.http_edge.openai.embeddings.schema import EmbeddingList, EmbeddingsRequest
from chat_gateway.http_edge.openai.responses.answer_schema import CompactedResponse, ItemList, Response, ResponseDeleted
from chat_gateway.http_edge.openai.responses.request_schema import CompactionRequest, ResponseRequest
from chat_gateway.http_edge.wire.errors import ErrorBody

Schema = dict[str, Any]

REQUESTS: Final = [
    ChatCompletionRequest,
    EmbeddingsRequest,
    ResponseRequest,
    CompactionRequest,
    NewConversation,
    ConversationPatch,
    NewItems,
    CompletionPatch,
    RollbackJson,
    UndeleteJson,
    SessionPatch,
    ForkBody,
    PurgeBody,
    EvictBody,
    NewProjectJson,
    NewApiKeyJson,
    ApiKeyLimitsJson,
    RotateJson,
    UserJson,
]
ANSWERS: Final = [
    ChatCompletion,
    PromptJson,
    PromptMessage,
    EmbeddingList,
    Response,
    CompactedResponse,
    ItemList,
    ResponseDeleted,
    Conversation,
    ConversationDeleted,
    StoredCompletion,
    CompletionList,
    CompletionDeleted,
    StoredMessage,
    MessageList,
    ErrorBody,
    AuthJson,
    IssuerJson,
    CallerJson,
    AgentJson,
    RevisionJson,
    ComparisonJson,
    TemplateJson,
    ProviderJson,
    ModelCardJson,
    ToolServerJson,
    ToolServerRevisionJson,
    OfferedToolJson,
    ToolServerTestJson,
    SessionJson,
    SessionMessageJson,
    Purged,
    FiguresJson,
    ProviderFiguresJson,
    SampleJson,
    ReplicaJson,
    ReplicaList,
    ServiceReplicaJson,
    InstanceJson,
    Evicted,
    Ready,
    Alive,
    ProjectJson,
    ApiKeyJson,
    RotatedJson,
    AuditEventJson,
    ErasureJson,
]
"""Described by msgspec, which includes the docstrings of the classes, as the framework does not."""

_RESOURCES = {"Agent": ("agent", "An agent config"), "ToolServer": ("tool_server", "A tool server")}
"""What is written and read in different schemas: the name in operations, and in words."""

BODIES: Final = {
    f"{verb}_{operation}": f"{name}{kind}"
    for name, (operation, _) in _RESOURCES.items()
    for verb, kind in (("create", "Input"), ("replace", "Input"), ("patch", "Patch"))
}
"""What callers write of these, by the operation that takes it."""

_OUTPUT_ONLY = frozenset({"object", "uid", "revision", "create_time", "update_time", "delete_time", "purge_time"})
_ALWAYS = dict.fromkeys(_RESOURCES, ("uid", "revision"))
"""Fields that every answer has, and requests lack."""
_INPUT = "{} to store. What an answer has beyond this is output only, and ignored in requests (AIP-203)."
_PATCH = "{}: fields to change, as a JSON merge patch (RFC 7396): objects merge, null clears."


def describe_schemas(schemas: dict[str, Schema]) -> None:
    """Completes the schemas of the classes: the bodies of resources, required fields of answers, rules of requests.

    No field keeps a default: generators would have clients send it, or take it for something that must be sent.
    """
    for resource, (_, words) in _RESOURCES.items():
        whole = schemas[resource]
        given = {name: field for name, field in whole["properties"].items() if name not in _OUTPUT_ONLY}
        patched = given | {"labels": given["labels"] | {"additionalProperties": {"type": "string", "nullable": True}}}
        for kind, text, fields in (("Input", _INPUT, given), ("Patch", _PATCH, patched)):
            name = f"{resource}{kind}"
            schemas[name] = whole | {"title": name, "description": text.format(words), "properties": dict(fields)}
    answers = {kind.__name__.removesuffix("Json") for kind in ANSWERS}
    for name, schema in schemas.items():
        schema["title"] = name  # generators call classes by it
        if name in answers or name.endswith("List"):
            _require_all(schema)
        rules = SCHEMAS.get("AgentInput" if name == "AgentPatch" else name, {})
        properties = schema.get("properties", {})
        for field, described in properties.items():
            properties[field] = with_rules(_without(described, "default"), rules.get(field, {}))


def parameter_schema(name: str, schema: Schema) -> Schema:
    """Returns the schema of a parameter: it may be left out, so it is never null."""
    left = ("nullable", "description", *(("default",) if schema.get("default") in ("", None) else ()))
    return with_rules(_without(schema, *left), PARAMETERS.get(name, {}))


def _require_all(schema: Schema) -> None:
    """An answer has every field with a default, and may have more in a later release."""
    properties, required = schema["properties"], {*schema.get("required", ()), *_ALWAYS.get(schema["title"], ())}
    for name, field in properties.items():
        if "default" in field:
            properties[name] = _without(field, "nullable")
            required.add(name)
    schema["required"] = [name for name in properties if name in required]
    schema.pop("additionalProperties", None)


def _without(schema: Schema, *names: str) -> Schema:
    return {key: value for key, value in schema.items() if key not in names}
