"""Fields of a chat completion that have no place of their own in a call, for kinds that have other words for them."""

from collections.abc import Collection
from typing import Any

import msgspec

from chat_gateway.model.errors import UnsupportedField
from chat_gateway.providers.provider import ModelCall
from servicekit.errors import Violations

_decode = msgspec.json.Decoder().decode


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
