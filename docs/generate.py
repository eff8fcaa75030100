"""Generates docs/configuration.md from the settings of every process, or checks that it is current.

python docs/generate.py           write docs/configuration.md
python docs/generate.py --check   exit 1 if it differs
"""

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from access.oidc_settings import OidcIssuer
from access.settings import AccessSettings
from chat_gateway.operator_tool_servers import OperatorToolServer
from chat_gateway.providers.settings import DialectSwitches, ProviderSettings
from chat_gateway.settings import GatewaySettings
from config_svc.settings import ConfigSettings
from parley_cli.local.settings import UpSettings
from servicekit.settings import EnvironmentSettings, Unit
from session_svc.settings import SessionSettings

PAGE = Path(__file__).with_name("configuration.md")

HEAD = """\
# Configuration

Every process is configured by environment variables, which are read once, when it starts. A process that finds a
variable wrong does not start; it prints a line for each, which names it and never shows the value. Names are in
capitals. A switch is `true` or `false` (`on`, `off`, `yes`, `no`, `1` and `0` mean the same).

This page is generated from the settings classes in the code (`make gen`), and `make check` fails where it differs.
"""

UP = """\
`parley up` starts every service with its own environment, and so with everything above. It first reads a file of
`NAME=value` lines: `.env` in the current directory where there is one, or what `--env-file` names. Variables that the
environment has already win. Values are taken as they are written (quotes around them are removed, `${NAME}` is not
expanded). Only `parley up` reads such a file: services, images and the other commands do not.
"""

OPEN_TELEMETRY = """\
With one of the endpoints, and the extra `traces` installed, a service sends spans over OTLP (gRPC). The variables are
OpenTelemetry's own and are read by its SDK, which decides what values mean; its [documentation](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/)
has all of them; the name of the service, the length of the queue and the timeout of an export are fixed. These are the
ones to know.
"""


class Row(NamedTuple):
    """One line of a table."""

    variable: str
    default: str
    unit: str
    bounds: str
    description: str


OTHER_VARIABLES = [
    Row("PARLEY_URL", "`http://127.0.0.1:8080`", "", "", "Gateway that the commands call."),
    Row("PARLEY_API_KEY", "", "", "", "Credential that the commands show."),
]
OPEN_TELEMETRY_VARIABLES = [
    Row("OTEL_EXPORTER_OTLP_ENDPOINT", "", "", "", "Collector that spans are sent to; without, none are made."),
    Row("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "", "", "The same, for traces only; goes before it."),
    Row("OTEL_EXPORTER_OTLP_HEADERS", "", "", "", "Headers for the collector: `name=value`, with commas between."),
    Row("OTEL_EXPORTER_OTLP_CERTIFICATE", "", "", "", "Certificates (PEM) of the authorities of the collector."),
    Row(
        "OTEL_EXPORTER_OTLP_INSECURE",
        "`false`",
        "",
        "",
        "Whether a collector without `http://` or `https://` in its endpoint is called without TLS.",
    ),
    Row("OTEL_TRACES_SAMPLER", "`parentbased_always_on`", "", "", "Which turns are traced."),
    Row("OTEL_TRACES_SAMPLER_ARG", "", "", "", "Argument of the sampler, such as a ratio."),
    Row("OTEL_RESOURCE_ATTRIBUTES", "", "", "", "Attributes of every span: `name=value`, with commas between."),
    Row("OTEL_BSP_SCHEDULE_DELAY", "`5000`", "ms", "", "How often spans are sent."),
    Row("OTEL_SDK_DISABLED", "`false`", "", "`true`, `false`", "Whether no spans are made, whatever else is set."),
]


def rows(settings: type[EnvironmentSettings], names: Iterable[str]) -> Iterator[Row]:
    """Yields the lines of these variables."""
    variables = settings.variables()
    return (_row(variables[name], settings.model_fields[name]) for name in names)


def _row(name: str, field: FieldInfo) -> Row:
    marks = list(_marks(field))
    unit = next((mark.name for mark in marks if isinstance(mark, Unit)), "")
    return Row(name, _default(field), unit, _bounds(field, marks), field.description or "")


def _marks(field: FieldInfo) -> Iterator[Any]:
    """Yields the annotations of a field, of `X | None` those of `X`, too."""
    yield from field.metadata
    for member in get_args(field.annotation):
        for mark in getattr(member, "__metadata__", ()):
            yield from mark.metadata if isinstance(mark, FieldInfo) else (mark,)


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required():
        return "required"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value in ("", (), {}):
        return ""
    return f"`{_text(value)}`"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return f"P{value.days}D" if value else "0"
    if isinstance(value, tuple):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bounds(field: FieldInfo, marks: list[Any]) -> str:
    kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not NoneType]
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    if kinds == [bool]:
        return "`true`, `false`"
    low = next((f"≥ {_text(mark.ge)}" for mark in marks if isinstance(mark, Ge)), "")
    low = low or next((f"> {_text(mark.gt)}" for mark in marks if isinstance(mark, Gt)), "")
    high = next((f"≤ {_text(mark.le)}" for mark in marks if isinstance(mark, Le)), "")
    high = high or next((f"< {_text(mark.lt)}" for mark in marks if isinstance(mark, Lt)), "")
    empty = "not empty" if any(isinstance(mark, MinLen) for mark in marks) else ""
    return ", ".join(filter(None, [low, high, empty]))


def _table(lines: Iterable[Row], what: str = "variable") -> str:
    head = [f"| {what} | default | unit | bounds | what it does |", "|---|---|---|---|---|"]
    body = [f"| `{one.variable}` | {one.default} | {one.unit} | {one.bounds} | {one.description} |" for one in lines]
    return "\n".join(head + body) + "\n"


def page() -> str:
    """Returns the page."""
    shared = [name for name, field in AccessSettings.model_fields.items() if field.alias_priority == 2]
    sections = [HEAD, "## Every service", _table(rows(AccessSettings, shared))]
    for service, settings in (
        ("config_svc", ConfigSettings),
        ("session_svc", SessionSettings),
        ("chat_gateway", GatewaySettings),
    ):
        own = [name for name in settings.model_fields if name not in AccessSettings.model_fields]
        inherited = [name for name in AccessSettings.model_fields if name not in shared]
        sections += [f"## {service}", _table(rows(settings, own + inherited))]
    for title, model in (
        ("A provider", ProviderSettings),
        ("A dialect", DialectSwitches),
        ("A tool server", OperatorToolServer),
        ("An issuer", OidcIssuer),
    ):
        fields = (_row(name, field) for name, field in model.model_fields.items())
        sections += [f"## {title}", _table(fields, "field")]
    only = [name for name, variable in UpSettings.variables().items() if variable.startswith("PARLEY_UP_")]
    sections += ["## The `parley` command", UP, _table([*rows(UpSettings, only), *OTHER_VARIABLES])]
    sections += ["## Traces", OPEN_TELEMETRY, _table(OPEN_TELEMETRY_VARIABLES)]
    return "\n".join(sections)


def main() -> None:
    """Generates, or checks with --check."""
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        raise SystemExit("docs/configuration.md is not current, run `make gen`")


if __name__ == "__main__":
    main()
