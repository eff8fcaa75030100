"""`parley chat`: a conversation on the terminal."""

import sys
from typing import Annotated

import typer

from parley_cli.api import Api, ApiError
from parley_cli.commands.project import Project

PROMPT = "you> "


def chat(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's id.")],
    session: Annotated[str | None, typer.Option("--session", help="Continue this session.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Whose session it is.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Send this message only, and exit.")] = None,
    project: Project = None,
) -> None:
    """Talk to an agent; the answers are streamed. Lines that are piped in are turns too."""
    with Api(project=project) as api:
        if message is not None:
            session = turn(api, agent, message, session, user)
        else:
            session = converse(api, agent, session, user)
    if session:
        print(f"session {session}", file=sys.stderr)


def turn(api: Api, agent: str, text: str, session: str | None, user: str | None) -> str | None:
    """Run one turn, print its answer as it comes, and return the session's id."""
    with api.chat(agent, text, session_id=session, user_id=user) as answer:
        session = answer.session_id or session
        for piece in answer.pieces:
            print(piece, end="", flush=True)
    print()
    return session


def converse(api: Api, agent: str, session: str | None, user: str | None) -> str | None:
    """Run a turn for every line until the end of the input or Ctrl-C; returns the session's id.

    On a terminal an error ends one turn, elsewhere it ends the program.
    """
    interactive = sys.stdin.isatty()
    while True:
        try:
            line = input(PROMPT if interactive else "")
            if line.strip():
                session = turn(api, agent, line, session, user)
        except (EOFError, KeyboardInterrupt):
            print()
            return session
        except ApiError as error:
            if not interactive:
                raise
            print(f"parley: {error}", file=sys.stderr)
