"""References of agent configs to tool servers and agents, checked under the project's lock of references."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from config_svc.model.agent import AgentSpec
from config_svc.model.tools import MAX_TOOLS, AgentTool
from config_svc.ports.store import Transaction
from contract.fields import is_resource_id
from servicekit.errors import Violations

MAX_REACHED = 1000
"""The maximum number of agents that one agent may reach, directly or indirectly."""


@dataclass(frozen=True, slots=True)
class _Named:
    path: str
    kind: str
    """`mcp`, `http`, or `agent`."""
    id: str


async def check_references(
    transaction: Transaction,
    found: Violations,
    project: str,
    agent_id: str,
    spec: AgentSpec,
    path: str,
    *,
    current: AgentSpec | None = None,
) -> None:
    """Reports missing tool servers and agents, tool servers of another kind, and cycles of agents. References that
    `current` has already are not checked for existence, so an agent with a deleted callee can still be changed
    otherwise. Cycles are always checked. The lock keeps the result valid until the transaction ends; a config without
    references takes none.
    """
    named = [one for one in _named(spec.tools, path) if is_resource_id(one.id)]
    if not named:
        return
    await transaction.lock_references(project)
    before = {(one.kind, one.id) for one in _named(current.tools, path)} if current is not None else set()
    servers = {one.id for one in named if one.kind != "agent"}
    kinds = await transaction.tool_server_kinds(project, servers) if servers else {}
    callees = [one for one in named if one.kind == "agent"]
    calls = await transaction.calls_of(project, {one.id for one in callees}) if callees else {}
    for one in named:
        if one.kind == "agent":
            if one.id not in calls and one.id != agent_id and (one.kind, one.id) not in before:
                found.add(f"{one.path}.agent_id", f"there is no agent {one.id!r} in the project")
        elif one.id not in kinds:
            if (one.kind, one.id) not in before:
                found.add(f"{one.path}.tool_server", f"there is no tool server {one.id!r} in the project")
        elif kinds[one.id] != one.kind:
            found.add(f"{one.path}.tool_server", f"tool server {one.id!r} is of kind {kinds[one.id]}, not {one.kind}")
    await _check_circles(transaction, found, project, agent_id, callees)


async def _check_circles(
    transaction: Transaction, found: Violations, project: str, agent_id: str, callees: Sequence[_Named]
) -> None:
    """Reports each callee that calls the agent, itself or by others; one that is the agent itself does."""
    callers: dict[str, set[str]] = {}
    reached = {one.id for one in callees}
    waiting = reached - {agent_id}
    while waiting and len(reached) <= MAX_REACHED:
        calls = await transaction.calls_of(project, waiting)
        for caller, ids in calls.items():
            for called in ids:
                callers.setdefault(called, set()).add(caller)
        waiting = {called for ids in calls.values() for called in ids} - reached - {agent_id}
        reached |= waiting
    if waiting:
        found.add(f"{callees[0].path}.agent_id", f"more than {MAX_REACHED} agents are reached from these calls")
        return
    way = _ways(callers, agent_id)
    for one in callees:
        if one.id in way:
            steps = " -> ".join([agent_id, *way[one.id]])
            found.add(f"{one.path}.agent_id", f"agents must not call each other in a circle: {steps}"[:500])


def _ways(callers: Mapping[str, Collection[str]], agent_id: str) -> dict[str, tuple[str, ...]]:
    """Returns the ways to the agent from each that calls it, itself or by others."""
    ways: dict[str, tuple[str, ...]] = {agent_id: (agent_id,)}
    waiting = [agent_id]
    while waiting:
        one = waiting.pop(0)
        for caller in sorted(callers.get(one, ())):
            if caller not in ways:
                ways[caller] = (caller, *ways[one])
                waiting.append(caller)
    return ways


def _named(tools: Sequence[AgentTool], path: str) -> Iterator[_Named]:
    for index, tool in enumerate(tools[:MAX_TOOLS]):
        for kind, server in (("mcp", tool.mcp), ("http", tool.http), ("a2a", tool.a2a)):
            if server is not None and server.tool_server:
                yield _Named(f"{path}.tools[{index}].{kind}", kind, server.tool_server)
        if tool.agent is not None:
            yield _Named(f"{path}.tools[{index}].agent", "agent", tool.agent.agent_id)
