"""How the commands print what the server says."""

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from parley_cli.terminal import console, echo, in_a_line, is_terminal

_FRACTION = re.compile(r"\.\d+Z$")


def print_json(value: Any) -> None:
    """Print a value as JSON, indented, for people and for `jq`."""
    echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[dict[str, Any]], columns: dict[str, str], *, nothing: str) -> None:
    """Print one line per row; `columns` maps headings to dotted paths. Without rows, print `nothing`."""
    out = console()
    if not rows:
        out.print(Text(nothing, style="dim"))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in columns:
        table.add_column(heading, **_OVERFLOW[is_terminal(sys.stdout)])
    for row in rows:
        table.add_row(*(Text(in_a_line(_cell(row, path))) for path in columns.values()))
    out.print(table)


def print_fields(value: dict[str, Any]) -> None:
    """Print one object, a field a line; nested objects as compact JSON."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(**_OVERFLOW[is_terminal(sys.stdout)])
    for key, field in value.items():
        table.add_row(Text(in_a_line(key)), Text(in_a_line(_text(field))))
    console().print(table)


_OVERFLOW: dict[bool, dict[str, Any]] = {True: {"overflow": "fold"}, False: {"overflow": "ignore", "no_wrap": True}}
"""Into a pipe an id is one word of one line, however long."""


def _cell(row: dict[str, Any], path: str) -> str:
    value: Any = row
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    text = _text(value)
    return _FRACTION.sub("Z", text) if path.endswith("_time") else text


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
