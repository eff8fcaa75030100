"""`parley agents revisions|diff|rollback|undelete`: what an agent was, over the HTTP API."""

from typing import Annotated

import typer

from parley_cli.api import Api, path_of
from parley_cli.commands.apply import change_lines
from parley_cli.commands.completion import agent_ids
from parley_cli.commands.output import print_json, print_table
from parley_cli.commands.project import Project
from parley_cli.commands.resource import ALL, AsJson, Limit, report_more
from parley_cli.declared.plan import FieldChange
from parley_cli.terminal import echo

Id = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's id.", autocompletion=agent_ids)]

COLUMNS = {
    "revision": "revision",
    "written": "create_time",
    "author": "author",
    "comment": "comment",
    "changed": "changed_fields",
}


def list_revisions(
    agent_id: Id,
    limit: Limit = ALL,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """List an agent's revisions, newest first, with time, author, comment and changed fields."""
    with Api(project=project) as api:
        rows, more = api.list_first(path_of("agents", agent_id, "revisions"), limit)
    if as_json:
        print_json(rows)
    else:
        shown = [row | {"changed_fields": ", ".join(row.get("changed_fields", []))} for row in rows]
        print_table(shown, COLUMNS, nothing="no revisions")
    if more:
        report_more(limit)


def diff(
    agent_id: Id,
    from_revision: Annotated[int, typer.Option("--from", min=0, help="0: the revision before --to.")] = 0,
    to_revision: Annotated[int, typer.Option("--to", min=0, help="0: the current revision.")] = 0,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Show the differences between two revisions of an agent; by default, its last change."""
    with Api(project=project) as api:
        found = api.get(path_of("agents", agent_id, "compare"), from_revision=from_revision, to_revision=to_revision)
    if as_json:
        print_json(found)
        return
    echo(f"{agent_id}: revision {found['from_revision']} -> {found['to_revision']}")
    for one in found["differences"]:
        for line in change_lines(FieldChange(one["path"], one.get("from"), one.get("to"))):
            echo(f"    {line}")


def rollback(
    agent_id: Id,
    revision: Annotated[int, typer.Argument(min=1, help="The revision to return to.")],
    comment: Annotated[str, typer.Option("--comment", help="A comment on the new revision.")] = "",
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Create a new revision with the content of an older one."""
    with Api(project=project) as api:
        agent = api.send("POST", path_of("agents", agent_id) + ":rollback", {"revision": revision, "comment": comment})
    if as_json:
        print_json(agent)
    else:
        echo(f"rolled back {agent['id']} to revision {revision} (revision {agent['revision']})")


def undelete(
    agent_id: Id,
    new_id: Annotated[str | None, typer.Option("--as", metavar="AGENT", help="Restore it under another id.")] = None,
    uid: Annotated[
        str | None, typer.Option("--uid", help="Its uid, if several deleted agents had this id; default: the last one.")
    ] = None,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Restore a deleted agent with its revisions. Its sessions stay deleted."""
    with Api(project=project) as api:
        agent = api.send("POST", path_of("agents", agent_id) + ":undelete", {"id": new_id, "uid": uid})
    if as_json:
        print_json(agent)
    else:
        echo(f"undeleted {agent['id']} (revision {agent['revision']}, uid {agent['uid']})")
