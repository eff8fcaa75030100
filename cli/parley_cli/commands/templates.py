"""`parley templates`: the kinds of agents that the runtime can build."""

from typing import Annotated

import typer

from parley_cli.api import Api
from parley_cli.commands.output import print_json, print_table

templates = typer.Typer(help="List the templates of agents.", no_args_is_help=True)

COLUMNS = {"id": "id", "version": "version", "description": "description"}


@templates.callback()
def _group() -> None:
    """List the templates of agents."""


@templates.command("list")
def list_templates(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List templates."""
    with Api() as api:
        rows = api.list_all("/v1/templates")
    if as_json:
        print_json(rows)
    else:
        print_table(rows, COLUMNS, nothing="no templates")
