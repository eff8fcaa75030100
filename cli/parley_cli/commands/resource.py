"""What the commands do with one resource of the HTTP API, and with lists of them."""

from typing import Annotated, Any

import typer

from parley_cli.api import Api, path_of
from parley_cli.commands.confirm import confirm_deletion
from parley_cli.commands.output import print_fields, print_json, print_table
from parley_cli.terminal import echo

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of results.")]


def show(collection: str, resource_id: str, project: str | None, *, as_json: bool) -> None:
    """Print one resource, a field a line."""
    with Api(project=project) as api:
        value = api.get(path_of(collection, resource_id))
    print_json(value) if as_json else print_fields(value)


def print_rows(rows: list[dict[str, Any]], columns: dict[str, str], *, nothing: str, as_json: bool) -> None:
    """Print a list as `print_table` does, or as JSON."""
    print_json(rows) if as_json else print_table(rows, columns, nothing=nothing)


def delete(
    collection: str, resource_id: str, what: str, project: str | None, *, yes: bool, verb: str = "delete"
) -> None:
    """Delete one resource, once the user has confirmed it. Without a terminal it is deleted without asking."""
    confirm_deletion(what, yes=yes, verb=verb, unasked=True)
    with Api(project=project) as api:
        api.send("DELETE", path_of(collection, resource_id))
    echo(f"{verb}d {resource_id}")
