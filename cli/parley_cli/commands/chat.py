"""`parley chat`: a conversation on the terminal."""

import sys
from typing import Annotated

import typer

from parley_cli.api import Api, ApiError, path_of
from parley_cli.commands.completion import agent_ids
from parley_cli.commands.project import Project
from parley_cli.errors import LocalError
from parley_cli.terminal import echo, echo_error, is_terminal, read_line, standard_input

PROMPT = "you> "
_MISSING = frozenset({401, 404})


def chat(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's id.", autocompletion=agent_ids)],
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="Send this text and exit.")] = None,
    session: Annotated[str | None, typer.Option("--session", help="Continue this session.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="The user of the session.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Same as TEXT.")] = None,
    project: Project = None,
) -> None:
    """Chat with an agent; answers are streamed. Each line of piped input is a turn."""
    if text is not None and message is not None:
        raise LocalError("give the text once: as an argument, or with --message")
    given = text if text is not None else message
    with Api(project=project) as api:
        if given is not None:
            session = turn(api, agent, given, session, user)
        else:
            _require(api, agent)
            session = converse(api, agent, session, user)
    if session:
        echo_error(f"session {session}")


def turn(api: Api, agent: str, text: str, session: str | None, user: str | None) -> str | None:
    """Run one turn, print its answer as it comes, and return the session's id.

    Tool calls that the gateway makes are lines on standard error.
    """
    last = "\n"

    def report(line: str) -> None:
        nonlocal last
        if is_terminal(sys.stdout) and not last.endswith("\n"):
            echo()
            last = "\n"
        echo_error(line)

    with api.chat(agent, text, session_id=session, user_id=user, on_tool_call=report) as answer:
        session = answer.session_id or session
        try:
            for piece in answer.pieces:
                echo(piece, end="")
                last = piece
        except ApiError:
            if is_terminal(sys.stdout):
                echo()  # what went wrong has a line of its own
            raise
    if answer.notes and not last.endswith("\n"):
        echo()
    echo("\n".join(answer.notes))
    return session


def converse(api: Api, agent: str, session: str | None, user: str | None) -> str | None:
    """Run a turn for every line until the end of the input or Ctrl-C; returns the session's id.

    On a terminal an error ends one turn, elsewhere it ends the program.
    """
    interactive = is_terminal(standard_input())
    while True:
        try:
            line = read_line(PROMPT)
            if line.strip():
                session = turn(api, agent, line, session, user)
        except (EOFError, KeyboardInterrupt) as end:
            echo()
            if isinstance(end, KeyboardInterrupt) and not interactive:
                raise
            return session
        except ApiError as error:
            if not interactive:
                raise
            echo_error(f"parley: {error}")


def _require(api: Api, agent: str) -> None:
    """Raises the server's error for an unknown agent, before the user has written a line.

    Who may chat need not be allowed to read agents; then the first turn says it.
    """
    try:
        api.get(path_of("models", agent.partition("@")[0]))
    except ApiError as error:
        if error.status in _MISSING:
            raise
