"""Fields within messages, parts, tools and options that the shapes of a request do not have.

Who has none pays nothing for them: the decoder is strict, and only where it stops is a body looked at field by field.
"""

import re
import types
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import msgspec

from chat_gateway.http_edge.openai.chat.schema import ChatMessage, FunctionCall, ToolCall
from chat_gateway.http_edge.wire.bodies import decode, raw_json
from chat_gateway.http_edge.wire.errors import MalformedBody
from chat_gateway.model.turn import Extra
from servicekit.errors import Violation

MAX_NESTED_BYTES: Final = 256 * 1024
"""Of all such fields of a request: they are written into every call of its turn."""

NestedFields = Mapping[str, Mapping[str, msgspec.Raw]]
"""By the path of the object that has them (`messages[0].content[1]`), each as its JSON."""
NO_NESTED: Final[NestedFields] = {}

_TO_PROVIDERS: Final = re.compile(
    r"messages\[\d+\](?:\.extra_content|\.content\[\d+\](?:\.(?:image_url|input_audio|file))?"
    r"|\.tool_calls\[\d+\](?:\.(?:function|extra_content))?)?|tools\[\d+\](?:\.function)?"
)
"""The objects whose other fields are the provider's to understand."""
_ECHOES: Final[Mapping[type[msgspec.Struct], frozenset[str]]] = {
    ChatMessage: frozenset({"annotations", "parsed", "provider_specific_fields"}),
    ToolCall: frozenset({"index"}),
    FunctionCall: frozenset({"parsed_arguments"}),
}
"""What answers have, and SDKs put beside them, for their readers: sent back it is part of the answer, asks for nothing
and goes to nobody."""
_MAX_NAME: Final = 100

T = TypeVar("T", bound=msgspec.Struct)

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_NOTHING: Final = msgspec.Raw()


def strict_within(shape: type[T]) -> type[T]:
    """Returns the shape of a body whose objects, but for itself, have no fields that their shapes do not have."""
    return _redefined(shape, strict=False)


def without_unknown(body: bytes, shape: type[msgspec.Struct]) -> tuple[bytes, NestedFields]:
    """Returns the body without the fields within it that its shapes do not have, and those; null says nothing.

    Raises `MalformedBody` where they are more than `MAX_NESTED_BYTES`, or the body is not JSON.
    """
    found = _Unknown()
    said = decode(_fields, body)
    kept = {name: found.of_value(raw, _OF[shape].get(name), name) for name, raw in said.items()}
    return (_encode(kept), found.fields) if found.any else (body, NO_NESTED)


def extra_of(
    nested: NestedFields, path: str, inner: Collection[str] = (), echoed: Collection[str] = ()
) -> Extra | None:
    """Returns what the object at a path says beyond its shape, with what the objects `inner` to it say.

    `echoed` are the names of what another provider put beside an answer.
    """
    if not nested:
        return None
    said: dict[str, Any] = {**nested.get(path, {})}
    for name in inner:
        if fields := nested.get(f"{path}.{name}"):
            said[name] = fields
    if not said:
        return None
    echoes = {name: said.pop(name) for name in echoed if name in said}
    return Extra(_encode(said), place=path, echoes=_encode(echoes) if echoes else b"")


def unknown_to_all(nested: NestedFields) -> list[str]:
    """Returns the paths of fields that no provider could take."""
    return [
        f"{path}.{name[:_MAX_NAME]}"
        for path, fields in nested.items()
        if not _TO_PROVIDERS.fullmatch(path)
        for name in fields
    ]


class _Unknown:
    """Takes a body apart along the shapes that it should have."""

    def __init__(self) -> None:
        self.fields: dict[str, dict[str, msgspec.Raw]] = {}
        self.any = False
        self._left = MAX_NESTED_BYTES

    def of_value(self, raw: msgspec.Raw, shape: type[msgspec.Struct] | None, path: str) -> msgspec.Raw:
        text = bytes(raw)
        if shape is None or text[:1] not in (b"{", b"["):
            return raw
        if text[:1] == b"{":
            return msgspec.Raw(_encode(self._of_object(text, shape, path)))
        items = [self.of_value(one, shape, f"{path}[{number}]") for number, one in enumerate(decode(_items, text))]
        return msgspec.Raw(_encode(items))

    def _of_object(self, text: bytes, shape: type[msgspec.Struct], path: str) -> dict[str, msgspec.Raw]:
        inner, kept = _OF[shape], {}
        said = decode(_fields, text)
        echoes = _ECHOES.get(shape, ())
        if shape is ChatMessage and bytes(said.get("role", _NOTHING)) != b'"assistant"':
            echoes = ()
        for name, raw in said.items():
            if name in inner:
                kept[name] = self.of_value(raw, inner[name], f"{path}.{name}")
            elif name in echoes:
                self.any = True
            elif name == "reasoning" and shape is ChatMessage and "reasoning_content" not in said and _is_text(raw):
                self.any, kept["reasoning_content"] = True, raw  # OpenRouter's word for it, and vLLM's
            else:
                self._note(path, name, raw)
        return kept

    def _note(self, path: str, name: str, raw: msgspec.Raw) -> None:
        self.any = True
        if (size := len(bytes(raw))) > self._left:
            field, rule = f"{path}.{name[:64]}", f"must be, with others like it, at most {MAX_NESTED_BYTES} bytes"
            raise MalformedBody(f"{field}: {rule}", violations=[Violation(field, rule)])
        self._left -= size
        if raw_json(raw, f"{path}.{name[:_MAX_NAME]}") != b"null":
            self.fields.setdefault(path, {})[name] = raw


def _is_text(raw: msgspec.Raw) -> bool:
    return bytes(raw)[:1] == b'"'


def _redefined(shape: type[T], *, strict: bool) -> type[T]:
    fields: list[Any] = []
    for one in msgspec.structs.fields(shape):
        inner = _strict_type(one.type)
        if one.default_factory is not msgspec.NODEFAULT:
            fields.append((one.name, inner, msgspec.field(default_factory=one.default_factory)))
        elif one.required:
            fields.append((one.name, inner))
        else:
            fields.append((one.name, inner, one.default))
    made = msgspec.defstruct(
        shape.__name__, fields, bases=(shape,), forbid_unknown_fields=strict, kw_only=True, module=shape.__module__
    )
    _OF[shape] = _OF[made] = {one.name: _struct_in(one.type) for one in msgspec.structs.fields(shape)}
    return made  # type: ignore[return-value]


_OF: Final[dict[type[msgspec.Struct], dict[str, type[msgspec.Struct] | None]]] = {}
"""The fields of a shape, each with the shape of the objects that it holds, or lists."""


def _strict_type(kind: Any) -> Any:
    if _is_struct(kind):
        return _redefined(kind, strict=True)
    arguments = get_args(kind)
    inner = tuple(map(_strict_type, arguments))
    if inner == arguments:
        return kind
    origin = get_origin(kind)
    return Union[inner] if origin in (types.UnionType, Union) else origin[inner]  # noqa: UP007


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    if _is_struct(kind):
        return kind  # type: ignore[no-any-return]
    return next((found for one in get_args(kind) if (found := _struct_in(one)) is not None), None)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
