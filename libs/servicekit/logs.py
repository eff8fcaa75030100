"""Structured logs on stderr: one JSON object a line, or readable lines for a terminal."""

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor

from servicekit import traces

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


def _add_trace(logger: object, method: str, event: EventDict) -> EventDict:
    ids = traces.ids()
    if ids is not None:
        event["trace_id"], event["span_id"] = ids
    return event


def _last_processors(log_format: LogFormat) -> list[Processor]:
    if log_format == "console":
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
