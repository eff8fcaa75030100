"""`parley up`, `parley down`, `parley status`: the system on this machine."""

from pathlib import Path
from typing import Annotated, Any

import typer

from parley_cli.commands.output import console, print_json
from parley_cli.errors import LocalError
from parley_cli.local import up as running
from parley_cli.local.data_directory import DataDirectory
from parley_cli.local.narrator import Narrator, process_table

MOST_GATEWAYS = 16

Data = Annotated[Path, typer.Option("--data", help="Folder of the data, logs and state.", file_okay=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def up(
    gateways: Annotated[int, typer.Option(min=1, max=MOST_GATEWAYS, help="How many gateways.")] = 1,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is ready; it runs on.")] = False,
    data: Data = Path(".parley"),
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Start the whole system on this machine, say hello to it, and keep it running."""
    narrator = Narrator(console())
    if detach:
        running.up_detached(DataDirectory(data), gateways, narrator)
    else:
        running.up(DataDirectory(data), gateways, narrator, greet=not supervised)


def down(data: Data = Path(".parley")) -> None:
    """Stop the system that runs in a data folder. Fine when there is none."""
    stopped = running.down(DataDirectory(data))
    typer.echo(f"stopped the system in {data}" if stopped else f"no system runs in {data}")


def status(data: Data = Path(".parley"), as_json: AsJson = False) -> None:
    """Show the parts of the running system. Exit code 1 when none runs."""
    directory = DataDirectory(data)
    owner = directory.owner()
    state: dict[str, Any] | None = directory.read_state() if owner is not None else None
    if state is None:
        raise LocalError(f"no system runs in {data}" if owner is None else f"the system in {data} (pid {owner}) starts")
    if as_json:
        print_json({"pid": owner, **state})
        return
    out = console()
    out.print(process_table([(part["name"], part["pid"], part["address"]) for part in state["parts"]]))
    out.print(f"{state['phase']}, HTTP {state['http_url']}, gRPC {state['grpc_target']}, supervisor pid {owner}")
