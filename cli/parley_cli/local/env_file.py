"""The `.env` file that `parley up` reads before anything else."""

import io
import os
from pathlib import Path

from dotenv.parser import parse_stream

from parley_cli.errors import LocalError
from servicekit.files import read_text_file

DEFAULT = Path(".env")
MAX_BYTES = 1024 * 1024


def load_env_file(given: Path | None) -> None:
    """Sets the variables of the file that are not set in this process's environment, for it and all that it starts.

    Without `given` the file is `.env` in the current directory, and there need not be one. Values are taken as they are
    written: quotes around them are removed, and nothing is expanded. Raises LocalError for a file that can't be read,
    and, with its number, for a line that is not `NAME=value`.
    """
    path = given or DEFAULT
    try:
        bindings = list(parse_stream(io.StringIO(read_text_file(path, MAX_BYTES))))
    except FileNotFoundError as error:
        if given is None:
            return
        raise LocalError(f"cannot read {path}: {error.strerror}") from None
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LocalError(f"cannot read {path}: not UTF-8") from None
    for line in bindings:
        if line.error or (line.key is not None and line.value is None):
            text = line.original.string  # with the empty lines before it
            number = line.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            raise LocalError(f"{path}, line {number}: must be NAME=value")
        if "\0" in (line.key or "") or "\0" in (line.value or ""):
            raise LocalError(f"{path}, line {line.original.line}: contains a NUL, which no variable may")
    for line in bindings:
        if line.key is not None and line.value is not None:
            os.environ.setdefault(line.key, line.value)
