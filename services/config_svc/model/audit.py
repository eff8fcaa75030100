"""The audit log's events, and how a user is taken out of one."""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeAlias

from config_svc.model import rules
from config_svc.model.rules import KIB, Json, canonical
from contract.fields import check_resource_id, check_user_id
from servicekit.errors import Violations

State: TypeAlias = dict[str, Json]

MAX_RECORDED_BYTES: Final = 4 * 1024 * KIB
"""Of a state that another service records, as JSON."""
MAX_STATE_BYTES: Final = 64 * KIB
LEFT_OUT: Final = "left_out_bytes"
"""In a state that was too large, `{"left_out_bytes": n}` stands for a field that took n bytes as JSON."""

_MAX_LEFT_OUT = 16
"""A state from which more fields would have to be left out is left out whole."""

TOKEN: Final = "token:"
_USERS = "users/"
_ACTION = re.compile(r"[a-z][a-z0-9_]{0,63}\.[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One write: who did what, when, from which state to which. None is no state: before a creation, say."""

    project: str
    actor: str
    action: str
    resource: str
    time: datetime
    before: State | None = None
    after: State | None = None
    request_id: str = ""
    source: str = ""
    user_id: str = ""
    sequence: int = 0
    """Given by the store; in order of time within a project."""
    event_id: str | None = None
    """Chosen by another service, so that it can record the same event again."""

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path` in an event that another service records."""
        rules.check_uuid(found, f"{path}.id", self.event_id or "")
        check_resource_id(found, f"{path}.project", self.project)
        rules.check_text(found, f"{path}.actor", self.actor, maximum=512, required=True)
        if not _ACTION.fullmatch(self.action):
            found.add(f"{path}.action", "must be such as sessions.delete")
        rules.check_text(found, f"{path}.resource", self.resource, maximum=512, required=True)
        rules.check_text(found, f"{path}.request_id", self.request_id, maximum=256)
        rules.check_text(found, f"{path}.source", self.source, maximum=64)
        check_user_id(found, f"{path}.user_id", self.user_id)
        for name, state in (("before", self.before), ("after", self.after)):
            rules.check_json(found, f"{path}.{name}", state or {}, maximum=MAX_RECORDED_BYTES)

    @property
    def id(self) -> str:
        """As it is shown; grows with time within a project."""
        return f"{self.sequence:016d}"

    @property
    def weight(self) -> int:
        """The approximate number of bytes that it takes in a message."""
        states = sum(len(canonical(state)) for state in (self.before, self.after) if state is not None)
        return 512 + len(self.actor) + len(self.resource) + rules.JSON_OVERHEAD * states

    @property
    def subjects(self) -> frozenset[str]:
        """The users that occur in it: as actor or user, in a resource `users/ID`, as a `user_id` of a state."""
        found = {self.user_id, self.actor.removeprefix(TOKEN) if self.actor.startswith(TOKEN) else ""}
        if self.resource.startswith(_USERS):
            rest = self.resource.removeprefix(_USERS)
            found |= {rest, rest.partition("/")[0]}  # the id of a user can hold a slash
        for state in (self.before, self.after):
            _collect(state, found)
        return frozenset(found - {""})

    def bounded(self) -> "AuditEvent":
        """Returns it with states of at most 64 KiB of JSON each; what is left out says so."""
        return replace(self, before=_bounded(self.before), after=_bounded(self.after))

    def erased(self, user_id: str, pseudonym: str) -> "AuditEvent":
        """Returns it with `pseudonym` wherever the user occurs."""
        resource = self.resource
        if f"{resource}/".startswith(f"{_USERS}{user_id}/"):
            resource = _USERS + pseudonym + resource.removeprefix(_USERS + user_id)
        return replace(
            self,
            actor=TOKEN + pseudonym if self.actor == TOKEN + user_id else self.actor,
            resource=resource,
            user_id=pseudonym if self.user_id == user_id else self.user_id,
            before=_erased(self.before, user_id, pseudonym),
            after=_erased(self.after, user_id, pseudonym),
        )


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which events of a project; empty is any. `project_uid` keeps to one life of the project."""

    project: str
    project_uid: str | None = None
    actor: str = ""
    resource: str = ""
    start: datetime | None = None
    end: datetime | None = None


def _bounded(state: State | None) -> State | None:
    size = len(canonical(state).encode()) if state is not None else 0
    if state is None or size <= MAX_STATE_BYTES:
        return state
    sizes = {name: len(canonical(value).encode()) for name, value in state.items()}
    left, left_size = dict(state), size
    for name in sorted(sizes, key=lambda one: sizes[one], reverse=True)[:_MAX_LEFT_OUT]:
        left[name] = {LEFT_OUT: sizes[name]}
        left_size += len(canonical(left[name])) - sizes[name]
        if left_size <= MAX_STATE_BYTES:
            return left
    return {LEFT_OUT: size}


def _collect(value: Json, found: set[str]) -> None:
    if isinstance(value, dict):
        user = value.get("user_id")
        if isinstance(user, str):
            found.add(user)
        for inner in value.values():
            _collect(inner, found)
    elif isinstance(value, list):
        for inner in value:
            _collect(inner, found)


def _erased(state: State | None, user_id: str, pseudonym: str) -> State | None:
    if state is None:
        return None
    erased: State = {}
    for name, value in state.items():
        erased[name] = pseudonym if name == "user_id" and value == user_id else _erased_value(value, user_id, pseudonym)
    return erased


def _erased_value(value: Json, user_id: str, pseudonym: str) -> Json:
    if isinstance(value, dict):
        return _erased(value, user_id, pseudonym)
    if isinstance(value, list):
        return [_erased_value(one, user_id, pseudonym) for one in value]
    return value
