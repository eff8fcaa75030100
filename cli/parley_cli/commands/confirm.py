"""Confirmation before something is deleted for good."""

import sys

import typer

from parley_cli.errors import LocalError


def confirm_deletion(what: str, *, yes: bool) -> None:
    """Returns when `what` may be deleted: `yes` was given, or the user confirms; exits otherwise.

    Raises `LocalError` where there is no terminal.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise LocalError(f"{what} would be deleted: give --yes to do so; nothing was changed")
    typer.confirm(f"Delete {what}?", abort=True)
