"""Maps additional fields of chat completions for kinds with other names for them."""

from collections.abc import Collection, Iterator
from typing import Any, Final

import msgspec

from chat_gateway.model.provider_errors import UnsupportedField
from chat_gateway.model.turn import Extra
from chat_gateway.providers.provider import ModelCall
from servicekit.errors import Violations

_decode = msgspec.json.Decoder().decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_INNER: Final = frozenset({"extra_content", "file", "function", "image_url", "input_audio"})
_MAX_NAME: Final = 100


class Extras:
    """The other fields of one call. Those that ask for nothing are left out; what is of a wrong type is noted."""

    def __init__(self, call: ModelCall, provider: str, known: Collection[str], found: Violations) -> None:
        """Raises `UnsupportedField` for fields that are not among the known ones."""
        self._found = found
        self._said = {name: _decode(value) for name, value in call.extra.items()} if call.extra else {}
        if self._said.get("logprobs") is False:
            del self._said["logprobs"]
        unknown = [name for name in self._said if name not in known]
        if unknown:
            raise UnsupportedField(provider, unknown)
        self.parallel_tool_calls = self.of_type("parallel_tool_calls", bool, "a boolean")
        """None: not said."""
        if self.parallel_tool_calls is None:
            self.parallel_tool_calls = call.parallel_tool_calls

    def of_type(self, name: str, kind: type, rule: str) -> Any:
        """Returns a field of this type, None where it is not said."""
        value = self._said.get(name)
        if value is not None and type(value) is not kind:
            self._found.add(name, f"must be {rule}")
            return None
        return value

    def one_of(self, name: str, words: Collection[str]) -> str:
        """Returns a field that is one of the words; empty where it is not said."""
        value = self._said.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or value not in words:
            self._found.add(name, f"must be one of {', '.join(words)}")
            return ""
        return value


class Beside:
    """What the caller says of messages, parts, calls and tools beyond the contract, written beside what we say of them.

    `unknown` are the places, in the request, of what is not among the known fields; None: all are known. Echoes of
    answers are left out where not all fields are known.
    """

    def __init__(self, known: Collection[str] | None = None) -> None:
        self.unknown: list[str] = []
        self.used = False
        """Whether anything was put."""
        self._known = known

    def put(self, said: dict[str, Any], extra: Extra | None) -> dict[str, Any]:
        """Returns an object with its other fields; none goes before what it says itself."""
        if extra is None:
            return said
        out = self._merged(said, extra.json, extra.place)
        return self._merged(out, extra.echoes, extra.place) if extra.echoes and self._known is None else out

    def check(self, provider: str, unwritten: ModelCall | None = None) -> None:
        """Raises `UnsupportedField` with all that is unknown, of what was put and of a call none of which was."""
        for extra in _extras_of(unwritten) if unwritten is not None else ():
            self.put({}, extra)
        if self.unknown:
            raise UnsupportedField(provider, self.unknown)

    def _merged(self, said: dict[str, Any], fields: bytes, place: str) -> dict[str, Any]:
        out = dict(said)
        for name, value in _fields(fields).items():
            inner = out.get(name, {}) if name in _INNER else None
            if isinstance(inner, dict) and bytes(value)[:1] == b"{":
                if more := self._merged(inner, bytes(value), f"{place}.{name}"):
                    out[name] = more
            elif self._known is not None and name not in self._known:
                self.unknown.append(f"{place}.{name[:_MAX_NAME]}")
            else:
                out.setdefault(name, value)
                self.used = True
        return out


def _extras_of(call: ModelCall) -> Iterator[Extra | None]:
    for message in call.messages:
        if message.extra is not None:
            yield message.extra
            yield from (more for _, more in message.extra.texts)
        yield from (one.extra for one in (*message.parts, *message.tool_calls))
    yield from (tool.extra for tool in call.tools)
