"""Field paths of an AgentConfig: what an update mask takes over (AIP-134, AIP-161), and what differs."""

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from config_svc.model.agent import AgentLimits, AgentSpec, MemoryPolicy, ModelConfig, RequestPolicy, SessionPolicy
from config_svc.model.rules import canonical
from config_svc.model.tools import ToolPolicy
from servicekit.errors import Violations

GROUPS: dict[str, frozenset[str]] = {
    name: frozenset(member.name for member in fields(group))
    for name, group in (
        ("model", ModelConfig),
        ("memory", MemoryPolicy),
        ("session", SessionPolicy),
        ("limits", AgentLimits),
        ("tool_policy", ToolPolicy),
        ("requests", RequestPolicy),
    )
}
"""The fields that have fields."""

MAPS = frozenset({"labels", "parameters"})
"""The fields whose entries a path can name."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

WRITABLE = frozenset(member.name for member in fields(AgentSpec))

NOT_WRITABLE = frozenset(
    {"project", "id", "uid", "revision", "etag", "create_time", "update_time", "delete_time", "purge_time"}
)
"""Output only, and `id`, which says which agent config is meant: a mask may name them, and they stay (AIP-203)."""


def merge(found: Violations, current: AgentSpec, given: AgentSpec, paths: Sequence[str]) -> AgentSpec:
    """Returns `current` with the fields that `paths` name taken from `given`.

    A field that is named and not set in `given` is cleared; a message, list or map is replaced whole; `labels.k` and
    `parameters.k` take over one entry. `*` takes everything. Another template comes with its newest version unless
    the version is named, too. Reports every path that names no field.
    """
    if "*" in paths:
        if len(paths) > 1:
            found.add("update_mask", "'*' must be the only path")
        return given
    merged = current
    for path in paths:
        if path in NOT_WRITABLE:
            continue
        taken = _take(merged, given, path)
        if taken is None:
            found.add("update_mask", f"{path[:200]!r} is not a field of an agent config")
        else:
            merged = taken
    if merged.template_id != current.template_id and "template_version" not in paths:
        merged = replace(merged, template_version="")
    return merged


def _take(merged: AgentSpec, given: AgentSpec, path: str) -> AgentSpec | None:
    head, dot, rest = path.partition(".")
    if head not in WRITABLE:
        return None
    if not dot:
        return _with(merged, head, getattr(given, head))
    if rest in GROUPS.get(head, ()):
        group = replace(getattr(merged, head), **{rest: getattr(getattr(given, head), rest)})
        return _with(merged, head, group)
    if head in MAPS and rest:
        return _with(merged, head, _take_entry(getattr(merged, head), getattr(given, head), _unquoted(rest)))
    return None


def _take_entry(merged: dict[str, Any], given: dict[str, Any], key: str) -> dict[str, Any]:
    if key in given:
        return {**merged, key: given[key]}
    return {other: value for other, value in merged.items() if other != key}


def _unquoted(key: str) -> str:
    # AIP-161: a map key that is not a plain word stands in backticks.
    return key[1:-1] if len(key) > 2 and key[0] == key[-1] == "`" else key


def _with(spec: AgentSpec, name: str, value: object) -> AgentSpec:
    changes: dict[str, Any] = {name: value}
    return replace(spec, **changes)


def differences(old: AgentSpec, new: AgentSpec) -> tuple[str, ...]:
    """Returns the paths of the fields that differ, in the order of the contract; empty when nothing does."""
    changed: list[str] = []
    for member in fields(AgentSpec):
        before, after = getattr(old, member.name), getattr(new, member.name)
        if member.name in GROUPS:
            changed += [
                f"{member.name}.{inner.name}"
                for inner in fields(before)
                if not _same(getattr(before, inner.name), getattr(after, inner.name))
            ]
        elif member.name == "tools":
            if canonical([one.encoded() for one in before]) != canonical([one.encoded() for one in after]):
                changed.append(member.name)
        elif not _same(before, after):
            changed.append(member.name)
    return tuple(changed)


def _same(before: Any, after: Any) -> bool:
    # Plain comparison takes True for 1.
    return canonical(before) == canonical(after) if isinstance(before, dict) else bool(before == after)


class NotSet(enum.Enum):
    """No value; null is a value of parameters."""

    NOT_SET = "not set"


NOT_SET = NotSet.NOT_SET


@dataclass(frozen=True, slots=True)
class Difference:
    """One field, or entry of a map, that differs. Values are the domain's; NOT_SET where it is not set."""

    path: str
    before: Any
    after: Any


_NOTHING: tuple[Any, ...] = (None, "", (), {})
_NOTHING_OF: dict[str, tuple[Any, ...]] = {"requests.overridable": (None,)}
"""Values that mean unset; of some fields, an empty list is a value."""


def compared(old: AgentSpec, new: AgentSpec) -> list[Difference]:
    """Returns what differs, in the order of the contract, with the values in both; maps entry by entry."""
    found = []
    for path in differences(old, new):
        head, _, inner = path.partition(".")
        before, after = getattr(old, head), getattr(new, head)
        if head in MAPS:
            found += [
                Difference(f"{head}.{_quoted(key)}", before.get(key, NOT_SET), after.get(key, NOT_SET))
                for key in sorted({*before, *after})
                if (key in before) != (key in after) or canonical(before.get(key)) != canonical(after.get(key))
            ]
        elif inner:
            nothing = _NOTHING_OF.get(path, _NOTHING)
            values = (getattr(spec_part, inner) for spec_part in (before, after))
            found.append(Difference(path, *(NOT_SET if value in nothing else value for value in values)))
        else:
            found.append(Difference(path, *(NOT_SET if value in _NOTHING else value for value in (before, after))))
    return found


def _quoted(key: str) -> str:
    return key if _WORD.fullmatch(key) else f"`{key}`"
