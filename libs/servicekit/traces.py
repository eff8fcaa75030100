"""Traces: spans of OpenTelemetry, made by our own code where the work is done, and W3C trace context on the wire.

Off unless an OTLP endpoint is set; a span then costs one comparison. Nothing that was said is ever an attribute here.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

from servicekit.errors import ServiceError, StartupError

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

EXPORT_SECONDS = 3.0
"""How long one export may take, the last one at the process' end among them."""
MAX_QUEUED_SPANS = 4096
"""Spans beyond these are dropped rather than kept."""

Attribute = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Attribute]
"""Names as in OpenTelemetry's semantic conventions, where they have one."""


class Span(Protocol):
    """What is being done, as a context manager: an error that leaves it is noted by its reason, never by its text."""

    def set(self, name: str, value: Attribute) -> None:
        """Notes an attribute."""
        ...

    def rename(self, name: str) -> None:
        """Names it by what is only known later, such as a route."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class _NoSpan:
    """Notes nothing."""

    __slots__ = ()

    def set(self, name: str, value: Attribute) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


NO_SPAN: Final[Span] = _NoSpan()
"""Takes the place of every span while traces are off."""

_exporter: "_Exporter | None" = None


def on() -> bool:
    """Returns whether spans are exported."""
    return _exporter is not None


def span(
    name: str, kind: str = "internal", attributes: Attributes | None = None, *, carrier: Mapping[str, str] | None = None
) -> Span:
    """Returns a span that is the running task's current one while open, as a child of the one before.

    `kind` is `internal`, `server` or `client`. `carrier` holds a remote parent's `traceparent` and `tracestate`, which
    a `server` span continues; without a valid one it begins a trace.
    """
    return NO_SPAN if _exporter is None else _exporter.span(name, kind, attributes, carrier)


def outgoing() -> tuple[tuple[str, str], ...]:
    """Returns the current span's context as headers for a peer; none while traces are off."""
    return () if _exporter is None else _exporter.outgoing()


def ids() -> tuple[str, str] | None:
    """Returns the current trace and span id in hexadecimal, as logs carry them; None where there is none."""
    return None if _exporter is None else _exporter.ids()


@contextlib.contextmanager
def exporting(service: str, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Sends spans of this process over OTLP (gRPC) while open, if the environment says where to.

    The variables are OpenTelemetry's own (`OTEL_EXPORTER_OTLP_ENDPOINT` and its kin, `OTEL_TRACES_SAMPLER`,
    `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SDK_DISABLED`). Leaving sends what is left, within `EXPORT_SECONDS`. Raises
    `StartupError` where an endpoint is set and the extra `traces` is not installed.
    """
    global _exporter
    wanted = any(environment.get(name) for name in ENDPOINT_VARIABLES)
    if not wanted or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield
        return
    _exporter = _Exporter(service)
    try:
        yield
    finally:
        exporter, _exporter = _exporter, None
        exporter.close()


class _Exporter:
    """The SDK, imported only where it is used."""

    def __init__(self, service: str) -> None:
        try:
            from opentelemetry import context, trace
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise StartupError(f"traces need the extra `traces` of this package: {error}") from error
        self._context, self._trace = context, trace
        self._propagator = TraceContextTextMapPropagator()
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter, max_queue_size=MAX_QUEUED_SPANS, export_timeout_millis=int(EXPORT_SECONDS * 1000)
            )
        )
        self._tracer = self._provider.get_tracer("parley")
        self._kinds = {kind: trace.SpanKind[kind.upper()] for kind in ("internal", "server", "client")}

    def span(self, name: str, kind: str, attributes: Attributes | None, carrier: Mapping[str, str] | None) -> Span:
        parent = None if carrier is None else self._propagator.extract(carrier, context=self._context.Context())
        return _LiveSpan(
            self._tracer.start_span(name, context=parent, kind=self._kinds[kind], attributes=attributes),
            self._context,
            self._trace,
        )

    def outgoing(self) -> tuple[tuple[str, str], ...]:
        headers: dict[str, str] = {}
        self._propagator.inject(headers)
        return tuple(headers.items())

    def ids(self) -> tuple[str, str] | None:
        found = self._trace.get_current_span().get_span_context()
        return (f"{found.trace_id:032x}", f"{found.span_id:016x}") if found.is_valid else None

    def close(self) -> None:
        self._provider.shutdown()


class _LiveSpan:
    """A span that is recorded, or at least handed on, where the sampler left it out."""

    __slots__ = ("_context", "_span", "_token", "_trace")

    def __init__(self, span: Any, context: Any, trace: Any) -> None:
        self._span = span
        self._context = context
        self._trace = trace
        self._token: Any = None

    def set(self, name: str, value: Attribute) -> None:
        self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def __enter__(self) -> Self:
        self._token = self._context.attach(self._trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._span.set_attribute("error.type", _error_type(error))
            if not isinstance(error, asyncio.CancelledError):
                self._span.set_status(self._trace.StatusCode.ERROR)
        self._span.end()
        self._context.detach(self._token)


def _error_type(error: BaseException) -> str:
    for known in (error, error.__cause__):  # an aborted call has its error as the cause
        if isinstance(known, ServiceError):
            return known.reason
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else type(error).__name__
