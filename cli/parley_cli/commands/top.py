"""`parley top`: a live view of every replica."""

import os
import sys
import time
from typing import Annotated

import typer
from rich.live import Live

from parley_cli.api import DEFAULT_URL, api_key
from parley_cli.terminal import console, is_terminal
from parley_cli.top.replicas import Replicas
from parley_cli.top.screen import render

HOUR_SECONDS = 10.0
"""Between readings of the last hour: gateways take a sample as often."""

Urls = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="URL",
        help="Where replicas serve /metrics; a name means all of its addresses. Default: PARLEY_URL.",
        show_default=False,
    ),
]
Interval = Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between updates.")]
Once = Annotated[bool, typer.Option("--once", help="Print one snapshot and exit.")]


def top(urls: Urls = None, interval: Interval = 1.0, once: Once = False) -> None:
    """Show turns, latency, queues, sessions and errors of every replica, live (Ctrl-C exits).

    Where the output is no terminal, once.
    """
    key = api_key()
    headers = {"Authorization": f"Bearer {key}"} if key else None
    replicas = Replicas(urls or [os.environ.get("PARLEY_URL") or DEFAULT_URL], headers)
    try:
        replicas.look()
        time.sleep(interval)
        if once or not is_terminal(sys.stdout):
            replicas.look()
            console().print(render(replicas.all, replicas.hour()))
            return
        hour, read_at = replicas.hour(), time.monotonic()
        with Live(render(replicas.all, hour), console=console(), screen=True, auto_refresh=False) as live:
            while True:
                replicas.look()
                if time.monotonic() - read_at >= HOUR_SECONDS:
                    hour, read_at = replicas.hour(), time.monotonic()
                live.update(render(replicas.all, hour), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        pass
    finally:
        replicas.close()
