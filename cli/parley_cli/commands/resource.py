"""What the commands do with one resource of the HTTP API, and with lists of them."""

from typing import Annotated

import typer

from parley_cli.api import Api, path_of
from parley_cli.commands.confirm import confirm_deletion
from parley_cli.commands.output import print_fields, print_json, print_table
from parley_cli.terminal import echo, echo_error

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=0, help="Maximum number of results; 0: all.")]
ALL = 0
"""The default limit of what people create; what traffic creates (sessions, events) has a lower one."""


def show(collection: str, resource_id: str, project: str | None, *, as_json: bool) -> None:
    """Print one resource, a field a line."""
    with Api(project=project) as api:
        value = api.get(path_of(collection, resource_id))
    print_json(value) if as_json else print_fields(value)


def print_list(
    path: str,
    columns: dict[str, str],
    project: str | None,
    *,
    limit: int,
    nothing: str,
    as_json: bool,
    **params: str | int | None,
) -> None:
    """Print the first `limit` objects of a list as `print_table` does, or as JSON; `params` is the query."""
    with Api(project=project) as api:
        rows, more = api.list_first(path, limit, **params)
    print_json(rows) if as_json else print_table(rows, columns, nothing=nothing)
    if more:
        report_more(limit)


def report_more(limit: int) -> None:
    """Say on standard error that a list goes on, and how to get the rest."""
    echo_error(f"parley: these are the first {limit}, there are more (--limit 0 lists all)")


def delete(
    collection: str, resource_id: str, what: str, project: str | None, *, yes: bool, verb: str = "delete"
) -> None:
    """Delete one resource, once the user has confirmed it. Without a terminal it is deleted without asking."""
    confirm_deletion(what, yes=yes, verb=verb, unasked=True)
    with Api(project=project) as api:
        api.send("DELETE", path_of(collection, resource_id))
    echo(f"{verb}d {resource_id}")
