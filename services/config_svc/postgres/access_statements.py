"""The SQL of projects, API keys and the audit log, and what its rows mean."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, true, tuple_

from config_svc.model.api_key import ApiKey
from config_svc.model.audit import AuditEvent, AuditQuery
from config_svc.model.project import Project
from config_svc.ports.access import KeyChange
from config_svc.postgres.statements import AnyRow
from config_svc.postgres.tables import api_key_changes, api_keys, audit_events, projects


def one_project(project: str) -> Select[Any]:
    """Selects a project, also one in deletion."""
    return select(projects).where(projects.c.id == project)


def projects_with(uids: Sequence[str]) -> Select[Any]:
    """Selects which of the uids projects have, also those in deletion."""
    return select(projects.c.uid).where(projects.c.uid.in_(uids))


def projects_page(after: str, limit: int, *, in_deletion: bool) -> Select[Any]:
    """Selects projects in order of id."""
    shown: ColumnElement[bool] = projects.c.delete_time.is_not(None) if in_deletion else true()
    return select(projects).where(projects.c.id > after, shown).order_by(projects.c.id).limit(limit)


def key_with_hash(hashes: Sequence[bytes]) -> Select[Any]:
    """Selects the key with one of the hashes, if its project is there and stays."""
    same_life = and_(
        projects.c.id == api_keys.c.project,
        projects.c.uid == api_keys.c.project_uid,
        projects.c.delete_time.is_(None),
    )
    return select(api_keys).join(projects, same_life).where(api_keys.c.hash.in_(hashes))


def keys_page(project: str, after: tuple[datetime, str] | None, limit: int) -> Select[Any]:
    """Selects keys of the project as it lives now, oldest first."""
    key = tuple_(api_keys.c.create_time, api_keys.c.id)
    statement = select(api_keys).where(api_keys.c.project_uid == _uid_of(project))
    if after is not None:
        statement = statement.where(
            key > tuple_(literal(after[0], api_keys.c.create_time.type), literal(after[1], api_keys.c.id.type))
        )
    return statement.order_by(api_keys.c.create_time, api_keys.c.id).limit(limit)


def live_keys_count(project_uid: str, now: datetime) -> Select[Any]:
    """Counts keys that have not ended."""
    live = and_(api_keys.c.revoke_time.is_(None), or_(api_keys.c.expire_time.is_(None), api_keys.c.expire_time > now))
    return select(func.count().label("live")).select_from(api_keys).where(api_keys.c.project_uid == project_uid, live)


def one_key(project: str, key_id: str) -> Select[Any]:
    """Selects a key of the project as it lives now; with "" for `project`, of whichever it is in."""
    lives = select(projects.c.uid)
    return select(api_keys).where(
        api_keys.c.id == key_id,
        api_keys.c.project_uid.in_(lives.where(projects.c.id == project) if project else lives),
    )


def audit_page(query: AuditQuery, before: tuple[datetime, int] | None, limit: int) -> Select[Any]:
    """Selects events by their place in an index, newest first."""
    events = audit_events.c
    wanted = [events.project == query.project]
    if query.project_uid is not None:
        wanted.append(events.project_uid == query.project_uid)
    if query.actor:
        wanted.append(events.actor == query.actor)
    if query.resource:
        wanted.append(events.resource == query.resource)
    if query.start is not None:
        wanted.append(events.time >= query.start)
    if query.end is not None:
        wanted.append(events.time < query.end)
    if before is not None:
        place = tuple_(literal(before[0], events.time.type), literal(before[1], events.sequence.type))
        wanted.append(tuple_(events.time, events.sequence) < place)
    return select(audit_events).where(*wanted).order_by(events.time.desc(), events.sequence.desc()).limit(limit)


def key_changes_after(after: int, limit: int) -> Select[Any]:
    """Selects the oldest changes of keys after `after`."""
    changes = api_key_changes
    return select(changes).where(changes.c.sequence > after).order_by(changes.c.sequence).limit(limit)


def newest_key_change() -> Select[Any]:
    """Selects the newest sequence, 0 when none is kept."""
    return select(func.coalesce(func.max(api_key_changes.c.sequence), 0))


def project_of_row(row: AnyRow) -> Project:
    """Returns the project of a row of `projects`."""
    return Project(row.id, row.uid, row.display_name, row.create_time, row.delete_time)


def key_of_row(row: AnyRow) -> ApiKey:
    """Returns the API key of a row of `api_keys`."""
    return ApiKey(
        id=row.id,
        project=row.project,
        project_uid=row.project_uid,
        scopes=tuple(row.scopes),
        create_time=row.create_time,
        user_id=row.user_id,
        display_name=row.display_name,
        requests_per_minute=row.requests_per_minute,
        concurrent_turns=row.concurrent_turns,
        expire_time=row.expire_time,
        revoke_time=row.revoke_time,
        last_used_time=row.last_used_time,
        store=(row.requests or {}).get("store"),
        history=(row.requests or {}).get("history"),
    )


def event_of_row(row: AnyRow) -> AuditEvent:
    """Returns the event of a row of `audit_events`."""
    return AuditEvent(
        project=row.project,
        actor=row.actor,
        action=row.action,
        resource=row.resource,
        time=row.time,
        before=row.before,
        after=row.after,
        request_id=row.request_id,
        source=row.source,
        user_id=row.user_id,
        sequence=row.sequence,
        event_id=row.event_id,
    )


def change_of_row(row: AnyRow) -> KeyChange:
    """Returns the change of a row of `api_key_changes`."""
    return KeyChange(row.sequence, row.api_key_id, row.time)


def ended_before(time: datetime) -> ColumnElement[bool]:
    """Selects keys that ended before `time`."""
    return func.least(api_keys.c.expire_time, api_keys.c.revoke_time) < time


def unused_since(time: ColumnElement[Any]) -> ColumnElement[bool]:
    """Selects keys that were last used before `time`, as far as is stored."""
    return or_(api_keys.c.last_used_time.is_(None), api_keys.c.last_used_time < time)


def _uid_of(project: str) -> Any:
    return select(projects.c.uid).where(projects.c.id == project).scalar_subquery()
