"""The part of the database port for projects, API keys and the audit log."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from config_svc.model.agent import AgentConfig
from config_svc.model.api_key import ApiKey, Use
from config_svc.model.audit import AuditEvent, AuditQuery
from config_svc.model.project import Project


@dataclass(frozen=True, slots=True)
class KeyChange:
    """That a key was revoked, or its end moved. Of two the one with the larger `sequence` was committed later."""

    sequence: int
    api_key_id: str
    time: datetime


class AccessTransaction(Protocol):
    """What a transaction can do besides writing agent configs."""

    async def hold_project(self, project: str) -> Project | None:
        """Reads a project that is not being deleted, and keeps it from deletion until the transaction ends."""
        ...

    async def hold_keys_of(self, project: str) -> Project | None:
        """Like `hold_project`, and keeps others who call this for the project waiting until the transaction ends."""
        ...

    async def lock_project(self, project: str) -> Project | None:
        """Reads a project, also one in deletion, and keeps everybody else from it until the transaction ends."""
        ...

    async def insert_project(self, project: Project) -> None:
        """Stores a new project, whose changes begin now. Raises ProjectAlreadyExists."""
        ...

    async def mark_project(self, project: Project) -> None:
        """Stores when the project's deletion began."""
        ...

    async def remove_agents(self, project: str, limit: int) -> Sequence[AgentConfig]:
        """Removes at most `limit` agent configs for good, deleted or not, with all revisions; returns them."""
        ...

    async def remove_project(self, project: Project) -> bool:
        """Removes a locked project when nothing is left in it but ended keys; returns whether it did."""
        ...

    async def insert_key(self, key: ApiKey, key_hash: bytes) -> None:
        """Stores a new API key."""
        ...

    async def lock_key(self, project: str, key_id: str) -> ApiKey | None:
        """Reads and locks an API key of the project as it lives now."""
        ...

    async def end_keys(self, keys: Sequence[ApiKey], time: datetime) -> None:
        """Stores when keys end, and publishes it to everybody who watches."""
        ...

    async def unrevoked_keys(self, project_uid: str, limit: int, user_id: str = "") -> Sequence[ApiKey]:
        """Reads and locks keys that are not revoked; only those bound to `user_id` where one is given."""
        ...

    async def live_keys(self, project_uid: str, now: datetime) -> int:
        """Counts keys that have not ended, also those of transactions that committed since this one began."""
        ...

    async def record(self, events: Sequence[AuditEvent]) -> None:
        """Adds to the audit log. An event whose `event_id` already exists is left out."""
        ...

    async def events_of_user(self, project: str, user_id: str, limit: int) -> Sequence[AuditEvent]:
        """Reads and locks audit events in which the user occurs."""
        ...

    async def rewrite_event(self, event: AuditEvent) -> None:
        """Stores an audit event in which a user was erased."""
        ...

    async def erase_author(self, project: str, author: str, pseudonym: str) -> None:
        """Puts `pseudonym` where revisions of the project's agent configs and tool servers have this author."""
        ...


class KeyTail(Protocol):
    """A connection of its own that follows what happens to API keys."""

    async def newest(self) -> int:
        """Reads the newest sequence."""
        ...

    async def key_changes(self, after: int, limit: int) -> Sequence[KeyChange]:
        """Reads the oldest changes with a sequence over `after`, in order."""
        ...

    async def wait(self, timeout: float) -> None:
        """Returns when a change may have been committed, at the latest after `timeout` seconds."""
        ...


class AccessStore(Protocol):
    """Reads of projects, API keys and the audit log, and writes that are a transaction of their own."""

    async def project(self, project: str) -> Project | None:
        """Reads a project, also one in deletion."""
        ...

    async def projects(self, after: str, limit: int, *, in_deletion: bool = False) -> Sequence[Project]:
        """Reads projects with an id over `after`, in order of id; only those in deletion where that is asked for."""
        ...

    async def first_change(self, project: str) -> int:
        """Returns the sequence over which the feed's changes of this name are of the project as it lives now."""
        ...

    async def secret(self, name: str, made: bytes) -> bytes:
        """Returns the secret that is kept under this name; `made` from now on, when there is none."""
        ...

    async def key_by_hash(self, hashes: Sequence[bytes]) -> tuple[ApiKey, bytes] | None:
        """Reads the key that one of the hashes belongs to, with its hash, unless its project is gone or going."""
        ...

    async def key(self, project: str, key_id: str) -> ApiKey | None:
        """Reads an API key of the project as it lives now; with "" for `project`, of whichever it is in."""
        ...

    async def keys(self, project: str, after: tuple[datetime, str] | None, limit: int) -> Sequence[ApiKey]:
        """Reads keys of the project as it lives now, oldest first, after a create time and id."""
        ...

    async def note_uses(self, uses: Sequence[Use]) -> None:
        """Stores when keys were last used, where that is newer. One that is being written is left out."""
        ...

    async def forget_keys(self, before: datetime, limit: int) -> int:
        """Removes at most `limit` keys that ended before; returns how many."""
        ...

    async def forget_key_changes(self, before: datetime) -> int:
        """Removes changes of keys made before; returns how many."""
        ...

    def key_tail(self) -> AbstractAsyncContextManager[KeyTail]:
        """Opens a connection that follows what happens to keys."""
        ...

    async def audit_events(
        self, query: AuditQuery, before: tuple[datetime, int] | None, limit: int
    ) -> Sequence[AuditEvent]:
        """Reads events, newest first, older than a time and sequence."""
        ...

    async def forget_audit_events(self, before: datetime, limit: int) -> int:
        """Removes at most `limit` events from before; returns how many."""
        ...
