"""The `parley` command as a whole."""

import typer

from parley_cli.commands import local
from parley_cli.commands.access import audit, keys, projects
from parley_cli.commands.agents import agents
from parley_cli.commands.chat import chat
from parley_cli.commands.sessions import sessions
from parley_cli.commands.templates import templates
from parley_cli.commands.tools import tools
from parley_cli.commands.top import top

app = typer.Typer(
    name="parley",
    help="Parley serves LLM agents. PARLEY_URL names the gateway (http://127.0.0.1:8080), PARLEY_API_KEY is the key.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
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
