"""Tool names that providers accept, unique within a turn."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

MAX_NAME = 64

_INVALID = re.compile(r"[^A-Za-z0-9_-]")
_DIGEST_LENGTH = 8


def unique_names(tools: Sequence[tuple[str, str]], reserved: frozenset[str] = frozenset()) -> list[str]:
    """Returns a name of `[A-Za-z0-9_-]{1,64}` for each (server, name), all of them different and none of `reserved`.

    A valid and unique name is kept; otherwise it is prefixed with the server's id and, if necessary, followed by a
    digest of both. Names depend on the set of tools, not on their order. `tools` has no pair twice.
    """
    own = [_valid(name) for _, name in tools]
    if len(set(own)) == len(own) and reserved.isdisjoint(own):
        return own
    taken = Counter(own)
    names = [
        name if taken[name] == 1 and name not in reserved else _valid(f"{server}__{name}")
        for (server, _), name in zip(tools, own, strict=True)
    ]
    taken = Counter(names)
    return [
        name if taken[name] == 1 and name not in reserved else _with_digest(name, tool)
        for name, tool in zip(names, tools, strict=True)
    ]


def may_be_named(name: str, server: str, own_name: str) -> bool:
    """Whether a server's tool has this name beside some set of tools: its name depends on what others are called."""
    if name in (valid := _valid(own_name), prefixed := _valid(f"{server}__{own_name}")):
        return True
    return name in (_with_digest(one, (server, own_name)) for one in (valid, prefixed))


def _valid(name: str) -> str:
    valid = _INVALID.sub("_", name)
    return valid if 0 < len(valid) <= MAX_NAME else _with_digest(valid, ("", name))


def _with_digest(name: str, of: tuple[str, str]) -> str:
    digest = hashlib.sha256("\0".join(of).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    return f"{name[: MAX_NAME - _DIGEST_LENGTH - 1]}_{digest}"
