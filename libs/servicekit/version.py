"""Which release this process is of."""

import os
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Final

VARIABLE: Final = "PARLEY_VERSION"
"""What images set (Dockerfile): they have the code, and no installed package. It is no setting of an operator."""

_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}")


def release() -> str:
    """Returns the version of the image or, outside of one, of the installed package; "" where neither is known."""
    given = os.environ.get(VARIABLE, "")
    if _VERSION.fullmatch(given):
        return given
    try:
        return version("parley")
    except PackageNotFoundError:
        return ""
