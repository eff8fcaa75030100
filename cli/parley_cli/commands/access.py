"""`parley projects`, `parley keys`, `parley audit`: who may do what, over the HTTP API."""

from typing import Annotated, Any

import typer

from parley_cli.api import Api, path_of
from parley_cli.commands.confirm import Yes, confirm_deletion
from parley_cli.commands.output import print_fields, print_json
from parley_cli.commands.project import Project
from parley_cli.commands.resource import ALL, AsJson, Limit, delete, print_list, show
from parley_cli.terminal import echo

projects = typer.Typer(help="Manage projects, which isolate agents, sessions and keys.", no_args_is_help=True)
keys = typer.Typer(help="Manage API keys.", no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id.")]

_KEY_COLUMNS = {
    "id": "id",
    "name": "display_name",
    "scopes": "scopes",
    "user": "user_id",
    "last used": "last_used_time",
    "expires": "expire_time",
    "revoked": "revoke_time",
}
_AUDIT_COLUMNS = {
    "time": "time",
    "actor": "actor",
    "user": "user_id",
    "action": "action",
    "resource": "resource",
    "source": "source",
}


@projects.command("create")
def create_project(
    project_id: Annotated[str, typer.Argument(metavar="PROJECT", help="The project's id.")],
    name: Annotated[str, typer.Option("--name", help="A display name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Create a project."""
    with Api() as api:
        made = api.send("POST", "/v1/projects", {"id": project_id, "display_name": name})
    if as_json:
        print_json(made)
    else:
        echo(f"created {project_id}")


@projects.command("list")
def list_projects(limit: Limit = ALL, as_json: AsJson = False) -> None:
    """List projects."""
    columns = {"id": "id", "name": "display_name", "created": "create_time"}
    print_list("/v1/projects", columns, None, limit=limit, nothing="no projects", as_json=as_json)


@projects.command("delete")
def delete_project(
    project_id: Annotated[str, typer.Argument(metavar="PROJECT", help="The project's id.")],
    yes: Yes = False,
) -> None:
    """Delete a project with its agents, sessions and keys."""
    confirm_deletion(f"project {project_id}, with its agents, their sessions and its keys,", yes=yes)
    with Api() as api:
        api.send("DELETE", path_of("projects", project_id))
    echo(f"deleted {project_id}")


@keys.command("create")
def create_key(
    scopes: Annotated[list[str], typer.Option("--scope", help="A scope, such as chat; can be repeated.")],
    project: Project = None,
    user: Annotated[str | None, typer.Option("--user", help="The only user that the key may act for.")] = None,
    expires: Annotated[str | None, typer.Option("--expires", help="Expiry time (RFC 3339).")] = None,
    name: Annotated[str, typer.Option("--name", help="A display name.")] = "",
    turns_a_minute: Annotated[
        int, typer.Option("--turns-a-minute", min=0, max=1_000_000, help="Maximum turns per minute; 0: no limit.")
    ] = 0,
    turns_at_once: Annotated[
        int, typer.Option("--turns-at-once", min=0, max=100_000, help="Maximum turns at a time; 0: no limit.")
    ] = 0,
    store: Annotated[
        bool | None,
        typer.Option("--store/--no-store", help="Whether turns without a session id create a session."),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option("--history", help="How transcripts are compared with a session: match, replace or append."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key and print it. It is not shown again."""
    body: dict[str, Any] = {"scopes": scopes, "display_name": name}
    if turns_a_minute or turns_at_once:
        body["limits"] = {"requests_per_minute": turns_a_minute, "concurrent_turns": turns_at_once}
    requests = {name: value for name, value in {"store": store, "history": history}.items() if value is not None}
    if requests:
        body["requests"] = requests
    optional = {"project": project, "user_id": user, "expire_time": expires}
    with Api() as api:
        made = api.send("POST", "/v1/api_keys", body | {key: value for key, value in optional.items() if value})
    if as_json:
        print_json(made)
    else:
        print_fields(made)


@keys.command("get")
def get_key(key_id: KeyId, project: Project = None, as_json: AsJson = False) -> None:
    """Show an API key's metadata."""
    show("api_keys", key_id, project, as_json=as_json)


@keys.command("list")
def list_keys(project: Project = None, limit: Limit = ALL, as_json: AsJson = False) -> None:
    """List the metadata of API keys."""
    print_list("/v1/api_keys", _KEY_COLUMNS, project, limit=limit, nothing="no API keys", as_json=as_json)


@keys.command("revoke")
def revoke_key(key_id: KeyId, project: Project = None, yes: Yes = False) -> None:
    """Revoke an API key at once."""
    delete("api_keys", key_id, f"API key {key_id}", project, yes=yes, verb="revoke")


@keys.command("rotate")
def rotate_key(
    key_id: KeyId,
    project: Project = None,
    overlap: Annotated[str, typer.Option("--overlap", help="How long the old key stays valid.")] = "86400s",
    as_json: AsJson = False,
) -> None:
    """Replace an API key by one with the same rights; the old one stays valid for a while."""
    with Api(project=project) as api:
        rotated = api.send("POST", path_of("api_keys", key_id) + ":rotate", {"overlap": overlap})
    if as_json:
        print_json(rotated)
    else:
        print_fields(rotated["api_key"])


def audit(
    project: Project = None,
    actor: Annotated[str | None, typer.Option("--actor", help="Only events of this actor.")] = None,
    resource: Annotated[str | None, typer.Option("--resource", help="Only events of this resource.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, newest first."""
    print_list(
        "/v1/audit",
        _AUDIT_COLUMNS,
        project,
        limit=limit,
        nothing="nothing was changed",
        as_json=as_json,
        actor=actor,
        resource=resource,
    )
