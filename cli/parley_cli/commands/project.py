"""The option that names a project, the same for every command that has one."""

from typing import Annotated

import typer

Project = Annotated[str | None, typer.Option("--project", help="The project; by default the key's own, or `default`.")]
