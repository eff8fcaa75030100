"""The filter of lists: a subset of AIP-160.

    filter     = conjunct { "AND" conjunct }
    conjunct   = term { "OR" term }              as in AIP-160, OR binds tighter than AND
    term       = [ "NOT" | "-" ] ( "(" filter ")" | restriction )
    restriction = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value | "labels." key ":*"
    field      = "template_id" | "provider" | "model" | "create_time" | "update_time" | "labels." key
                 ("kind" in place of the first three where tool servers are listed)

A value is a word or a text in quotes; times are RFC 3339. Text is compared exactly, by code points. A label that an
agent config does not have makes every comparison false, `!=` too; `labels.k:*` asks whether it has one.
"""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from config_svc.model import rules
from config_svc.model.agent import AgentConfig
from config_svc.model.tool_server import ToolServer
from servicekit.errors import Violations

MAX_CHARACTERS = 2000
MAX_TERMS = 50
MAX_DEPTH = 10

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

TEXT_FIELDS = ("template_id", "provider", "model")
TOOL_SERVER_FIELDS = ("kind",)
TIME_FIELDS = ("create_time", "update_time")
LABEL = "labels."

_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[()]|:\*|!=|<=|>=|[=<>])
    |(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<minus>-(?=[\w(]))
    |(?P<word>[\w./+-](?:[\w./+-]|:(?!\*))*))""",
    re.VERBOSE | re.DOTALL,
)
_MARKS = frozenset({"AND", "OR", "NOT"})


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against one value; `operator` is a key of OPERATORS, or `:*`."""

    field: str
    operator: str
    value: str | datetime


@dataclass(frozen=True, slots=True)
class Every:
    """All of the parts."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of the parts."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Everything that the part does not hold for."""

    part: "Filter"


Filter: TypeAlias = Comparison | Every | Some | Not


def parse_filter(found: Violations, text: str, text_fields: Sequence[str] = TEXT_FIELDS) -> Filter | None:
    """Returns the filter, None for an empty text; reports an invalid one.

    Besides times and labels it is about `text_fields`: those of agent configs, unless others are given.
    """
    if not text.strip():
        return None
    try:
        if len(text) > MAX_CHARACTERS:
            raise _WrongError(f"must have at most {MAX_CHARACTERS} characters")
        return _Parser(_tokens(text), text_fields).whole()
    except _WrongError as error:
        found.add("filter", str(error))
        return None


def matches(one: AgentConfig | ToolServer, wanted: Filter) -> bool:
    """Returns whether the filter holds for an agent config, or a tool server."""
    match wanted:
        case Every(parts):
            return all(matches(one, part) for part in parts)
        case Some(parts):
            return any(matches(one, part) for part in parts)
        case Not(part):
            return not matches(one, part)
        case Comparison(field, sign, value):
            actual = _value_of(one, field)
            return actual is not None and (sign == ":*" or bool(OPERATORS[sign](actual, value)))


def _value_of(one: AgentConfig | ToolServer, field: str) -> str | datetime | None:
    match field:
        case "create_time":
            return one.create_time
        case "update_time":
            return one.update_time
        case _ if field.startswith(LABEL):
            return one.spec.labels.get(field.removeprefix(LABEL))
    if isinstance(one, ToolServer):
        return one.spec.kind
    match field:
        case "template_id":
            return one.spec.template_id
        case "provider":
            return one.spec.model.provider
        case _:
            return one.spec.model.name


class _WrongError(Exception):
    """The text is no filter; the message says why."""


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    quoted: bool = False

    @property
    def mark(self) -> str:
        """What the token is to the grammar, empty for a plain word or a value."""
        return "" if self.quoted else self.text


def _tokens(text: str) -> list[_Token]:
    tokens, place, text = [], 0, text.rstrip()
    if "\0" in text:
        raise _WrongError("must not hold the character NUL")
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise _WrongError(f"cannot be read at character {place + 1}: {text[place : place + 20]!r}")
        place = match.end()
        if match["quoted"] is not None:
            tokens.append(_Token(re.sub(r"\\(.)", r"\1", match["quoted"][1:-1], flags=re.DOTALL), quoted=True))
        else:
            tokens.append(_Token(match["mark"] or match["minus"] or match["word"]))
    return tokens


class _Parser:
    """Reads the tokens from left to right."""

    def __init__(self, tokens: list[_Token], text_fields: Sequence[str]) -> None:
        self._tokens = tokens
        self._text_fields = text_fields
        self._place = 0
        self._terms = 0
        self._depth = 0

    def whole(self) -> Filter:
        """Reads one filter and nothing after it."""
        result = self._every()
        if self._place < len(self._tokens):
            raise _WrongError(f"expected AND or OR before {self._next().text!r}")
        return result

    def _every(self) -> Filter:
        parts = [self._some()]
        while self._takes("AND"):
            parts.append(self._some())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _some(self) -> Filter:
        parts = [self._term()]
        while self._takes("OR"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _term(self) -> Filter:
        if self._takes("NOT") or self._takes("-"):
            return Not(self._simple())
        return self._simple()

    def _simple(self) -> Filter:
        if not self._takes("("):
            return self._restriction()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _WrongError(f"must have at most {MAX_DEPTH} parentheses within each other")
        inner = self._every()
        if not self._takes(")"):
            raise _WrongError("lacks a closing parenthesis")
        self._depth -= 1
        return inner

    def _restriction(self) -> Comparison:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise _WrongError(f"must have at most {MAX_TERMS} restrictions")
        field = _field(self._next(), self._text_fields)
        sign = self._next()
        if sign.mark == ":*" and field.startswith(LABEL):
            return Comparison(field, ":*", "")
        if sign.mark not in OPERATORS:
            raise _WrongError(f"expected an operator after {field}, one of {' '.join(OPERATORS)}")
        return Comparison(field, sign.text, _value(field, self._next()))

    def _takes(self, mark: str) -> bool:
        if self._place < len(self._tokens) and self._tokens[self._place].mark == mark:
            self._place += 1
            return True
        return False

    def _next(self) -> _Token:
        if self._place == len(self._tokens):
            raise _WrongError("ends too early")
        self._place += 1
        return self._tokens[self._place - 1]


def _field(token: _Token, text_fields: Sequence[str]) -> str:
    name = {"model.name": "model", "model.provider": "provider"}.get(token.mark, token.mark)
    if name in text_fields or name in TIME_FIELDS:
        return name
    if name.startswith(LABEL) and rules.is_label_key(name.removeprefix(LABEL)):
        return name
    known = ", ".join((*text_fields, *TIME_FIELDS, "labels.KEY"))
    raise _WrongError(f"{token.text[:80]!r} is not a field to filter by: {known}")


def _value(field: str, token: _Token) -> str | datetime:
    if token.mark in _MARKS or token.mark in OPERATORS or token.mark in ("(", ")", ":*", "-"):
        raise _WrongError(f"expected a value for {field}")
    if field not in TIME_FIELDS:
        return token.text
    try:
        time = datetime.fromisoformat(token.text)
    except ValueError:
        time = datetime.min
    if time.tzinfo is None:
        raise _WrongError(f"the value for {field} must be a time such as 2026-01-31T12:00:00Z")
    return time
