"""Maps OpenAI's `reasoning_effort` to the Messages API: an effort level, or a token budget for older models."""

import re
from typing import Any, Final

from servicekit.errors import Violations

LEVELS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}
"""`output_config.effort`, for models that decide by themselves how long they think."""
BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 4096, "high": 16_384, "xhigh": 24_576}
"""Tokens of thinking, for models before them."""
EFFORTS: Final = ("none", *LEVELS)
MIN_BUDGET: Final = 1024

_VERSION: Final = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_ADAPTIVE_SINCE: Final = (4, 6)
_XHIGH_SINCE: Final = (4, 7)


def add_effort(body: dict[str, Any], effort: str, *, limited: bool, found: Violations) -> None:
    """Writes the effort. `limited`: who calls said how long the answer may be, thinking included."""
    if effort == "none":
        body["thinking"] = {"type": "disabled"}
        return
    version = _version(body["model"])
    if version >= _ADAPTIVE_SINCE:
        body["thinking"] = {"type": "adaptive"}
        config = body.get("output_config")
        level = "high" if effort == "xhigh" and version < _XHIGH_SINCE else LEVELS[effort]
        body["output_config"] = {**(config if isinstance(config, dict) else {}), "effort": level}
        return
    budget = BUDGETS[effort]
    if not limited:
        body["max_tokens"] += budget
    elif body["max_tokens"] <= MIN_BUDGET:
        found.add("reasoning_effort", f"needs a limit of more than {MIN_BUDGET} tokens: the model thinks with as many")
    body["thinking"] = {"type": "enabled", "budget_tokens": max(min(budget, body["max_tokens"] - 1), MIN_BUDGET)}


def check_thinking(body: dict[str, Any], found: Violations) -> None:
    """Notes what a model that thinks can't be asked for beside it."""
    if body["thinking"]["type"] == "disabled":
        return
    if body.get("temperature", 1) != 1:
        found.add("sampling.temperature", "must be 1 with reasoning_effort for this provider")
    if not 0.95 <= body.get("top_p", 1) <= 1:
        found.add("sampling.top_p", "must be from 0.95 to 1 with reasoning_effort for this provider")
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        found.add("tool_choice", "must be auto or none with reasoning_effort for this provider")


def _version(model: str) -> tuple[int, int]:
    """The model's version; the newest, which takes no budget, for a name without one."""
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found is not None else (99, 0)
