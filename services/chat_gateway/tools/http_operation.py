"""Maps the arguments of a tool to an HTTP request, without I/O."""

import enum
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from chat_gateway.model.tool_servers import HttpCall
from servicekit.values import value

IDEMPOTENT_METHODS = frozenset({"GET", "PUT", "DELETE"})
"""RFC 9110 9.2.2."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_NOT_THE_MODELS = frozenset(
    {
        *("authorization", "proxy-authorization", "cookie", "host", "accept", "accept-encoding", "connection"),
        *("keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "forwarded", "traceparent"),
        *("tracestate", "idempotency-key", "user-agent", "origin", "referer", "via"),
    }
)
_NOT_THE_MODELS_PREFIXES = ("content-", "proxy-", "sec-", "x-forwarded-")


class BadArgument(Exception):
    """An argument can't be sent; the message is for the model."""


class Place(enum.StrEnum):
    """Where an argument goes; the first three are OpenAPI's words."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    BODY = "body"
    BODY_FIELD = "body_field"


@value
class Argument:
    """One argument: its name at the service, its place, its JSON Schema; style and explode as in OpenAPI."""

    name: str
    place: Place
    schema: Mapping[str, Any]
    required: bool = False
    style: str = "form"
    explode: bool = True
    as_json: bool = False


@value
class HttpRequest:
    """`path` is behind the service's base URL, with its query."""

    path: str
    headers: Mapping[str, str]
    body: bytes | None


@value
class HttpOperation:
    """A call: what the model may give, and where it goes."""

    name: str
    description: str
    method: str
    path: str
    arguments: tuple[Argument, ...] = ()
    schema: Mapping[str, Any] | None = None
    """The schema of all arguments if there is one; arguments that are not listed go to `rest` then."""
    rest: Place | None = None
    repeatable: bool = False

    @property
    def idempotent(self) -> bool:
        """Whether a repeat does no harm."""
        return self.repeatable or self.method in IDEMPOTENT_METHODS

    def named(self) -> dict[str, Argument]:
        """Returns the arguments by the names that the model gives: of several of one name, the place goes before."""
        names = [one.name for one in self.arguments]
        return {one.name if names.count(one.name) == 1 else f"{one.place}_{one.name}": one for one in self.arguments}

    def parameters(self) -> Mapping[str, Any]:
        """Returns the JSON Schema of the arguments."""
        if self.schema is not None:
            return self.schema
        named = self.named()
        return {
            "type": "object",
            "properties": {name: dict(one.schema) for name, one in named.items()},
            "required": [name for name, one in named.items() if one.required],
            "additionalProperties": False,
        }

    def request(self, given: Mapping[str, Any]) -> HttpRequest:
        """Returns the request. Raises `BadArgument`."""
        path, query, headers = self.path, list[tuple[str, str]](), dict[str, str]()
        fields: dict[str, Any] = {}
        body: Any = None
        named = self.named()
        filled: dict[str, str] = {}
        for name, one in given.items():
            argument = named.get(name) or (Argument(name, self.rest, {}) if self.rest is not None else None)
            if argument is None:
                raise BadArgument(f"there is no argument {name[:64]!r}")
            match argument.place:
                case Place.PATH:
                    filled[argument.name] = _in_path(argument, one)
                case Place.QUERY:
                    query += _in_query(argument, one)
                case Place.HEADER:
                    headers[argument.name] = _in_header(argument, one)
                case Place.BODY:
                    body = one
                case Place.BODY_FIELD:
                    fields[argument.name] = one
        path = _PLACEHOLDER.sub(lambda found: _fill(found.group(1), filled), path)
        if query:
            path += ("&" if "?" in path else "?") + urlencode(query, quote_via=quote, safe="")
        if self.rest is Place.BODY_FIELD:
            body = fields
        text = None if body is None else json.dumps(body, ensure_ascii=False)
        return HttpRequest(path, headers, None if text is None else text.encode("utf-8", "replace"))


def of_call(call: HttpCall) -> HttpOperation:
    """Returns the operation of a call that was described by itself."""
    in_path = tuple(Argument(name, Place.PATH, {}, required=True) for name in _PLACEHOLDER.findall(call.path))
    rest = Place.QUERY if call.method in ("GET", "DELETE") else Place.BODY_FIELD
    schema = {"type": "object", "properties": {}, **call.parameters}
    return HttpOperation(
        call.name, call.description, call.method, call.path, in_path, schema, rest, repeatable=call.idempotent
    )


def is_settable(header: str) -> bool:
    """Returns whether the model may set this header: none that says who calls, or how the body is framed."""
    name = header.lower()
    return (
        _HEADER_NAME.fullmatch(header) is not None
        and name not in _NOT_THE_MODELS
        and not name.startswith(_NOT_THE_MODELS_PREFIXES)
    )


def _fill(name: str, filled: Mapping[str, str]) -> str:
    try:
        return filled[name]
    except KeyError:
        raise BadArgument(f"the argument {name[:64]!r} is missing") from None


def _in_path(argument: Argument, given: Any) -> str:
    text = ",".join(_texts(given)) if isinstance(given, list) else _text(argument, given)
    segments = re.split(r"[/\\]", text)
    if not text or "\0" in text or any(segment in (".", "..") for segment in segments):
        raise BadArgument(f"the argument {argument.name!r} must be a text that can be part of a path")
    return quote(text, safe="")


def _in_query(argument: Argument, given: Any) -> list[tuple[str, str]]:
    name = argument.name
    if given is None:
        return []
    if argument.as_json:
        return [(name, json.dumps(given))]
    if isinstance(given, list):
        if argument.explode and argument.style == "form":
            return [(name, text) for text in _texts(given)]
        between = {"spaceDelimited": " ", "pipeDelimited": "|"}.get(argument.style, ",")
        return [(name, between.join(_texts(given)))]
    if isinstance(given, dict):
        if argument.style == "deepObject":
            return [(f"{name}[{key}]", _text(argument, one)) for key, one in given.items()]
        if argument.explode:
            return [(key, _text(argument, one)) for key, one in given.items()]
        return [(name, ",".join(part for key, one in given.items() for part in (key, _text(argument, one))))]
    return [(name, _text(argument, given))]


def _in_header(argument: Argument, given: Any) -> str:
    text = ",".join(_texts(given)) if isinstance(given, list) else _text(argument, given)
    if not text.isascii() or not text.isprintable() or len(text) > 4096:
        raise BadArgument(f"the argument {argument.name!r} must be printable ASCII")
    return text


def _texts(given: Sequence[Any]) -> list[str]:
    return [_scalar(one) for one in given]


def _text(argument: Argument, given: Any) -> str:
    return json.dumps(given) if argument.as_json else _scalar(given)


def _scalar(given: Any) -> str:
    if isinstance(given, str):
        return given
    return json.dumps(given)
