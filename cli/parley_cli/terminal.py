"""Standard input, output and error. What others wrote is shown on a terminal, never obeyed by it."""

import os
import re
import sys
from typing import IO, NoReturn, TextIO

from rich.console import Console

from parley_cli.errors import LocalError

PIPE_WIDTH = 2**31
"""Columns if the output is not a terminal: programs get whole lines."""

# Controls but for tab and line feed, C1 (one of them begins what ESC [ does), what reorders text, and halves of pairs.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_BREAK = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


class ClosedOutput(LocalError):
    """Who reads the output has left."""

    def __init__(self) -> None:
        super().__init__("standard output was closed by its reader")


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise ClosedOutput


def prepare() -> None:
    """Makes the streams such that any text can be written. Raises LocalError where there is no standard output."""
    if sys.stderr is None:  # closed by the caller
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None:
        raise LocalError("standard output is closed")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if hasattr(sys.stdin, "reconfigure") and not is_terminal(sys.stdin):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # whatever the locale: it is YAML, JSON, text to send


def is_terminal(stream: IO[str] | None) -> bool:
    """Returns whether somebody sits at the stream."""
    return stream is not None and not stream.closed and stream.isatty()


def colours_wanted() -> bool:
    """Returns whether styles may be used: NO_COLOR (no-color.org), where it is not empty, means none."""
    return not os.environ.get("NO_COLOR")


def console() -> Console:
    """Returns a console on standard output as it is now."""
    width = None if is_terminal(sys.stdout) else PIPE_WIDTH
    return _Console(highlight=False, width=width, color_system="auto" if colours_wanted() else None)


def escaped(text: str) -> str:
    r"""Returns a text without characters that a terminal obeys: they are written as in JSON, `\u001b`."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shown(text: str, stream: IO[str] | None = None) -> str:
    """Returns a text of whatever origin as it is written to a stream (standard output): escaped on a terminal."""
    return escaped(text) if is_terminal(stream or sys.stdout) else text


def in_a_line(text: str) -> str:
    """Returns a text as `shown`, in one line."""
    return shown("".join(_BREAK.get(letter, letter) for letter in text) if set(text) & _BREAK.keys() else text)


def echo(text: object = "", *, end: str = "\n") -> None:
    """Writes text of whatever origin to standard output. Raises ClosedOutput; OSError where it can't be written."""
    try:
        print(shown(str(text)), end=end, flush=True)
    except BrokenPipeError:
        raise ClosedOutput from None


def echo_error(text: object) -> None:
    """Writes a line of whatever origin to standard error."""
    print(shown(str(text), sys.stderr), file=sys.stderr, flush=True)


def standard_input() -> TextIO:
    """Returns standard input. Raises LocalError where it is closed."""
    if sys.stdin is None or sys.stdin.closed:
        raise LocalError("standard input is closed")
    return sys.stdin


def read_line(prompt: str = "") -> str:
    """Reads a line, after a prompt where somebody sits at the terminal. Raises EOFError at the end, and LocalError."""
    source = standard_input()
    try:
        if is_terminal(source):
            return input(prompt)
        line = source.readline()
    except UnicodeDecodeError:
        raise LocalError("standard input is not UTF-8") from None
    except OSError as error:
        raise LocalError(f"cannot read standard input: {error.strerror}") from None
    if not line:
        raise EOFError
    return line.rstrip("\n")
