"""What declared agents name that is declared, too: what the server can't know yet, and in which order to write it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

Json = dict[str, Any]

_NAMED = re.compile(r"tools\[(\d+)\]\.(mcp|http|a2a|agent)(?:\.(?:tool_server|agent_id))?")
_ABSENT = "there is no "
_CIRCLE = "agents must not call each other in a circle"


def callees(body: Mapping[str, Any]) -> list[str]:
    """Returns the ids of the agents that an agent calls."""
    return [str(tool["agent"].get("agent_id")) for tool in _tools(body) if isinstance(tool.get("agent"), dict)]


def resolved(body: Mapping[str, Any], field: str, description: str, declared: Mapping[str, str]) -> int | None:
    """Returns the index of the tool whose violation the files themselves resolve; None for any other violation.

    `declared` says of what kind (`mcp`, `http`, `a2a`, `agent`) things are that are declared, by kind's collection
    and id.
    """
    match = _NAMED.fullmatch(field)
    tools = _tools(body)
    if match is None or int(match[1]) >= len(tools):
        return None
    index, kind = int(match[1]), match[2]
    named = tools[index].get(kind)
    if kind == "agent":
        known = isinstance(named, dict) and f"agents/{named.get('agent_id')}" in declared
        return index if known and description.startswith((_ABSENT, _CIRCLE)) else None
    one = named if isinstance(named, str) else named.get("tool_server") if isinstance(named, dict) else None
    fits = declared.get(f"tool_servers/{one}") == kind
    return index if fits and description.startswith(_ABSENT) else None


def without_tools(body: Json, indexes: set[int]) -> Json:
    """Returns an agent without these tools; a policy that names one of them names none."""
    kept = [tool for index, tool in enumerate(body["tools"]) if index not in indexes]
    policy = body.get("tool_policy")
    left = body | {"tools": kept}
    if isinstance(policy, dict) and not kept:
        left["tool_policy"] = {name: value for name, value in policy.items() if name != "tool_choice"}
    return left


def with_tools(stored: Json, body: Json, indexes: set[int]) -> Json:
    """Returns what would be stored of an agent, with the tools that the server was not asked about as declared."""
    known = iter(stored.get("tools") or [])
    tools = [tool if index in indexes else next(known) for index, tool in enumerate(body["tools"])]
    whole = stored | {"tools": [_plain(tool) for tool in tools]}
    return whole | ({"tool_policy": body["tool_policy"]} if body.get("tool_policy") else {})


def callees_first(calls: Mapping[str, Sequence[str]]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Returns the place of each agent in an order in which callees come before callers, and a circle where one is."""
    try:
        order = list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        return {}, tuple(reversed(error.args[1]))
    return {agent_id: place for place, agent_id in enumerate(order)}, ()


def _tools(body: Mapping[str, Any]) -> list[Json]:
    tools = body.get("tools")
    return [tool if isinstance(tool, dict) else {} for tool in tools] if isinstance(tools, list) else []


def _plain(tool: Json) -> Json:
    return {kind: {"tool_server": one} if isinstance(one, str) else one for kind, one in tool.items()}


def circle_members(circle: Sequence[str], declared: Mapping[str, Any]) -> Iterator[str]:
    """Yields the declared agents of a circle, each once."""
    yield from dict.fromkeys(one for one in circle if one in declared)
