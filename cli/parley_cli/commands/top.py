"""`parley top`: a live view of every replica."""

import os
import sys
import time
from typing import Annotated

import typer

from parley_cli.api import DEFAULT_URL, api_key
from parley_cli.terminal import console, is_terminal

INSTALLATION_SECONDS = 10.0
"""Between readings of what gateways report of the installation: they take a sample as often."""

Urls = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="URL",
        help="Base URLs of the replicas' /metrics; a host name stands for all of its addresses. Default: PARLEY_URL.",
        show_default=False,
    ),
]
Interval = Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between updates.")]
Once = Annotated[bool, typer.Option("--once", help="Print one snapshot and exit.")]


def top(urls: Urls = None, interval: Interval = 1.0, once: Once = False) -> None:
    """Show turns, latency, queues and errors of every replica, live (Ctrl-C exits).

    With the operator key (PARLEY_API_KEY) also the last hour and the health of all services. Prints one snapshot
    if the output is not a terminal.
    """
    # Imported here: the other commands do without.
    from rich.live import Live

    from parley_cli.top.replicas import Replicas
    from parley_cli.top.screen import render

    key = api_key()
    headers = {"Authorization": f"Bearer {key}"} if key else None
    replicas = Replicas(urls or [os.environ.get("PARLEY_URL") or DEFAULT_URL], headers)
    try:
        replicas.look()
        time.sleep(interval)
        if once or not is_terminal(sys.stdout):
            replicas.look()
            console().print(render(replicas.all, replicas.installation()))
            return
        installation, read_at = replicas.installation(), time.monotonic()
        with Live(render(replicas.all, installation), console=console(), screen=True, auto_refresh=False) as live:
            while True:
                replicas.look()
                if time.monotonic() - read_at >= INSTALLATION_SECONDS:
                    installation, read_at = replicas.installation(), time.monotonic()
                live.update(render(replicas.all, installation), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        pass
    finally:
        replicas.close()
