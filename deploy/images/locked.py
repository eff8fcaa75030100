"""Reads constraints.txt: what is locked, with hashes, of all that some requirements lead to on an image's platform."""

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def entries(locked: Path) -> dict[str, str]:
    """Return each package's lines, by its canonical name."""
    blocks = re.findall(r"^[^\s#].*\\\n(?:    --hash=.*\n)+", locked.read_text(), re.MULTILINE)
    return {canonicalize_name(Requirement(block.partition("\\")[0]).name): block for block in blocks}


def closure(requirements: Iterable[str], environment: dict[str, str]) -> set[str]:
    """Return the canonical names of all that the requirements lead to, by what the installed packages declare.

    `environment` holds the markers of the platform that is installed for, where it differs from this one. Raises
    SystemExit for a package that is not installed here.
    """
    waiting = [Requirement(text) for text in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                declared = [Requirement(text) for text in requires(name) or ()]
            except PackageNotFoundError:
                raise SystemExit(f"{name} is not installed: `make lock`, then a new .venv") from None
            markers = environment | {"extra": extra}
            waiting += [one for one in declared if one.marker is None or one.marker.evaluate(markers)]
    return {name for name, _ in seen}


def locked_lines(locked: Path, names: Iterable[str]) -> str:
    """Return the lines of these packages, for `pip --require-hashes --requirement`."""
    found = entries(locked)
    if missing := sorted(set(names) - found.keys()):
        raise SystemExit(f"{locked.name} does not lock {', '.join(missing)}: `make lock`")
    return "".join(found[name] for name in sorted(names))
