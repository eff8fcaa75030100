"""Instructions with `contract.placeholders`, filled from parameters, then from the session's metadata."""

import json
from collections.abc import Mapping
from typing import Any

from chat_gateway.model.errors import PlaceholderMissing
from contract import placeholders


class Instructions:
    """Parsed instructions. Parameters are filled in once, the rest per session. Values are never parsed again, so
    neither parameters nor metadata can inject a placeholder.
    """

    __slots__ = ("_pieces", "_text")

    def __init__(self, text: str, parameters: Mapping[str, Any]) -> None:
        pieces = list(placeholders.pieces(text))
        for index in range(1, len(pieces), 2):
            if pieces[index] in parameters:
                pieces[index - 1] += _as_text(parameters[pieces[index]])
                pieces[index] = ""
        self._pieces = _merged(pieces)
        self._text = self._pieces[0] if len(self._pieces) == 1 else None

    def filled(self, metadata: Mapping[str, str]) -> str:
        """Returns the text with every placeholder filled. Raises `PlaceholderMissing` for the first without a value."""
        if self._text is not None:
            return self._text
        out = list(self._pieces)
        for index in range(1, len(out), 2):
            if out[index] not in metadata:
                raise PlaceholderMissing(out[index])
            out[index] = metadata[out[index]]
        return "".join(out)


def _merged(pieces: list[str]) -> tuple[str, ...]:
    merged = [pieces[0]]
    for name, literal in zip(pieces[1::2], pieces[2::2], strict=True):
        if name:
            merged += [name, literal]
        else:
            merged[-1] += literal
    return tuple(merged)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
