"""Asking before something is gone for good."""

import sys

import typer

from parley_cli.errors import LocalError


def confirm_deletion(what: str, *, yes: bool) -> None:
    """Returns when `what` may be deleted: `yes` was given, or whoever is asked says so; leaves the program otherwise.

    Where nobody can be asked, `LocalError`.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise LocalError(f"{what} would be deleted: say --yes to do so; nothing was changed")
    typer.confirm(f"Delete {what}?", abort=True)
