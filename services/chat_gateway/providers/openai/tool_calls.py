"""Assembles tool calls from pieces, which providers number in different ways."""

import secrets
from collections.abc import Iterable

import msgspec

from chat_gateway.model.turn import ProviderData, ToolCall, ToolCallDelta
from chat_gateway.providers.adapter import PIECE_BYTES, BadAnswer, check_calls
from chat_gateway.providers.openai.arguments_end import ArgumentsEnd
from chat_gateway.providers.openai.request import KIND
from chat_gateway.providers.openai.wire import UpstreamFunction, UpstreamToolCall, said

_NO_FUNCTION = UpstreamFunction()
_EMPTY = "{}"


class _Call:
    """One call as far as it is known."""

    __slots__ = (
        "_end",
        "_length",
        "arguments",
        "given_id",
        "id",
        "name",
        "placeholder",
        "position",
        "provider_data",
        "shown",
    )

    def __init__(self, position: int, given_id: str, call_id: str) -> None:
        self.position = position
        self.given_id = given_id
        self.id = call_id
        self.name = ""
        self.arguments: list[str] = []
        self.placeholder = ""
        """An empty object that arguments began with: some send one first, and then the arguments."""
        self.provider_data: ProviderData | None = None
        self.shown = False
        self._end: ArgumentsEnd | None = None
        self._length = 0

    def is_whole(self) -> bool:
        """Returns whether the arguments so far are JSON."""
        if not self.arguments:
            return bool(self.placeholder)
        if self._end is None:
            self._end = ArgumentsEnd()
        return self._end.is_reached(self.arguments)

    def said(self) -> str:
        """Returns the arguments so far."""
        return "".join(self.arguments) or self.placeholder

    def named(self, name: str) -> str:
        """Takes a name, or a piece of one; returns what it adds."""
        before = self.name
        if name == before or (before and (self.arguments or self.placeholder)):
            return ""  # some repeat the name with every piece
        # Clients put pieces together; some servers say all that there is of it each time.
        self.name = name if name.startswith(before) else before + name
        return self.name[len(before) :]

    def argued(self, piece: str) -> str:
        """Takes a piece of the arguments; returns what it adds."""
        if not piece:
            return ""
        empty = piece.strip() == _EMPTY
        if not self.arguments and (empty or not piece.strip()):
            if empty:
                self.placeholder = piece
            return ""
        if piece[:1] == "{" and self.arguments and self.arguments[-1].endswith("}"):
            again = len(piece) == self._length and piece == "".join(self.arguments)
            if (empty or again) and self.is_whole():
                return ""  # all of it once more, behind its pieces
        self.arguments.append(piece)
        self._length += len(piece)
        return piece

    def first(self) -> ToolCallDelta:
        """Returns what is shown of it first."""
        self.shown = True
        return ToolCallDelta(self.position, self.id, self.name, "".join(self.arguments), self.provider_data)


class ToolCalls:
    """Collects calls in the order in which they were begun, whatever their indices; each has an id of its own.

    A new id on an index that is in use begins a call, and so does a name where neither id nor index tells. An id that
    is missing, or another call's, is made here. `tools` are the names that the model was offered: they tell two calls
    from two pieces of one name. With `hold`, what is not known to be whole is not shown before what follows it.
    """

    __slots__ = ("_by_index", "_calls", "_hold", "_ids", "_provider", "_tools", "size")

    def __init__(self, provider: str, tools: Iterable[str] = (), *, hold: bool = True) -> None:
        self._provider = provider
        self._tools = frozenset(tools)
        self._hold = hold
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._ids: set[str] = set()
        self.size = 0

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, piece: UpstreamToolCall) -> list[ToolCallDelta]:
        """Returns what the piece adds to what is shown, by the calls' own numbers."""
        function = piece.function or _NO_FUNCTION
        given_id = piece.id or ""
        name, arguments = function.name or piece.name or "", function.arguments or piece.arguments or ""
        if not (given_id or name or arguments or self._calls or said(piece.extra_content)):
            return []  # some send an empty call where there is none
        call = self._call_of(piece.index, given_id, name)
        self.size += len(arguments.encode("utf-8", "replace")) + len(name)
        kept = self._keep(call, piece)
        more_name, more = call.named(name), call.argued(arguments)
        shown: list[ToolCallDelta] = []
        if call.shown and (more_name or more or kept is not None):
            shown.append(ToolCallDelta(call.position, "", more_name, more, kept))
        shown += self._next()
        return shown if self._hold else shown + self.close()

    def _next(self) -> list[ToolCallDelta]:
        """Returns what can be shown of further calls. In their order: clients put them together by their places."""
        found = []
        for call in self._calls:
            if call.shown:
                continue
            if not call.name:
                break
            if call is self._calls[-1] and not (call.arguments or self._is_whole(call.name)):
                break
            found.append(call.first())
        return found

    def close(self) -> list[ToolCallDelta]:
        """Returns what was held: nothing is to follow."""
        held = []
        for call in self._calls:
            if not call.name:
                break
            if call.placeholder and not call.arguments:
                call.arguments.append(call.placeholder)
                if call.shown:
                    held.append(ToolCallDelta(call.position, arguments=call.placeholder))
            if not call.shown:
                held.append(call.first())
        return held

    def calls(self) -> tuple[ToolCall, ...]:
        """Returns the calls. Raises `BadAnswer` for one without a name."""
        if any(not call.name for call in self._calls):
            raise BadAnswer("a tool call without a name")
        return tuple([ToolCall(call.id, call.name, call.said(), call.provider_data) for call in self._calls])

    def _call_of(self, index: int | None, given_id: str, name: str) -> _Call:
        if index is None:
            current = next((call for call in self._calls if given_id and call.given_id == given_id), None)
            if current is None and not given_id and self._calls:
                current = self._calls[-1]
        else:
            current = self._by_index.get(index)
        if current is not None and not self._begins(current, given_id, name):
            if given_id and not current.given_id:
                current.given_id = given_id
            return current
        call = _Call(len(self._calls), given_id, self._id(given_id))
        self._calls.append(call)
        check_calls(len(self._calls))
        self.size += PIECE_BYTES + len(call.id)
        if index is not None:
            self._by_index[index] = call
        return call

    def _begins(self, current: _Call, given_id: str, name: str) -> bool:
        """Whether a piece on the place of a call begins another one."""
        if given_id and current.given_id and given_id != current.given_id:
            # Some servers give each piece its own id: without a name it continues the call, unless that is complete.
            return bool(name) or current.is_whole()
        if not name or not current.name or (given_id and given_id == current.given_id):
            return False
        if not (current.arguments or current.placeholder):
            return self._are_two(current.name, name)
        # Some repeat the name with every piece.
        return name != current.name or current.is_whole()

    def _is_whole(self, name: str) -> bool:
        """Whether it is a tool's name and no beginning of another's: some clients take only its first piece."""
        return name in self._tools and not any(one != name and one.startswith(name) for one in self._tools)

    def _are_two(self, name: str, other: str) -> bool:
        """Whether these are names of two calls, and not pieces of one name."""
        if name == other or not self._tools.issuperset((name, other)):
            return False
        return name + other not in self._tools and not other.startswith(name)

    def _id(self, given: str) -> str:
        made = given if given and given not in self._ids else f"call_{secrets.token_hex(12)}"
        self._ids.add(made)
        return made

    def _keep(self, call: _Call, piece: UpstreamToolCall) -> ProviderData | None:
        extra = said(piece.extra_content)
        if not extra:
            return None
        call.provider_data = ProviderData(KIND, self._provider, b'{"extra_content":%b}' % extra)
        self.size += len(extra)
        return call.provider_data


def whole_calls(pieces: Iterable[UpstreamToolCall], provider: str) -> tuple[ToolCall, ...]:
    """Returns the calls of an answer that was not streamed: one each, whatever their ids. Raises `BadAnswer`."""
    calls = ToolCalls(provider)
    for number, piece in enumerate(pieces):
        calls.add(msgspec.structs.replace(piece, index=number))
    return calls.calls()
