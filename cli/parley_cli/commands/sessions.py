"""`parley sessions`: what was said, over the HTTP API."""

from typing import Annotated, Any

import typer
from rich.text import Text

from parley_cli.api import Api, path_of
from parley_cli.commands.completion import agent_ids
from parley_cli.commands.confirm import Yes
from parley_cli.commands.output import print_fields, print_json
from parley_cli.commands.project import Project
from parley_cli.commands.resource import AsJson, Limit, delete, print_list, report_more
from parley_cli.terminal import console, echo, in_a_line

sessions = typer.Typer(help="Inspect and delete sessions.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
Agent = Annotated[str | None, typer.Option("--agent", help="Only sessions of this agent.", autocompletion=agent_ids)]
User = Annotated[str | None, typer.Option("--user", help="Only sessions of this user.")]

COLUMNS = {
    "id": "id",
    "agent": "agent_id",
    "user": "user_id",
    "messages": "message_count",
    "last activity": "last_activity_time",
    "expires": "expire_time",
}


@sessions.command("list")
def list_sessions(
    agent: Agent = None, user: User = None, limit: Limit = 100, project: Project = None, as_json: AsJson = False
) -> None:
    """List sessions."""
    print_list(
        "/v1/sessions",
        COLUMNS,
        project,
        limit=limit,
        nothing="no sessions",
        as_json=as_json,
        agent_id=agent,
        user_id=user,
    )


@sessions.command("show")
def show_session(session_id: Id, limit: Limit = 1000, project: Project = None, as_json: AsJson = False) -> None:
    """Show one session with its messages, oldest first."""
    with Api(project=project) as api:
        session = api.get(path_of("sessions", session_id))
        messages, more = api.list_first(path_of("sessions", session_id, "messages"), limit)
    if as_json:
        print_json({"session": session, "messages": messages})
    else:
        print_fields(session)
        out = console()
        for message in messages:
            out.print(Text(f"\n{in_a_line(str(message.get('role')))}", style="bold"))
            echo(message_text(message))
    if more:
        report_more(limit)


def message_text(message: dict[str, Any]) -> str:
    """Returns what a person reads of a message: its text or refusal, or what it calls."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "\n".join(part.get("text") or f"[{part.get('type', 'part')}]" for part in content)
    calls = [call.get("function", {}) for call in message.get("tool_calls") or []]
    called = [f"[calls {call.get('name')}({call.get('arguments')})]" for call in calls]
    return "\n".join(filter(None, [content, message.get("refusal") or "", *called]))


@sessions.command("delete")
def delete_session(session_id: Id, project: Project = None, yes: Yes = False) -> None:
    """Delete a session and its history."""
    delete("sessions", session_id, f"session {session_id}, with its history", project, yes=yes)
