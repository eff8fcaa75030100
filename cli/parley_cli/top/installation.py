"""What gateways report of the whole installation (`/v1/replicas`): the last hour, and the state of every replica."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

PATH = "/v1/replicas"
MAX_MINUTES = 60
_MINUTE_SECONDS = 60.0
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class State:
    """One replica as a gateway sees it."""

    service: str
    address: str
    state: str
    """For example `ready`, or what is wrong."""
    good: bool
    latency_ms: float | None = None
    """Of its health check."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The last hour of all gateways, and the state of all replicas; empty where no gateway reports it."""

    rates: Sequence[float] = ()
    """Turns a second of each minute that some gateway has samples of, oldest first, at most 60."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """Failed turns of the hour by code, the most frequent first."""
    states: Sequence[State] = ()


def read_installation(client: httpx.Client, addresses: Sequence[str]) -> Installation:
    """Asks the gateways at the addresses one by one, until their answers cover as many gateways as there are addresses.

    A gateway that fails, or does not report to this caller, is passed over.
    """
    gateways: dict[str, dict[str, Any]] = {}
    states: dict[tuple[str, str], State] = {}
    for address in addresses:
        try:
            answer = client.get(f"{address}{PATH}").raise_for_status().json()
            found = {_identity(one): one for one in answer["data"]}
            seen = [*(_gateway_state(one) for one in answer["data"]), *map(_service_state, answer.get("services", ()))]
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError):
            continue
        gateways |= found
        states |= {(one.service, one.address): one for one in seen}
        if len(gateways) >= len(addresses):
            break
    figures = [one["figures"] for one in gateways.values() if one["figures"] is not None]
    return Installation(turns_a_second(figures), errors_by_code(figures), list(states.values()))


def turns_a_second(figures: Sequence[Mapping[str, Any]]) -> list[float]:
    """Returns the turns a second of each minute that some gateway has samples of, oldest first, at most 60."""
    minutes: dict[int, float] = {}
    for sample in (sample for gateway in figures for sample in gateway["samples"]):
        minute = int(datetime.fromisoformat(sample["time"]).timestamp() // _MINUTE_SECONDS)
        minutes[minute] = minutes.get(minute, 0.0) + sample["turns"] / _MINUTE_SECONDS
    return [minutes[minute] for minute in sorted(minutes)][-MAX_MINUTES:]


def errors_by_code(figures: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Returns how many turns of all samples failed, by code, the most frequent first."""
    errors: Counter[str] = Counter()
    for sample in (sample for gateway in figures for sample in gateway["samples"]):
        errors.update(sample["errors"])
    return dict(errors.most_common())


def bars(rates: Sequence[float]) -> str:
    """Returns one character for each rate, the highest of which is a full bar."""
    highest = max(rates, default=0.0)
    scale = (len(_BARS) - 1) / highest if highest else 0.0
    return "".join(_BARS[round(rate * scale)] for rate in rates)


def _identity(gateway: Mapping[str, Any]) -> str:
    figures = gateway["figures"]
    return str(gateway["address"] if figures is None else figures["replica"])


def _gateway_state(gateway: Mapping[str, Any]) -> State:
    address, figures = str(gateway["address"]), gateway["figures"]
    if figures is None:
        return State("gateway", address, str(gateway["problem"]), good=False)
    problems = [f"{name}: {state}" for name, state in figures["parts"].items() if state != "ok"]
    ready = bool(figures["ready"])
    return State("gateway", address, ", ".join(("ready" if ready else "not ready", *problems)), good=ready)


def _service_state(replica: Mapping[str, Any]) -> State:
    state = str(replica["state"])
    return State(
        str(replica["service"]),
        str(replica["address"]),
        state.replace("_", " "),
        good=state == "serving",
        latency_ms=None if replica["latency_ms"] is None else float(replica["latency_ms"]),
    )
