"""Entry point of the `parley` command."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


def main() -> None:
    """Runs the command; what went wrong is one line on standard error, or one for each setting, with exit code 1.

    A command line that can't be understood is 2.
    """
    try:
        code = _run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        sys.exit("parley: interrupted")
    if code:
        sys.exit(code)


def _run() -> int:
    # Imported here: that takes a while, in which Ctrl-C may come.
    from typer import Abort, TyperException

    from parley_cli.commands.app import app
    from parley_cli.errors import LocalError
    from parley_cli.terminal import prepare, shown

    def fail(text: str) -> str:
        return shown("\n".join(f"parley: {line}" for line in text.splitlines()), sys.stderr)

    try:
        prepare()
        code = app(prog_name="parley", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        return _misused(error, fail)
    except LocalError as error:
        _drop_output()
        sys.exit(fail(str(error)))
    except Abort:
        sys.exit("parley: nothing was changed")
    except OSError as error:
        _drop_output()
        sys.exit(fail(_of_the_system(error)))
    except UnicodeDecodeError:
        sys.exit(fail("what was read is not UTF-8"))
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})" if trace else ""
        sys.exit(fail(" ".join(f"unexpected {type(error).__name__}: {error}{where}".split())))
    return code if isinstance(code, int) else 0


def _misused(error: Any, fail: Callable[[str], str]) -> int:
    """Says in a line what is wrong with the command line; shows the help where there is none."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), end="")
    else:
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        print(fail(" ".join(f"{error.format_message()}{hint}".split())), file=sys.stderr)
    return int(error.exit_code)


def _of_the_system(error: OSError) -> str:
    said = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return f"cannot read or write: {said}"
    return f"{os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else error.filename}: {said}"


def _drop_output() -> None:
    """What could not be written is not tried again at the end of the process, which would complain once more."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
