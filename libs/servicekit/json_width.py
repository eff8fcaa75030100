"""How many values JSON holds: a decoder makes an object of every two bytes that say so, all at once."""

import re
from itertools import islice
from typing import Final

_MARK: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,{[]', re.DOTALL)
_QUOTE: Final = ord('"')


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
