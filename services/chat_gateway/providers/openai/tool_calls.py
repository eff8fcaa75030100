"""The tool calls of an answer, put together from pieces that providers number in many ways."""

import json
import secrets

import msgspec

from chat_gateway.model.turn import ProviderData, ToolCall, ToolCallDelta
from chat_gateway.providers.adapter import BadAnswer
from chat_gateway.providers.openai.request import KIND
from chat_gateway.providers.openai.wire import UpstreamFunction, UpstreamToolCall, said

_NO_FUNCTION = UpstreamFunction()
_CALL_BYTES = 64
"""What an empty call counts for: it takes memory too."""


class _Call:
    """One call as far as it is known."""

    __slots__ = ("arguments", "given_id", "id", "name", "position", "provider_data")

    def __init__(self, position: int, given_id: str, call_id: str) -> None:
        self.position = position
        self.given_id = given_id
        self.id = call_id
        self.name = ""
        self.arguments: list[str] = []
        self.provider_data: ProviderData | None = None


class ToolCalls:
    """Collects calls in the order in which they were begun, whatever their indices; each has an id of its own.

    A new id on an index that is in use begins a call, and so does a name where neither id nor index tells. An id that
    is missing, or another call's, is made here.
    """

    __slots__ = ("_by_index", "_calls", "_ids", "_provider", "size")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._ids: set[str] = set()
        self.size = 0

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, piece: UpstreamToolCall) -> ToolCallDelta | None:
        """Returns what the piece adds, by the call's own number; None while the call has no name yet."""
        function = piece.function or _NO_FUNCTION
        given_id, name, arguments = piece.id or "", function.name or "", function.arguments or ""
        call = self._call_of(piece.index, given_id, name, arguments)
        self.size += len(arguments.encode("utf-8", "replace")) + len(name)
        kept = self._keep(call, piece)
        if arguments:
            call.arguments.append(arguments)
        if call.name:
            return ToolCallDelta(call.position, "", "", arguments, kept) if arguments or kept is not None else None
        if not name:
            return None
        call.name = name
        return ToolCallDelta(call.position, call.id, name, "".join(call.arguments), call.provider_data)

    def calls(self) -> tuple[ToolCall, ...]:
        """Returns the calls. Raises `BadAnswer` for one without a name."""
        if any(not call.name for call in self._calls):
            raise BadAnswer("a tool call without a name")
        return tuple(
            [ToolCall(call.id, call.name, "".join(call.arguments), call.provider_data) for call in self._calls]
        )

    def _call_of(self, index: int | None, given_id: str, name: str, arguments: str) -> _Call:
        if index is None:
            current = next((call for call in self._calls if given_id and call.given_id == given_id), None)
            if current is None and not given_id and self._calls:
                current = self._calls[-1]
        else:
            current = self._by_index.get(index)
        if current is not None and not _begins(current, given_id, name, arguments):
            if given_id and not current.given_id:
                current.given_id = given_id
            return current
        call = _Call(len(self._calls), given_id, self._id(given_id))
        self._calls.append(call)
        self.size += _CALL_BYTES + len(call.id)
        if index is not None:
            self._by_index[index] = call
        return call

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


def _begins(current: _Call, given_id: str, name: str, arguments: str) -> bool:
    """Whether a piece on the place of a call begins another one."""
    if given_id and current.given_id and given_id != current.given_id:
        # Some servers give each piece an id of its own: without a name it goes on, unless the call is complete.
        return bool(name) or _complete(current)
    if not name or not current.name or (given_id and given_id == current.given_id):
        return False
    # Some repeat the name with every piece.
    return bool(current.arguments) and (name != current.name or _complete(current))


def _complete(call: _Call) -> bool:
    try:
        json.loads("".join(call.arguments))
    except (ValueError, RecursionError):
        return False
    return True


def whole_calls(pieces: list[UpstreamToolCall] | None, provider: str) -> tuple[ToolCall, ...]:
    """Returns the calls of an answer that was not streamed: one each, whatever their ids. Raises `BadAnswer`."""
    if not pieces:
        return ()
    calls = ToolCalls(provider)
    for number, piece in enumerate(pieces):
        calls.add(msgspec.structs.replace(piece, index=number))
    return calls.calls()
