"""How many values JSON holds: a decoder makes an object of every two bytes that say so, all at once."""

import re
from itertools import islice
from typing import Final

_MARK: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,{[]', re.DOTALL)
_QUOTE: Final = ord('"')
_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)
_TEXT_END: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)


def marks_of(body: bytes) -> int:
    """Returns how many commas and opening brackets there are, in texts too: one for each value but the first."""
    return body.count(b",") + body.count(b"{") + body.count(b"[")


def is_wider_than(body: bytes, maximum: int) -> bool:
    """Returns whether JSON holds more than `maximum` values, in time that depends on that number and on its texts."""
    if marks_of(body) <= maximum:
        return False
    marks = texts = 0
    # JSON has a mark for every two texts: a name and its value. What has fewer is none, and not read to its end.
    for found in islice(_MARK.finditer(body), 3 * maximum + 3):
        is_text = body[found.start()] == _QUOTE
        texts, marks = texts + is_text, marks + (not is_text)
        if marks > maximum or texts > 2 * maximum + 1:
            return True
    return False


class ValueCount:
    """Counts values as `is_wider_than` does, where JSON comes in parts; each byte is read once."""

    __slots__ = ("_escaped", "_in_text", "_marks", "_texts")

    def __init__(self) -> None:
        self._marks = self._texts = 0
        self._in_text = self._escaped = False

    def add(self, part: bytes) -> None:
        """Counts what a part holds, of which a text may begin in it or end in it."""
        if self._in_text:
            end = _TEXT_END.match(part, int(self._escaped))
            if end is None or not end[1]:
                self._escaped = end is not None and end.end() < len(part)
                return
            part = part[end.end() :]
        pieces = _TEXT.split(part)  # what is outside of texts, and how each text ends, in turn
        self._marks += marks_of(b"".join(pieces[::2]))
        self._texts += len(pieces) // 2
        self._in_text = len(pieces) > 1 and not pieces[-2]
        self._escaped = self._in_text and pieces[-1] == b"\\"

    def exceeds(self, maximum: int) -> bool:
        """Returns whether there are more than `maximum` values, as far as is known."""
        return self._marks > maximum or self._texts > 2 * maximum + 1
