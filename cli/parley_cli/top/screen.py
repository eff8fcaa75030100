"""How the replicas look on a terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from parley_cli.terminal import in_a_line
from parley_cli.top.hour import line
from parley_cli.top.reading import Activity
from parley_cli.top.replicas import Replica

COLUMNS = (
    "replica",
    "service",
    "per s",
    "errors",
    "p50",
    "p95",
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


def render(replicas: Sequence[Replica], hour: Sequence[float] = ()) -> RenderableType:
    """Returns the whole screen: the sums, the last hour in turns a second, and one line a replica."""
    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    for number, heading in enumerate(COLUMNS):
        table.add_column(heading, justify="left" if number < 2 else "right", no_wrap=True)
    for replica in sorted(replicas, key=_place):
        table.add_row(*_line(replica))
    past = (
        Text.assemble(("last hour ", "dim"), line(hour), ("  most ", "dim"), f"{max(hour):.1f}/s") if hour else Text()
    )
    return Group(_sums(replicas), past, Text(), table)


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
