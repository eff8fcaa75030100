"""How the commands print what the server says."""

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 240
_FRACTION = re.compile(r"\.\d+Z$")


def console() -> Console:
    """Return a console on standard output as it is now; into a pipe, tables have no maximum width."""
    known_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if known_width else PIPE_WIDTH)


def print_json(value: Any) -> None:
    """Print a value as JSON, indented, for people and for `jq`."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[dict[str, Any]], columns: dict[str, str], *, nothing: str) -> None:
    """Print one line per row; `columns` maps headings to dotted paths. Without rows, print `nothing`."""
    out = console()
    if not rows:
        out.print(Text(nothing, style="dim"))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row, path)) for path in columns.values()))
    out.print(table)


def print_fields(value: dict[str, Any]) -> None:
    """Print one object, a field a line; nested objects as compact JSON."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for key, field in value.items():
        table.add_row(key, Text(_text(field)))
    console().print(table)


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
