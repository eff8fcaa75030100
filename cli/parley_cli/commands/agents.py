"""`parley agents`: agent configs, over the HTTP API."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from parley_cli.api import Api
from parley_cli.commands.apply import apply, export
from parley_cli.commands.output import print_fields, print_json, print_table
from parley_cli.commands.project import Project
from parley_cli.commands.revisions import diff, list_revisions, rollback, undelete
from parley_cli.errors import LocalError

agents = typer.Typer(help="Agent configs: what agents are.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's id.")]
File = Annotated[Path, typer.Option("--file", "-f", help="YAML or JSON; - is standard input.", allow_dash=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")]

COLUMNS = {
    "id": "id",
    "name": "name",
    "template": "template_id",
    "provider": "model.provider",
    "model": "model.name",
    "revision": "revision",
    "updated": "update_time",
}
DELETED = {"deleted": "delete_time", "uid": "uid"}


def read_object(file: Path) -> dict[str, Any]:
    """Read one object from a YAML or JSON file; raises LocalError that says what is wrong."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        value = YAML(typ="safe", pure=True).load(text)
    except OSError as error:
        raise LocalError(f"cannot read {file}: {error.strerror}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise LocalError(f"{file} is neither YAML nor JSON: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise LocalError(f"{file} must hold one object")
    return value


@agents.command("list")
def list_agents(
    limit: Limit = 100,
    filter_text: Annotated[str | None, typer.Option("--filter", help="Such as 'labels.team=cx'.")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted ones too, which can be undeleted.")] = False,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """List agents."""
    with Api(project=project) as api:
        rows = api.list_all("/v1/agents", limit, filter=filter_text, show_deleted="true" if deleted else None)
    if as_json:
        print_json(rows)
    else:
        print_table(rows, COLUMNS | (DELETED if deleted else {}), nothing="no agents")


@agents.command("get")
def get_agent(agent_id: Id, project: Project = None, as_json: AsJson = False) -> None:
    """Show one agent."""
    with Api(project=project) as api:
        agent = api.get(f"/v1/agents/{agent_id}")
    print_json(agent) if as_json else print_fields(agent)


@agents.command("create")
def create_agent(file: File, project: Project = None, as_json: AsJson = False) -> None:
    """Create an agent from a file."""
    with Api(project=project) as api:
        agent = api.send("POST", "/v1/agents", read_object(file))
    if as_json:
        print_json(agent)
    else:
        typer.echo(f"created {agent['id']} (revision {agent['revision']})")


@agents.command("update")
def update_agent(agent_id: Id, file: File, project: Project = None, as_json: AsJson = False) -> None:
    """Change the fields of an agent that the file names; the others are kept. An `etag` in the file is checked."""
    with Api(project=project) as api:
        agent = api.send("PATCH", f"/v1/agents/{agent_id}", read_object(file))
    if as_json:
        print_json(agent)
    else:
        typer.echo(f"updated {agent['id']} (revision {agent['revision']})")


@agents.command("delete")
def delete_agent(agent_id: Id, project: Project = None) -> None:
    """Delete an agent, with its sessions."""
    with Api(project=project) as api:
        api.send("DELETE", f"/v1/agents/{agent_id}")
    typer.echo(f"deleted {agent_id}")


agents.command()(apply)
agents.command()(export)
agents.command("revisions")(list_revisions)
agents.command()(diff)
agents.command()(rollback)
agents.command()(undelete)
