"""`parley tools`: tool servers, over the HTTP API."""

from pathlib import Path
from typing import Annotated

import typer

from parley_cli.api import Api, path_of
from parley_cli.commands.apply import Output, carry_out_plan, require_good
from parley_cli.commands.confirm import Yes
from parley_cli.commands.output import print_json, print_table
from parley_cli.commands.project import Project
from parley_cli.commands.resource import ALL, AsJson, Limit, delete, print_list, show
from parley_cli.declared.agent_file import Kind, agent_files
from parley_cli.declared.plan import DEFAULT_OWNER, make_plan
from parley_cli.errors import LocalError
from parley_cli.terminal import echo

tools = typer.Typer(help="Manage tool servers.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="NAME", help="The tool server's id.")]

COLUMNS = {
    "id": "id",
    "name": "name",
    "mcp": "mcp.url",
    "http": "http.base_url",
    "a2a": "a2a.url",
    "revision": "revision",
}

TESTED = {"tool": "name", "idempotent": "idempotent", "description": "description"}


@tools.command("list")
def list_tool_servers(
    limit: Limit = ALL,
    filter_text: Annotated[str | None, typer.Option("--filter", help="A filter, such as 'kind = mcp'.")] = None,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """List tool servers."""
    print_list(
        "/v1/tool_servers",
        COLUMNS,
        project,
        limit=limit,
        nothing="no tool servers",
        as_json=as_json,
        filter=filter_text,
    )


@tools.command("get")
def get_tool_server(tool_server_id: Id, project: Project = None, as_json: AsJson = False) -> None:
    """Show one tool server."""
    show("tool_servers", tool_server_id, project, as_json=as_json)


@tools.command("apply")
def apply_tool_servers(
    files: Annotated[Path, typer.Option("--file", "-f", exists=True, help="A folder of YAML files, or one file.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate and show the plan without changing anything.")
    ] = False,
    owner: Annotated[str, typer.Option("--owner", help="Same as for `parley agents apply`.")] = DEFAULT_OWNER,
    comment: Annotated[str, typer.Option("--comment", help="A comment on each new revision.")] = "",
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Apply the tool servers declared in files. Agents in the files are ignored."""
    declared, problems = agent_files(files)
    with Api(project=project) as api:
        servers = [file for file in declared if file.kind is Kind.TOOL_SERVER]
        plan, found = make_plan(api, servers, owner, prune=False)
        require_good(problems + found)
        carry_out_plan(api, plan, comment, Output.JSON if as_json else Output.TEXT, dry_run=dry_run)


@tools.command("test")
def try_tool_server(tool_server_id: Id, project: Project = None, as_json: AsJson = False) -> None:
    """Let the gateway connect to a tool server and list its tools. Exits with 1 if that fails."""
    with Api(project=project) as api:
        outcome = api.send("POST", path_of("tool_servers", tool_server_id) + ":test")
    if as_json:
        print_json(outcome)
    elif outcome["ok"]:
        print_table(outcome["tools"], TESTED, nothing="it offers no tools")
        if outcome["left_out_count"]:
            echo(f"and {outcome['left_out_count']} more")
    if not outcome["ok"]:
        raise LocalError(f"{tool_server_id} {outcome['problem']}")


@tools.command("delete")
def delete_tool_server(tool_server_id: Id, project: Project = None, yes: Yes = False) -> None:
    """Delete a tool server that no agent uses."""
    delete("tool_servers", tool_server_id, f"tool server {tool_server_id}", project, yes=yes)
