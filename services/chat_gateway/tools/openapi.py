"""Operations of OpenAPI 3.0 and 3.1 documents as HTTP calls. Whatever a document holds costs a bounded time."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from chat_gateway.tools.http_operation import Argument, HttpOperation, Place, is_settable
from chat_gateway.tools.server import ServerUnavailable

MAX_OPERATIONS = 1024
MAX_NODES = 50_000
"""Of all parameters and schemas of a document, references followed, each as often as it is used."""
MAX_DEPTH = 48

_METHODS = ("get", "put", "post", "delete", "patch")
_JSON = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json(?:;.*)?", re.IGNORECASE)
_NO_SCHEMA_WORDS = frozenset(
    {"example", "examples", "xml", "externalDocs", "discriminator", "nullable", "$id", "$anchor"}
)
_STYLES = {Place.PATH: ("simple",), Place.QUERY: ("form", "deepObject", "spaceDelimited", "pipeDelimited")}


def operations(document: str) -> list[HttpOperation]:
    """Returns the operations that have an operationId and can be called: no cookie, path styles but the simple one.

    Servers that the document names are ignored. Raises `ServerUnavailable` if it is not an OpenAPI document.
    """
    try:
        parsed = msgspec.json.decode(document)
    except (msgspec.DecodeError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict) or not str(parsed.get("openapi", "")).startswith("3."):
        raise ServerUnavailable("is described by something that is not an OpenAPI 3 document")
    reader = _Reader(parsed)
    return list(_unique(reader.operations()))


def _unique(found: Iterator[HttpOperation]) -> Iterator[HttpOperation]:
    seen: set[str] = set()
    for operation in found:
        if operation.name not in seen:
            seen.add(operation.name)
            yield operation
        if len(seen) >= MAX_OPERATIONS:
            return


class _Reader:
    """Reads one document, references within it resolved."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._nodes = 0

    def operations(self) -> Iterator[HttpOperation]:
        for path, item in _entries(self._document.get("paths")):
            if self._nodes > MAX_NODES:
                return
            item = self._resolved(item)
            shared = item.get("parameters")
            for method in _METHODS:
                described = item.get(method)
                if isinstance(described, dict) and isinstance(described.get("operationId"), str):
                    made = self._operation(path, method, described, shared)
                    if made is not None:
                        yield made

    def _operation(self, path: str, method: str, described: Mapping[str, Any], shared: Any) -> HttpOperation | None:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for listed in (shared, described.get("parameters")):
            for one in listed if isinstance(listed, list) else ():
                self._nodes += 1
                if self._nodes > MAX_NODES:
                    return None  # what it needs is not known
                parameter = self._resolved(one)
                found[str(parameter.get("in")), str(parameter.get("name"))] = parameter
        arguments: list[Argument] = []
        for (where, name), parameter in found.items():
            required = bool(parameter.get("required")) or where == "path"
            made = self._argument(where, name, parameter, required=required)
            if made is not None:
                arguments.append(made)
            elif required and (where != "header" or is_settable(name)):
                return None
        body = described.get("requestBody")
        if body is not None:
            made = self._body(self._resolved(body))
            if made is not None:
                arguments.append(made)
            elif self._resolved(body).get("required"):
                return None
        words = [described.get("summary"), described.get("description")]
        description = "\n".join(dict.fromkeys(word for word in words if isinstance(word, str) and word))
        return HttpOperation(described["operationId"], description, method.upper(), path, tuple(arguments))

    def _argument(self, where: str, name: str, parameter: Mapping[str, Any], *, required: bool) -> Argument | None:
        if where not in (Place.PATH, Place.QUERY, Place.HEADER) or (where == Place.HEADER and not is_settable(name)):
            return None
        place = Place(where)
        style = str(parameter.get("style", _STYLES.get(place, ("simple",))[0]))
        if style not in _STYLES.get(place, ("simple",)):
            return None
        schema, as_json = parameter.get("schema"), False
        if schema is None and "content" in parameter:
            media = next((media for _, media in _entries(parameter.get("content"))), {})
            schema, as_json = media.get("schema"), True
        explode = parameter.get("explode")
        return Argument(
            name,
            place,
            self._described(self._schema(schema), parameter),
            required=required,
            style=style,
            explode=bool(explode) if isinstance(explode, bool) else style == "form",
            as_json=as_json,
        )

    def _body(self, body: Mapping[str, Any]) -> Argument | None:
        for kind, media in _entries(body.get("content")):
            if _JSON.fullmatch(kind):
                schema = self._described(self._schema(media.get("schema")), body)
                return Argument("body", Place.BODY, schema, required=bool(body.get("required")))
        return None

    @staticmethod
    def _described(schema: dict[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
        text = by.get("description")
        return {**schema, "description": text} if isinstance(text, str) and text else schema

    def _resolved(self, value: Any) -> dict[str, Any]:
        for _ in range(MAX_DEPTH):
            if not isinstance(value, dict):
                return {}
            reference = value.get("$ref")
            if not isinstance(reference, str):
                return value
            value = self._at(reference)
        return {}

    def _at(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            return None
        self._nodes += reference.count("/")
        if self._nodes > MAX_NODES:
            return None
        value: Any = self._document
        for step in reference[2:].split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def _schema(self, value: Any, within: tuple[str, ...] = ()) -> dict[str, Any]:
        """Returns a schema of JSON Schema 2020-12 without references; where one leads into itself, anything goes."""
        self._nodes += 1
        if not isinstance(value, dict) or len(within) > MAX_DEPTH or self._nodes > MAX_NODES:
            return {}
        reference = value.get("$ref")
        if isinstance(reference, str):
            if reference in within:
                return {}
            beside = {name: one for name, one in value.items() if name != "$ref"}
            return {**self._schema(self._at(reference), (*within, reference)), **self._schema(beside, (*within, ""))}
        made = {name: self._keyword(name, one, within) for name, one in value.items() if name not in _NO_SCHEMA_WORDS}
        for bound in ("minimum", "maximum"):  # of 3.0
            exclusive = f"exclusive{bound.capitalize()}"
            if isinstance(made.get(exclusive), bool) and made.pop(exclusive) and bound in made:
                made[exclusive] = made.pop(bound)
        if value.get("nullable") is True and isinstance(made.get("type"), str):
            made["type"] = [made["type"], "null"]
        if isinstance(made.get("required"), list):
            read_only = {name for name, one in _entries(value.get("properties")) if one.get("readOnly")}
            made["required"] = [name for name in made["required"] if isinstance(name, str) and name not in read_only]
        return {name: one for name, one in made.items() if one is not None}

    def _keyword(self, name: str, value: Any, within: tuple[str, ...]) -> Any:
        deeper = (*within, "")
        if name in ("properties", "patternProperties", "$defs", "dependentSchemas"):
            return {key: self._schema(one, deeper) for key, one in _entries(value) if not one.get("readOnly")}
        if name in ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else"):
            return (
                self._schema(value, deeper) if isinstance(value, dict) else value if isinstance(value, bool) else None
            )
        if name in ("allOf", "anyOf", "oneOf", "prefixItems"):
            return [self._schema(one, deeper) for one in value] if isinstance(value, list) else None
        return value


def _entries(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, one in value.items() if isinstance(value, dict) else ():
        if isinstance(one, dict):
            yield name, one
