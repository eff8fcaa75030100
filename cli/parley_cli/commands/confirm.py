"""Confirmation before something is deleted for good."""

import sys
from typing import Annotated

import typer

from parley_cli.errors import LocalError
from parley_cli.terminal import is_terminal, shown

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]

_YES = frozenset({"y", "yes"})


def confirm_deletion(what: str, *, yes: bool, verb: str = "delete", unasked: bool = False) -> None:
    """Returns when `what` may be deleted: `yes` was given, or the user confirms. Raises LocalError otherwise.

    Where there is no terminal nobody can be asked: then only what scripts have always deleted (`unasked`) goes.
    """
    if yes:
        return
    if not is_terminal(sys.stdin):
        if unasked:
            return
        raise LocalError(f"{what} would be {verb}d: give --yes to do so; nothing was changed")
    print(shown(f"{verb.capitalize()} {what}? [y/N]: ", sys.stderr), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in _YES:
        raise LocalError("nothing was changed")
