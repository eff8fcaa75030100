"""Finds whether a call's arguments, which come in pieces, are whole."""

import json
import re
from collections.abc import Sequence
from typing import Final

_MARK: Final = re.compile(r'["\\{}\[\]]')
_MAX_PLAIN: Final = 64
"""Characters of arguments that are neither an object nor a list, and yet JSON."""


class ArgumentsEnd:
    """Reads each piece once, however often it is asked."""

    __slots__ = ("_broken", "_closed", "_depth", "_escaped", "_in_text", "_read", "_valid")

    def __init__(self) -> None:
        self._read = self._depth = 0
        self._in_text = self._escaped = self._closed = self._broken = False
        self._valid: bool | None = None

    def is_reached(self, pieces: Sequence[str]) -> bool:
        """Returns whether the pieces are JSON together. They are those of the last time, and more."""
        if not self._depth and not self._closed and sum(map(len, pieces[: _MAX_PLAIN + 1])) <= _MAX_PLAIN:
            return is_json("".join(pieces))
        for piece in pieces[self._read :]:
            self._take(piece)
        self._read = len(pieces)
        if not self._closed or self._broken:
            return False
        if self._valid is None:
            self._valid = is_json("".join(pieces))
        return self._valid

    def _take(self, piece: str) -> None:
        if self._closed:
            self._broken = self._broken or bool(piece.strip())
            return
        place, self._escaped = int(self._escaped and bool(piece)), self._escaped and not piece
        while (mark := _MARK.search(piece, place)) is not None:
            found, place = mark[0], mark.end()
            if self._in_text:
                if found == "\\":
                    self._escaped = place == len(piece)
                    place += 1
                elif found == '"':
                    self._in_text = False
            elif found == '"':
                self._in_text = True
            elif found in "{[":
                self._depth += 1
            elif found in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self._closed, self._broken = True, bool(piece[place:].strip())
                    return


def is_json(text: str) -> bool:
    """Returns whether a text is JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
