"""The `parley` command as a whole."""

from importlib.metadata import version
from typing import Annotated

import typer

from parley_cli.commands import local
from parley_cli.commands.access import audit, keys, projects
from parley_cli.commands.agents import agents
from parley_cli.commands.chat import chat
from parley_cli.commands.sessions import sessions
from parley_cli.commands.templates import templates
from parley_cli.commands.tools import tools
from parley_cli.commands.top import top
from parley_cli.terminal import colours_wanted, echo

app = typer.Typer(
    name="parley",
    help="Parley serves LLM agents. PARLEY_URL is the gateway (default http://127.0.0.1:8080), PARLEY_API_KEY the key.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich" if colours_wanted() else None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        echo(f"parley {version('parley')}")
        raise typer.Exit


@app.callback()
def _whole(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Serve LLM agents. PARLEY_URL is the gateway (default http://127.0.0.1:8080), PARLEY_API_KEY the key."""


app.command()(local.up)
app.command()(local.down)
app.command()(local.status)
app.command()(chat)
app.command()(top)
app.add_typer(agents, name="agents")
app.add_typer(sessions, name="sessions")
app.add_typer(templates, name="templates")
app.add_typer(tools, name="tools")
app.add_typer(projects, name="projects")
app.add_typer(keys, name="keys")
app.command()(audit)
