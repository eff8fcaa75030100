"""What has to change so that the server has what files declare, checked by the server, and the changes themselves."""

import enum
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from contract.reasons import Reason
from parley_cli.api import Api, ApiError
from parley_cli.declared.agent_file import OUTPUT_ONLY, AgentFile, Problem

OWNER_LABEL = "managed-by"
DEFAULT_OWNER = "parley-apply"
MAX_AGENTS = 1_000_000

_AT_A_TIME = 8
_SHAPE_TRIES = 50

Json = dict[str, Any]


class Action(enum.Enum):
    """What happens to an agent."""

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
    """One agent in the plan. `etag` is that of the state that the plan was made from."""

    action: Action
    id: str
    file: AgentFile | None = None
    body: Json = field(default_factory=dict)
    etag: str = ""
    changes: tuple[FieldChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps: by id, deletions last."""

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
    live = {agent["id"]: agent for agent in api.list_all("/v1/agents", MAX_AGENTS)}
    declared = list(files)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        outcomes = list(pool.map(lambda file: _step(api, file, live.get(file.id), owner), declared))
    steps = [step for step, _ in outcomes if step is not None]
    problems = [problem for _, found in outcomes for problem in found]
    if prune:
        kept = {file.id for file in declared}
        gone = [agent for agent in live.values() if agent["id"] not in kept and _owner(agent) == owner]
        steps += [Step(Action.DELETE, agent["id"], etag=agent["etag"]) for agent in gone]
    steps.sort(key=lambda step: (step.action is Action.DELETE, step.id))
    return Plan(tuple(steps)), problems


def carry_out(api: Api, step: Step, comment: str) -> Json:
    """Makes one change, only if the agent still is as the plan saw it; returns the agent (empty when deleted).

    Raises ApiError: `etag_mismatch`, or `agent_already_exists`, where another change came first.
    """
    path = f"/v1/agents/{quote(step.id, safe='')}"
    params = {"comment": comment} if comment else {}
    match step.action:
        case Action.CREATE:
            return api.send("POST", "/v1/agents", step.body, params=params)
        case Action.UPDATE:
            return api.send("PUT", path, step.body | {"etag": step.etag}, params=params)
        case Action.DELETE:
            return api.send("DELETE", path, params={"etag": step.etag})
        case Action.UNCHANGED:
            return {}


def _step(api: Api, file: AgentFile, live: Json | None, owner: str) -> tuple[Step | None, list[Problem]]:
    body, problems = file.content()
    labels = body.get("labels")
    if labels is None or isinstance(labels, dict):
        given = (labels or {}).get(OWNER_LABEL, owner)
        if given != owner:
            problems.append(file.problem(f"labels.{OWNER_LABEL}", f"is set by apply, to {owner!r} (--owner)"))
        body["labels"] = {**(labels or {}), OWNER_LABEL: owner}
    if live is not None and not body.get("template_version") and _template(body) == live["template_id"]:
        body["template_version"] = live["template_version"]  # a new version is taken when a file asks for it
    would = _checked(api, file, body, live, problems)
    if problems or would is None:
        return None, problems
    if live is None:
        return Step(Action.CREATE, file.id, file, body), []
    changes = tuple(_changes(live, would))
    action = Action.UPDATE if changes else Action.UNCHANGED
    return Step(action, file.id, file, body, live["etag"], changes), []


def _checked(api: Api, file: AgentFile, body: Json, live: Json | None, problems: list[Problem]) -> Json | None:
    """Returns what the server would store, or records all that it finds wrong.

    A body of the wrong shape is refused at its first wrong field: without that one, the rest is asked about again.
    """
    attempt, refused = body, {problem.field for problem in problems}
    for _ in range(_SHAPE_TRIES):
        try:
            return _validate(api, file.id, attempt, live)
        except ApiError as error:
            if error.status not in (400, 404, 409):
                raise
            fresh = [one for one in error.violations if one.field not in refused]
            problems += [file.problem(one.field, one.description) for one in fresh]
            if not error.violations:
                problems.append(file.problem("", error.message))
            shape = [one.field for one in fresh if error.code == Reason.MALFORMED_BODY.lower() and one.field]
            if not shape:
                return None
            refused.update(shape)
            attempt = _without(attempt, shape[0])
    return None


def _validate(api: Api, agent_id: str, body: Json, live: Json | None) -> Json:
    params = {"validate_only": "true"}
    if live is None:
        return api.send("POST", "/v1/agents", body, params=params)
    path = f"/v1/agents/{quote(agent_id, safe='')}"
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
