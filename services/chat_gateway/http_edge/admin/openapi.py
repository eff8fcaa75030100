"""The OpenAPI document: the framework's own, chat completions added, written as 3.0 for Swagger UI 4."""

import re
from typing import Any

import msgspec
from litestar import Litestar
from litestar.openapi.config import OpenAPIConfig
from litestar.routes import HTTPRoute

from access.caller import CHAT
from chat_gateway.http_edge.admin.completions.preview import PREVIEW_PATH, preview_operation
from chat_gateway.http_edge.admin.described_schemas import (
    ANSWERS,
    BODIES,
    REQUESTS,
    describe_schemas,
    parameter_schema,
)
from chat_gateway.http_edge.admin.responses.compact import COMPACT_PATH, compact_operation
from chat_gateway.http_edge.admin.routing import JSON_LINES, VERB, JsonLines
from chat_gateway.http_edge.openai.chat.operation import CHAT_PATH, chat_operation
from chat_gateway.http_edge.openai.embeddings.operation import EMBEDDINGS_PATH, embeddings_operation
from chat_gateway.http_edge.openai.responses.operation import RESPONSES_PATH, responses_operation
from chat_gateway.http_edge.wire.auth import FRAMEWORK_PATH, OPEN
from chat_gateway.http_edge.wire.openapi import SCHEMA_REF, error_response

CONFIG = OpenAPIConfig(
    title="Parley",
    version="1",
    description="LLM agents: their configuration, their sessions, and turns with them by OpenAI's chat completions.",
    use_handler_docstrings=True,
    operation_id_creator=lambda handler, method, path: handler.handler_name,
    path=FRAMEWORK_PATH,
)
"""How the framework describes the routes that it serves."""

_PAGE_NAME = re.compile(rb"Page_[\w.]+\.(\w+)Json_")
_SCHEMA_NAME = re.compile(rb"\b([A-Z]\w+)Json\b")
"""The framework's name of a page of them, and our suffix: neither means anything to a reader."""

_ACCESS_ERRORS = {
    "401": "There are no credentials, or none that are valid.",
    "403": "The credentials do not carry the scope, or are for another project or user.",
}
_ADMIN_ERRORS = {
    "400": "The request is not valid.",
    "404": "The resource does not exist.",
    "409": "It already exists, or was changed meanwhile.",
    "503": "A part of the service that the request needs is unavailable.",
    "default": "Any other error.",
}


def document(app: Litestar, *, authenticated: bool) -> bytes:
    """Returns the JSON document of all routes; that credentials are needed, only where they are."""
    whole = app.openapi_schema.to_schema()
    whole["paths"] = {path.replace(f"/{VERB}", ":"): item for path, item in whole["paths"].items()}
    openai = {
        CHAT_PATH: chat_operation(),
        PREVIEW_PATH: preview_operation(),
        RESPONSES_PATH: responses_operation(),
        COMPACT_PATH: compact_operation(),
        EMBEDDINGS_PATH: embeddings_operation(),
    }
    for path, operation in openai.items():
        whole["paths"].setdefault(path, {})["post"] = operation
    _, schemas = msgspec.json.schema_components([*REQUESTS, *ANSWERS], ref_template=SCHEMA_REF)
    whole["components"]["schemas"].update(schemas)
    text = msgspec.json.encode(_as_3_0(whole) | {"openapi": "3.0.3"})
    whole = msgspec.json.decode(_SCHEMA_NAME.sub(rb"\1", _PAGE_NAME.sub(rb"\1List", text)))
    options = _options(app) | {(path, "post"): {"scope": CHAT} for path in openai}
    for path, item in whole["paths"].items():
        for method, operation in item.items():
            option = options[path, method]
            if (path, method) not in {(path, "post") for path in openai}:
                _describe_errors(operation, path)
            _describe_operation(operation, path, option.get("json_lines"))
            _describe_access(operation, option["scope"], option.get("or_scope", ""), authenticated=authenticated)
    describe_schemas(whole["components"]["schemas"])
    if authenticated:
        whole["components"]["securitySchemes"] = {"api_key": {"type": "http", "scheme": "bearer"}}
    return msgspec.json.encode(whole)


def _options(app: Litestar) -> dict[tuple[str, str], dict[str, Any]]:
    """The options of each route, such as the scope that it needs, by path as it is written and method in lower case."""
    return {
        (route.path_format.replace(f"/{VERB}", ":"), method.lower()): handler.opt
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if "scope" in handler.opt
        for method in handler.http_methods
    }


def _describe_errors(operation: dict[str, Any], path: str) -> None:
    responses = operation["responses"]
    responses.pop("400", None)  # the framework's own form, which we never answer with
    errors = _ADMIN_ERRORS if path.startswith("/v1/") else {"default": _ADMIN_ERRORS["default"]}
    responses |= {status: error_response(text) for status, text in errors.items()}


def _describe_operation(operation: dict[str, Any], path: str, json_lines: JsonLines | None) -> None:
    area = path.removeprefix("/v1/") if path.startswith("/v1/") else "process"
    operation["tags"] = [re.split("[/:]", area)[0]]
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = parameter_schema(parameter["name"], parameter["schema"])
    if body := BODIES.get(operation["operationId"]):
        operation["requestBody"]["content"]["application/json"]["schema"] = {"$ref": SCHEMA_REF.format(name=body)}
    if json_lines is not None:
        content = operation["responses"]["200"]["content"]
        if json_lines is JsonLines.ONLY:
            content.clear()
        content[JSON_LINES] = {"schema": {"type": "string", "description": "One JSON value a line."}}


def _describe_access(operation: dict[str, Any], scope: str, or_scope: str, *, authenticated: bool) -> None:
    operation["x-parley-scope"] = scope
    scopes = f"`{scope}`"
    if or_scope:
        operation["x-parley-or-scope"] = or_scope
        scopes = f"{scopes} or `{or_scope}`"
    if scope != OPEN:
        operation["description"] = f"{operation.get('description', '')}\n\nScope: {scopes}.".strip()
    if not authenticated:
        return
    operation["security"] = [] if scope == OPEN else [{"api_key": []}]
    if scope != OPEN:
        operation["responses"] |= {status: error_response(text) for status, text in _ACCESS_ERRORS.items()}


def _as_3_0(node: Any) -> Any:
    """Rewrites what 3.0 can't say: null as a type, const, lists of anything, and no required fields."""
    if isinstance(node, list):
        return [_as_3_0(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _as_3_0(value) for key, value in node.items()}
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if isinstance(node.get("type"), list):
        kinds = [kind for kind in node.pop("type") if kind != "null"]
        node |= {"nullable": True} | ({"type": kinds[0]} if len(kinds) == 1 else {})
    if node.get("type") == "array":
        node.setdefault("items", {})
    if node.get("required") == []:
        del node["required"]
    if node.get("type") == "null":
        return {"nullable": True}
    for union in ("oneOf", "anyOf"):
        _flatten(node, union)
    return node


def _flatten(node: dict[str, Any], union: str) -> None:
    branches = node.get(union)
    if not isinstance(branches, list):
        return
    kept = [branch for branch in branches if branch != {"nullable": True}]
    if len(kept) < len(branches):
        node["nullable"] = True
    if len(kept) > 1:
        node[union] = kept
        return
    del node[union]
    for branch in kept:
        if "$ref" in branch and node:
            node["allOf"] = [branch]  # beside $ref, 3.0 reads nothing else
        else:
            node.update({key: value for key, value in branch.items() if key not in node})
