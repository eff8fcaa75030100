"""The last hour of all gateways, as each keeps it (`/v1/figures`), in one line."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx

PATH = "/v1/figures"
WIDTH = 60
"""Characters: a minute each."""
MINUTE = 60.0
_BARS = "▁▂▃▄▅▆▇█"


def turns_a_second(figures: Sequence[dict[str, Any]]) -> list[float]:
    """Returns the turns a second of each minute that some gateway has samples of, the oldest first, at most 60."""
    minutes: dict[int, float] = {}
    for gateway in figures:
        for sample in gateway["samples"]:
            minute = int(datetime.fromisoformat(sample["time"]).timestamp() // MINUTE)
            minutes[minute] = minutes.get(minute, 0.0) + sample["turns"] / MINUTE
    return [minutes[minute] for minute in sorted(minutes)][-WIDTH:]


def read_hour(client: httpx.Client, address: str) -> dict[str, Any] | None:
    """Returns the figures of the gateway at an address; None where it has none, or does not show them."""
    try:
        response = client.get(f"{address}{PATH}")
        found = response.json() if response.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("samples"), list) else None


def line(rates: Sequence[float]) -> str:
    """Returns the rates as bars, the highest of which is full."""
    most = max(rates, default=0.0)
    scale = (len(_BARS) - 1) / most if most else 0.0
    return "".join(_BARS[round(rate * scale)] for rate in rates)
