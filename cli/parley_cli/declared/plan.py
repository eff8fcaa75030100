"""What has to change so that the server has what files declare, checked by the server, and the changes themselves."""

import enum
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from contract.reasons import Reason
from parley_cli.api import Api, ApiError
from parley_cli.declared.agent_file import OUTPUT_ONLY, AgentFile, Kind, Problem
from parley_cli.declared.references import (
    callees,
    callees_first,
    circle_members,
    resolved,
    with_tools,
    without_tools,
)

OWNER_LABEL = "managed-by"
DEFAULT_OWNER = "parley-apply"

_AT_A_TIME = 8
_SHAPE_TRIES = 50

Json = dict[str, Any]


class Action(enum.Enum):
    """What happens to an agent, or a tool server."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that changes. A value that is not set is None."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Step:
    """One agent, or tool server, in the plan. `etag` is that of the state that the plan was made from."""

    action: Action
    id: str
    file: AgentFile | None = None
    body: Json = field(default_factory=dict)
    etag: str = ""
    changes: tuple[FieldChange, ...] = ()
    kind: Kind = Kind.AGENT

    @property
    def name(self) -> str:
        """What it is called in a plan: an agent by its id alone."""
        return self.id if self.kind is Kind.AGENT else f"{self.kind.words} {self.id}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps in the order in which they can be made: tool servers, agents after those they call, deletions."""

    steps: tuple[Step, ...]

    def of(self, action: Action) -> list[Step]:
        """Returns the steps of one kind."""
        return [step for step in self.steps if step.action is action]

    @property
    def changes(self) -> list[Step]:
        """The steps that change something."""
        return [step for step in self.steps if step.action is not Action.UNCHANGED]


def make_plan(api: Api, files: Iterable[AgentFile], owner: str, *, prune: bool) -> tuple[Plan, list[Problem]]:
    """Has the server check every file without storing anything; returns what would happen, and all that is wrong.

    Every agent declared is labelled with its owner. With `prune`, those with this owner that no file declares are
    deleted. Raises ApiError where the server refuses for another reason than what a file says, and Unreachable.
    """
    declared = list(files)
    live = {
        kind: {one["id"]: one for one in api.list_all(f"/v1/{kind.value}")}
        for kind in Kind
        if kind is Kind.AGENT or prune or any(file.kind is kind for file in declared)
    }
    known = {f"{file.kind.value}/{file.id}": _speaks(file) for file in declared}
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        outcomes = list(pool.map(lambda file: _step(api, file, live[file.kind].get(file.id), owner, known), declared))
    steps = [step for step, _ in outcomes if step is not None]
    problems = [problem for _, found in outcomes for problem in found]
    places, circle = _order(live[Kind.AGENT], steps)
    by_id = {step.id: step for step in steps if step.kind is Kind.AGENT}
    for one in circle_members(circle, by_id):
        if (file := by_id[one].file) is not None:
            way = " -> ".join(circle)
            problems.append(file.problem("tools", f"agents must not call each other in a circle: {way}"))
    if prune:
        kept = {(file.kind, file.id) for file in declared}
        steps += [
            Step(Action.DELETE, one["id"], etag=one["etag"], kind=kind)
            for kind, found in live.items()
            for one in found.values()
            if (kind, one["id"]) not in kept and _owner(one) == owner
        ]
    steps.sort(key=lambda step: _place(step, places))
    return Plan(tuple(steps)), problems


def _order(live: Mapping[str, Json], steps: Iterable[Step]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Returns the places of agents as they will be, callees first, and a circle where there is one."""
    declared = {step.id: callees(step.body) for step in steps if step.kind is Kind.AGENT}
    return callees_first({one: callees(agent) for one, agent in live.items()} | declared)


def _place(step: Step, places: Mapping[str, int]) -> tuple[bool, bool, int, str]:
    deleted, is_agent = step.action is Action.DELETE, step.kind is Kind.AGENT
    # Deletions the other way round: callers before those they call, tool servers when nobody names them any more.
    place = places.get(step.id, 0) if is_agent and callees(step.body) else 0
    return deleted, is_agent != deleted, place, step.id


def _speaks(file: AgentFile) -> str:
    """Returns `mcp`, `http` or `a2a` for a tool server, `agent` for an agent."""
    if file.kind is Kind.AGENT:
        return "agent"
    return next((kind for kind in ("mcp", "a2a") if kind in file.document), "http")


def carry_out(api: Api, step: Step, comment: str) -> Json:
    """Makes one change, only if the agent still is as the plan saw it; returns the agent (empty when deleted).

    Raises ApiError: `etag_mismatch`, or `agent_already_exists`, where another change came first.
    """
    collection = f"/v1/{step.kind.value}"
    path = f"{collection}/{quote(step.id, safe='')}"
    params = {"comment": comment} if comment else {}
    match step.action:
        case Action.CREATE:
            return api.send("POST", collection, step.body, params=params)
        case Action.UPDATE:
            return api.send("PUT", path, step.body | {"etag": step.etag}, params=params)
        case Action.DELETE:
            return api.send("DELETE", path, params={"etag": step.etag})
        case Action.UNCHANGED:
            return {}


def _step(
    api: Api, file: AgentFile, live: Json | None, owner: str, known: Mapping[str, str]
) -> tuple[Step | None, list[Problem]]:
    body, problems = file.content()
    labels = body.get("labels")
    if labels is None or isinstance(labels, dict):
        given = (labels or {}).get(OWNER_LABEL, owner)
        if given != owner:
            problems.append(file.problem(f"labels.{OWNER_LABEL}", f"is set by apply, to {owner!r} (--owner)"))
        body["labels"] = {**(labels or {}), OWNER_LABEL: owner}
    is_agent = file.kind is Kind.AGENT
    if is_agent and live is not None and not body.get("template_version") and _template(body) == live["template_id"]:
        body["template_version"] = live["template_version"]  # a new version is taken when a file asks for it
    would = _checked(api, file, body, live, problems, known)
    if problems or would is None:
        return None, problems
    if live is None:
        return Step(Action.CREATE, file.id, file, body, kind=file.kind), []
    changes = tuple(_changes(live, would))
    action = Action.UPDATE if changes else Action.UNCHANGED
    return Step(action, file.id, file, body, live["etag"], changes, file.kind), []


def _checked(
    api: Api, file: AgentFile, body: Json, live: Json | None, problems: list[Problem], known: Mapping[str, str]
) -> Json | None:
    """Returns what the server would store, or records all that it finds wrong.

    A body of the wrong shape is refused at its first wrong field: without that one, the rest is asked about again: also
    without tools of servers and agents that are not there yet, but `known` to be declared.
    """
    attempt, refused = body, {problem.field for problem in problems}
    pending: set[int] = set()
    for _ in range(_SHAPE_TRIES):
        try:
            stored = _validate(api, file, attempt, live)
            return with_tools(stored, body, pending) if pending else stored
        except ApiError as error:
            if error.status not in (400, 404, 409):
                raise
            later = {resolved(body, one.field, one.description, known) for one in error.violations}
            if not pending and error.violations and None not in later and attempt is body:
                pending = {index for index in later if index is not None}
                attempt = without_tools(body, pending)
                continue
            fresh = [
                one
                for one in error.violations
                if one.field not in refused and (pending or resolved(body, one.field, one.description, known) is None)
            ]
            problems += [file.problem(one.field, one.description) for one in fresh]
            if not error.violations:
                problems.append(file.problem("", error.message))
            shape = [one.field for one in fresh if error.code == Reason.MALFORMED_BODY.lower() and one.field]
            if not shape:
                return None
            refused.update(shape)
            attempt = _without(attempt, shape[0])
    return None


def _validate(api: Api, file: AgentFile, body: Json, live: Json | None) -> Json:
    params = {"validate_only": "true"}
    collection = f"/v1/{file.kind.value}"
    if live is None:
        return api.send("POST", collection, body, params=params)
    path = f"{collection}/{quote(file.id, safe='')}"
    return api.send("PUT", path, body | {"etag": live["etag"]}, params=params)


def _without(body: Json, path: str) -> Json:
    """Returns a body without the field at a path, or without the nearest one above it that is there."""
    head, _, rest = path.partition(".")
    head = head.partition("[")[0]
    if isinstance(body.get(head), dict) and rest and any(rest.startswith(str(key)) for key in body[head]):
        return body | {head: _without(body[head], rest)}
    return {key: value for key, value in body.items() if key not in (head, path)}


def _template(body: Json) -> str:
    return str(body.get("template_id") or "assistant")


def _owner(agent: Json) -> str:
    return str((agent.get("labels") or {}).get(OWNER_LABEL, ""))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[FieldChange]:
    for key in [*before, *(key for key in after if key not in before)]:
        old, new = before.get(key), after.get(key)
        if (not prefix and key in OUTPUT_ONLY) or old == new:
            continue
        if isinstance(old or {}, dict) and isinstance(new or {}, dict) and prefix.count(".") == 0:
            yield from _changes(old or {}, new or {}, f"{prefix}{key}.")
        else:
            yield FieldChange(f"{prefix}{key}", old, new)
