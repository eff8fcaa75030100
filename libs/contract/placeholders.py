"""Placeholders of instructions: `{{name}}`, and `{{ '{{' }}` for two literal braces."""

import re
from collections.abc import Sequence
from typing import Final

NAME: Final = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"
BRACES: Final = "{{"
"""The value of the escape, as in Jinja and Go templates."""

_PLACEHOLDER = re.compile(r"\{\{\s*(?:(" + NAME + r")|'\{\{'|\"\{\{\")\s*\}\}")


def pieces(text: str) -> Sequence[str]:
    """Returns the text as literal, name, literal, name, … literal, with every escape among the literals."""
    split = _PLACEHOLDER.split(text)
    if None not in split:
        return split
    found = [split[0]]
    for name, literal in zip(split[1::2], split[2::2], strict=True):
        if name is None:
            found[-1] += BRACES + literal
        else:
            found += [name, literal]
    return found


def names(text: str) -> tuple[str, ...]:
    """Returns the names of the placeholders of a text, each once, in order."""
    return tuple(dict.fromkeys(pieces(text)[1::2]))
