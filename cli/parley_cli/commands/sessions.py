"""`parley sessions`: what was said, over the HTTP API."""

from typing import Annotated, Any

import typer
from rich.text import Text

from parley_cli.api import Api
from parley_cli.commands.output import console, print_fields, print_json, print_table
from parley_cli.commands.project import Project

sessions = typer.Typer(help="Sessions: what was said.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")]
Agent = Annotated[str | None, typer.Option("--agent", help="Only sessions of this agent.")]
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
    with Api(project=project) as api:
        rows = api.list_all("/v1/sessions", limit, agent_id=agent, user_id=user)
    if as_json:
        print_json(rows)
    else:
        print_table(rows, COLUMNS, nothing="no sessions")


@sessions.command("show")
def show_session(session_id: Id, limit: Limit = 1000, project: Project = None, as_json: AsJson = False) -> None:
    """Show one session with its messages, oldest first."""
    with Api(project=project) as api:
        session = api.get(f"/v1/sessions/{session_id}")
        messages = api.list_all(f"/v1/sessions/{session_id}/messages", limit)
    if as_json:
        print_json({"session": session, "messages": messages})
        return
    print_fields(session)
    out = console()
    for message in messages:
        out.print(Text(f"\n{message['role']}", style="bold"))
        out.print(Text(message_text(message)))


def message_text(message: dict[str, Any]) -> str:
    """Return what a person reads of a message: its text, or what it calls."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "\n".join(part.get("text") or f"[{part.get('type', 'part')}]" for part in content)
    calls = (call.get("function", {}) for call in message.get("tool_calls") or [])
    return "\n".join(filter(None, [content, *(f"[calls {c.get('name')}({c.get('arguments')})]" for c in calls)]))


@sessions.command("delete")
def delete_session(session_id: Id, project: Project = None) -> None:
    """Delete a session with its history."""
    with Api(project=project) as api:
        api.send("DELETE", f"/v1/sessions/{session_id}")
    typer.echo(f"deleted {session_id}")
