"""Structured logs on stderr: one JSON object a line, or readable lines for a terminal."""

import logging
import sys
import time
from io import StringIO
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

from servicekit import traces

_GRPCIO = "grpc._cython.cygrpc"

LogFormat = Literal["json", "console"]


def configure(level: str = "info", log_format: LogFormat = "json") -> None:
    """Sends all logs of this process, the standard library's included, to stderr from `level` upwards.

    May be called again; the last call counts for loggers that have not logged yet.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last = _last_processors(log_format)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(number)
    logging.getLogger(_GRPCIO).filters[:] = [_CallersFaults()]


class SampledLines:
    """Allows a number of lines a second, and counts the others."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._written = 0
        self._left_out = 0
        self._second = 0

    def take(self) -> bool:
        """Returns whether one more line may be written now."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written < self._maximum:
            self._written += 1
            return True
        self._left_out += 1
        return False

    def left_out(self) -> dict[str, int]:
        """Returns the field that counts what was left out since this was asked last; nothing for none."""
        left_out, self._left_out = self._left_out, 0
        return {"left_out": left_out} if left_out else {}


class _CallersFaults(logging.Filter):
    """Samples what grpcio says of calls, which callers can make it say as often as they like.

    Metadata that is not UTF-8 is left out of it: it may be a credential, and of any size.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines = SampledLines(5)

    def filter(self, record: logging.LogRecord) -> bool:
        if not self._lines.take():
            return False
        if str(record.msg).startswith("Invalid encoding on "):
            record.msg, record.args, record.exc_info = "grpc_metadata_not_utf8", (), None
        record.__dict__.update(self._lines.left_out())
        return True


def _add_trace(logger: object, method: str, event: EventDict) -> EventDict:
    ids = traces.ids()
    if ids is not None:
        event["trace_id"], event["span_id"] = ids
    return event


def _last_processors(log_format: LogFormat) -> list[Processor]:
    if log_format == "console":
        colors = sys.stderr.isatty()
        return [_harmless, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_harmless_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _harmless(logger: object, method: str, event: EventDict) -> EventDict:
    """Escapes what would begin a line of its own or command the terminal; JSON has no such characters."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = _escaped(value, "")
    return event


def _escaped(text: str, kept: str) -> str:
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def _harmless_traceback(stream: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    text = StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    # Indented: a line of its text is none of the log's.
    stream.write(_escaped(text.getvalue(), "\n\t").replace("\n", "\n    "))
