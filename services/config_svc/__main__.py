"""Runs config_svc: `python -m config_svc [--migrate]`, or `python -m config_svc migrate [--wait SECONDS]` alone."""

import sys

from config_svc.settings import ConfigSettings
from servicekit.lifecycle import run

if __name__ == "__main__":
    if sys.argv[1:2] in (["migrate"], ["--migrate"]):
        from config_svc.postgres import migrate  # the server does not need Alembic

        migrate.main(sys.argv[2:])
    if sys.argv[1:2] != ["migrate"]:
        from config_svc.wiring import build

        run(build, ConfigSettings)
