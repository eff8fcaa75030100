"""`parley up`, `parley down`, `parley status`: the system on this machine.

What they need (database drivers, gRPC) is imported when they run: the other commands do without.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from parley_cli.commands.output import print_json
from parley_cli.errors import LocalError, MissingPart
from parley_cli.terminal import console, echo

MAX_GATEWAYS = 16

Data = Annotated[Path, typer.Option("--data", help="Folder for data, logs and state.", file_okay=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def _everything_installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPart(f"the Python module {error.name}", "pip install 'parley[dev]', or `make run`") from None


def up(
    gateways: Annotated[int, typer.Option(min=1, max=MAX_GATEWAYS, help="Number of gateways.")] = 1,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background; return when it is ready.")] = False,
    data: Data = Path(".parley"),
    auth: Annotated[
        bool, typer.Option("--auth", help="Require credentials; the operator key is stored in the data folder.")
    ] = False,
    env_file: Annotated[
        Path | None,
        typer.Option(
            "--env-file", help="File of NAME=value lines; default: .env. Environment variables take precedence."
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart/--no-restart", help="Restart processes that die, at most three times a minute."),
    ] = True,
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Start the whole system on this machine, hold a first conversation, and keep it running."""
    with _everything_installed():
        from parley_cli.local import up as running
        from parley_cli.local.data_directory import DataDirectory
        from parley_cli.local.env_file import load_env_file
        from parley_cli.local.narrator import Narrator
    if not supervised:  # whoever started this process has read it
        load_env_file(env_file)
    narrator = Narrator(console())
    if auth:
        with _everything_installed():
            from parley_cli.local.operator_key import require_credentials
        require_credentials(DataDirectory(data), narrator)
    if detach:
        running.up_detached(DataDirectory(data), gateways, narrator, restart=restart)
    else:
        running.up(DataDirectory(data), gateways, narrator, greet=not supervised, restart=restart)


def down(data: Data = Path(".parley")) -> None:
    """Stop the system that runs in a data folder. Succeeds if none runs."""
    with _everything_installed():
        from parley_cli.local import down as stopping
        from parley_cli.local.data_directory import DataDirectory
    stopped = stopping.down(DataDirectory(data))
    echo(f"stopped the system in {data}" if stopped else f"no system runs in {data}")


def status(data: Data = Path(".parley"), as_json: AsJson = False) -> None:
    """Show the processes of the running system. Exits with 1 if none runs."""
    with _everything_installed():
        from parley_cli.local.data_directory import DataDirectory
        from parley_cli.local.narrator import process_table
    directory = DataDirectory(data)
    owner = directory.owner()
    if owner is None:
        raise LocalError(f"no system runs in {data}")
    state = directory.read_state()
    if state is None:
        raise LocalError(f"the system in {data} (pid {owner}) is still starting")
    if as_json:
        print_json({"pid": owner, **state})
        return
    out = console()
    out.print(process_table([(part["name"], part["pid"], part["address"]) for part in state["parts"]]))
    echo(f"{state['phase']}, HTTP {state['http_url']}, gRPC {state['grpc_target']}, supervisor pid {owner}")
