"""Values as stored JSON: only what differs from its default is in it."""

import functools
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from config_svc.model.rules import Json

T = TypeVar("T")


def encoded(value: Any) -> dict[str, Json]:
    """Returns the JSON form of a dataclass whose fields all have defaults."""
    values = ((member, getattr(value, member.name)) for member in fields(value))
    return {member.name: _encoded(one) for member, one in values if one != _default(member)}


def decoded(kind: type[T], form: Mapping[str, Any]) -> T:
    """Returns the value of a JSON form; keys that this release doesn't know are ignored."""
    any_kind: Any = kind
    hints: dict[str, Any] = _hints(any_kind)
    return kind(**{name: _decoded(hints[name], one) for name, one in form.items() if name in hints})


def _encoded(value: Any) -> Json:
    if is_dataclass(value):
        return encoded(value)
    if isinstance(value, tuple):
        return [_encoded(one) for one in value]
    plain: Json = dict(value) if isinstance(value, Mapping) else value
    return plain


def _decoded(hint: Any, value: Any) -> Any:
    if get_origin(hint) is types.UnionType:
        hint = next(one for one in get_args(hint) if one is not types.NoneType)
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_decoded(get_args(hint)[0], one) for one in value)
    return decoded(hint, value) if is_dataclass(hint) and isinstance(hint, type) else value


def _default(member: "Field[Any]") -> Any:
    return member.default_factory() if member.default_factory is not MISSING else member.default


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
