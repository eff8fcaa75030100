"""`parley agents`: agent configs, over the HTTP API."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml.error import YAMLError

from parley_cli.api import Api, path_of
from parley_cli.commands.apply import apply, export
from parley_cli.commands.completion import agent_ids
from parley_cli.commands.confirm import Yes
from parley_cli.commands.output import print_json
from parley_cli.commands.project import Project
from parley_cli.commands.resource import ALL, AsJson, Limit, delete, print_list, show
from parley_cli.commands.revisions import diff, list_revisions, rollback, undelete
from parley_cli.declared.agent_file import MAX_BYTES
from parley_cli.declared.yaml_bounds import YamlTooLarge, load_yaml
from parley_cli.errors import LocalError
from parley_cli.terminal import echo, standard_input
from servicekit.files import read_text_file

agents = typer.Typer(help="Manage agents.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's id.", autocompletion=agent_ids)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Validate without changing anything.")]
File = Annotated[Path, typer.Option("--file", "-f", help="YAML or JSON; - is standard input.", allow_dash=True)]

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
        text = standard_input().read() if str(file) == "-" else read_text_file(file, MAX_BYTES)
        value = load_yaml(text)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except OSError as error:
        raise LocalError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LocalError(f"{file} is not UTF-8") from None
    except (YamlTooLarge, RecursionError) as error:
        raise LocalError(f"{file}: {error}") from None
    except (YAMLError, ValueError) as error:
        raise LocalError(f"{file} is neither YAML nor JSON: {' '.join(str(error).split())}") from None
    except TypeError as error:
        raise LocalError(f"{file} holds what JSON has not: {error}: put it into quotes") from None
    if not isinstance(value, dict):
        raise LocalError(f"{file} must hold one object")
    return value


@agents.command("list")
def list_agents(
    limit: Limit = ALL,
    filter_text: Annotated[str | None, typer.Option("--filter", help="A filter, such as 'labels.team=cx'.")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Include deleted agents, which can be undeleted.")] = False,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """List agents."""
    print_list(
        "/v1/agents",
        COLUMNS | (DELETED if deleted else {}),
        project,
        limit=limit,
        nothing="no agents",
        as_json=as_json,
        filter=filter_text,
        show_deleted="true" if deleted else None,
    )


@agents.command("get")
def get_agent(agent_id: Id, project: Project = None, as_json: AsJson = False) -> None:
    """Show one agent."""
    show("agents", agent_id, project, as_json=as_json)


@agents.command("create")
def create_agent(file: File, dry_run: DryRun = False, project: Project = None, as_json: AsJson = False) -> None:
    """Create an agent from a file."""
    with Api(project=project) as api:
        agent = api.send("POST", "/v1/agents", read_object(file), params=_params(dry_run))
    _print(agent, "created", dry_run=dry_run, as_json=as_json)


@agents.command("update")
def update_agent(
    agent_id: Id, file: File, dry_run: DryRun = False, project: Project = None, as_json: AsJson = False
) -> None:
    """Change those fields of an agent that are in the file. An `etag` in the file must match."""
    with Api(project=project) as api:
        agent = api.send("PATCH", path_of("agents", agent_id), read_object(file), params=_params(dry_run))
    _print(agent, "updated", dry_run=dry_run, as_json=as_json)


@agents.command("delete")
def delete_agent(agent_id: Id, project: Project = None, yes: Yes = False) -> None:
    """Delete an agent and its sessions."""
    delete("agents", agent_id, f"agent {agent_id}, with its sessions", project, yes=yes)


def _params(dry_run: bool) -> dict[str, str | int]:
    return {"validate_only": "true"} if dry_run else {}


def _print(agent: dict[str, Any], done: str, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(agent)
    elif dry_run:
        echo(f"{agent['id']} would be {done}")
    else:
        echo(f"{done} {agent['id']} (revision {agent['revision']})")


agents.command()(apply)
agents.command()(export)
agents.command("revisions")(list_revisions)
agents.command()(diff)
agents.command()(rollback)
agents.command()(undelete)
