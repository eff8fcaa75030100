"""Entry point of the `parley` command."""

import sys

from parley_cli.commands.app import app
from parley_cli.errors import LocalError


def main() -> None:
    """Run the command; what went wrong is one line on standard error, or one for each setting, with exit code 1."""
    try:
        app()
    except LocalError as error:
        sys.exit("\n".join(f"parley: {line}" for line in str(error).splitlines()))


if __name__ == "__main__":
    main()
