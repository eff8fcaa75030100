"""Adds the two packages to the distributions of parley-client, from wherever this is built."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = ("parley", "parley_client")
CARRIED = "libs"
"""Where a source distribution has them."""


class Packages(BuildHookInterface[Any]):
    """From libs/ in a checkout, from the folder itself in a source distribution."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds them; `__pycache__` is left out by hatchling."""
        here = Path(self.root)
        carried = here / CARRIED
        source = carried if carried.is_dir() else here.parents[1] / "libs"
        target = f"{CARRIED}/" if self.target_name == "sdist" else ""
        build_data["force_include"].update({str(source / name): f"{target}{name}" for name in PACKAGES})
