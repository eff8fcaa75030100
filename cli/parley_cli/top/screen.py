"""How the replicas look on a terminal."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from parley_cli.terminal import in_a_line
from parley_cli.top.installation import Installation, bars
from parley_cli.top.reading import Activity
from parley_cli.top.replicas import Replica

COLUMNS = (
    "replica",
    "service",
    "per s",
    "errors",
    "p50",
    "p95",
    "first",
    "running",
    "queue",
    "agents",
    "circuits",
    "new/s",
    "loop",
    "memory",
)
_ORDER = {"gateway": 0, "session_svc": 1, "config_svc": 2}
_LATE_LOOP = 0.05
MAX_CODES = 5
"""Codes of failed turns that are shown."""


def render(replicas: Sequence[Replica], installation: Installation = Installation()) -> RenderableType:
    """Returns the whole screen: the sums, the last hour, one line a replica, and the state of the installation."""
    table = _table(*COLUMNS)
    for replica in sorted(replicas, key=_place):
        table.add_row(*_line(replica))
    return Group(_sums(replicas), *_hour(installation), Text(), table, *_states(installation))


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 2 else "right", no_wrap=True)
    return table


def _hour(installation: Installation) -> Iterator[Text]:
    rates = installation.rates
    if rates:
        yield Text.assemble(("last hour ", "dim"), bars(rates), ("  highest ", "dim"), f"{max(rates):.1f}/s")
    if installation.errors:
        counts = ", ".join(f"{code} {count}" for code, count in list(installation.errors.items())[:MAX_CODES])
        yield Text.assemble(("failed    ", "dim"), (in_a_line(counts), "red"))


def _states(installation: Installation) -> Iterator[RenderableType]:
    if not installation.states:
        return
    table = _table("replica", "service", "health check", "state")
    table.columns[-1].justify = "left"
    for one in sorted(installation.states, key=lambda one: (_ORDER.get(one.service, 3), one.address)):
        latency = None if one.latency_ms is None else one.latency_ms / 1e3
        state = Text(in_a_line(one.state), style="" if one.good else "bold red")
        table.add_row(in_a_line(one.address), in_a_line(one.service), _time(latency), state)
    yield Text()
    yield table


def _place(replica: Replica) -> tuple[int, str]:
    return (_ORDER.get(replica.last.kind, 3) if replica.last else 4, replica.address)


def _line(replica: Replica) -> list[Text]:
    name = Text(in_a_line(replica.address.removeprefix("http://")))
    if replica.trouble:
        return [name, Text(replica.trouble, style="bold red"), *(Text("") for _ in COLUMNS[2:])]
    now = replica.now
    if now is None:
        return [name, Text("reading …", style="dim"), *(Text("") for _ in COLUMNS[2:])]
    return [
        name,
        Text(now.kind),
        Text(f"{now.rate:.1f}", style="bold"),
        Text(f"{now.errors:.1f}", style="bold red" if now.errors else "dim"),
        Text(_time(now.median)),
        Text(_time(now.slow)),
        Text(_time(now.first_token)),
        Text(_count(now.running)),
        Text(_count(now.waiting), style="yellow" if now.waiting else ""),
        Text(_count(now.instances)),
        Text("" if now.circuits is None else f"{now.circuits:.0f} open" if now.circuits else "ok", style=_alarm(now)),
        Text("" if now.sessions is None else f"{now.sessions:.1f}"),
        Text(_time(now.lag), style="red" if now.lag is not None and now.lag > _LATE_LOOP else ""),
        Text("" if now.memory is None else f"{now.memory / 2**20:.0f} MB"),
    ]


def _alarm(now: Activity) -> str:
    return "bold red" if now.circuits else "dim"


def _sums(replicas: Sequence[Replica]) -> Text:
    seen = [replica.now for replica in replicas if replica.now is not None]
    gateways = [now for now in seen if now.kind == "gateway"]
    silent = sum(bool(replica.trouble) for replica in replicas)
    text = Text.assemble(
        ("turns ", "dim"), (f"{_sum(gateways, 'rate'):.1f}/s", "bold"),
        ("   errors ", "dim"), f"{_sum(gateways, 'errors'):.1f}/s",
        ("   running ", "dim"), f"{_sum(gateways, 'running'):.0f}",
        ("   queued ", "dim"), f"{_sum(gateways, 'waiting'):.0f}",
        ("   new sessions ", "dim"), f"{_sum(seen, 'sessions'):.1f}/s",
        ("   instances ", "dim"), f"{_sum(gateways, 'instances'):.0f}",
        ("   replicas ", "dim"), f"{len(seen)} of {len(replicas)}",
    )  # fmt: skip
    if silent:
        text.append(f"   {silent} silent", style="bold red")
    return text


def _sum(all_of: Sequence[Activity], name: str) -> float:
    return float(sum(getattr(one, name) or 0.0 for one in all_of))


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
