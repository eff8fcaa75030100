"""Typed settings from environment variables, on msgspec: what checks them stays resident in every process."""

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self, get_args, get_origin, get_type_hints

import msgspec

_STRUCTURED = (dict, list, tuple)
_BOOLEANS: Final = {"on": "true", "yes": "true", "off": "false", "no": "false"}


class SettingsError(ValueError):
    """The environment does not make settings; the message names every variable and what is wrong with it."""


class Secret:
    """Text that neither logs nor tracebacks show."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Returns the text."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('**********')" if self._text else "Secret('')"


def variable(name: str) -> msgspec.Meta:
    """Annotates a field that has this variable, whatever the prefix."""
    return msgspec.Meta(extra={"variable": name})


COMMAS = msgspec.Meta(extra={"commas": True})
"""Annotates a tuple of words that is not JSON: commas stand between them."""


@dataclass(frozen=True, slots=True)
class Field:
    """One setting: the variable that it is read from, and what it may be."""

    variable: str
    type: Any
    commas: bool = False

    def parsed(self, text: str) -> Any:
        """Returns the value that `text` stands for. Raises `ValueError` that says what is wrong with it."""
        if self.commas:
            return tuple(word for part in text.split(",") if (word := part.strip()))
        bare = get_args(self.type)[0] if get_origin(self.type) is Annotated else self.type
        if any(get_origin(one) in _STRUCTURED for one in (bare, *get_args(bare))):
            try:
                return msgspec.json.decode(text, type=self.type)
            except msgspec.ValidationError:
                raise
            except msgspec.DecodeError as error:
                raise ValueError(f"not JSON: {error}") from None
        if bare is bool:
            text = _BOOLEANS.get(text.lower(), text)
        return self.checked(text)

    def checked(self, value: Any) -> Any:
        """Returns `value` as the field's type. Raises `ValueError` that says what is wrong with it."""
        return msgspec.convert(value, self.type, strict=False, dec_hook=_custom)


class FromEnvironment:
    """Settings whose annotated attributes are read when one is made; immutable then.

    The variable of a field is its name in capitals after `prefix`, or what `variable` says. What the constructor is
    given goes before the environment, and that before defaults. Bounds are `msgspec.Meta`'s; times are seconds or ISO
    8601; types with parts are JSON. Raises `SettingsError` with everything that is wrong.
    """

    prefix: ClassVar[str] = ""
    empty_is_unset: ClassVar[bool] = False

    def __init__(self, **given: Any) -> None:
        wrong = []
        fields = self.fields()
        if unknown := given.keys() - fields:
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        for name, field in fields.items():
            text = os.environ.get(field.variable)
            try:
                if name in given:
                    self.__dict__[name] = field.checked(given[name])
                elif text is not None and (text or not self.empty_is_unset):
                    self.__dict__[name] = field.parsed(text)
                elif not hasattr(type(self), name):
                    raise ValueError("is required")
            except ValueError as error:
                wrong.append(f"{field.variable}: {error}")
        if not wrong:
            wrong += self.problems()
        if wrong:
            raise SettingsError("; ".join(wrong))

    def problems(self) -> Iterator[str]:
        """Yields what is wrong with the settings together; each is right by itself. Subclasses add to it."""
        yield from ()

    @classmethod
    def fields(cls) -> Mapping[str, Field]:
        """Returns the settings by name."""
        found = {}
        for name, hint in get_type_hints(cls, include_extras=True).items():
            if get_origin(hint) is ClassVar:
                continue
            extra: dict[str, Any] = {}
            for meta in getattr(hint, "__metadata__", ()):
                extra |= meta.extra or {}
            given = extra.get("variable") or f"{cls.prefix}{name}".upper()
            found[name] = Field(given, hint, commas=extra.get("commas", False))
        return found

    def replace(self, **changes: Any) -> Self:
        """Returns the same settings but for `changes`, which are not checked."""
        other = copy.copy(self)
        other.__dict__.update(changes)
        return other

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings are immutable: {name}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.fields())})"


def between(name: str, value: timedelta, least: timedelta, most: timedelta) -> Iterator[str]:
    """Yields what is wrong with a time that is out of bounds, which `msgspec.Meta` has none for."""
    if not least <= value <= most:
        yield f"{name}: must be from {least.total_seconds():g} to {most.total_seconds():g} s"


def _custom(kind: type, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    if kind in (Secret, Path) and isinstance(value, str):
        return kind(value)
    raise ValueError(f"is no {kind.__name__}")
