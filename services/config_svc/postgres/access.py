"""Projects, API keys and the audit log in PostgreSQL: in a transaction, and by themselves."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    DateTime,
    LargeBinary,
    Text,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
    values,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from config_svc.model.agent import AgentConfig
from config_svc.model.api_key import ApiKey, Use
from config_svc.model.audit import AuditEvent, AuditQuery
from config_svc.model.errors import ProjectAlreadyExists
from config_svc.model.project import Project
from config_svc.postgres.access_statements import (
    audit_page,
    ended_before,
    event_of_row,
    key_of_row,
    key_with_hash,
    keys_page,
    live_keys_count,
    one_key,
    one_project,
    project_of_row,
    projects_page,
    unused_since,
)
from config_svc.postgres.statements import AnyRow, agent_of
from config_svc.postgres.tables import (
    access_secrets,
    agent_config_changes,
    agent_config_revisions,
    agent_configs,
    api_key_changes,
    api_keys,
    audit_events,
    projects,
    tool_server_revisions,
    tool_servers,
)


class PostgresAccessTransaction:
    """Implements `config_svc.ports.access.AccessTransaction` on a connection with an open transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def hold_project(self, project: str) -> Project | None:
        statement = one_project(project).where(projects.c.delete_time.is_(None))
        row = await self._first(statement.with_for_update(key_share=True, read=True))
        return project_of_row(row) if row is not None else None

    async def hold_keys_of(self, project: str) -> Project | None:
        # Who makes agent configs holds FOR KEY SHARE, which this does not wait for; another one of these it does.
        statement = one_project(project).where(projects.c.delete_time.is_(None))
        row = await self._first(statement.with_for_update(key_share=True))
        return project_of_row(row) if row is not None else None

    async def lock_project(self, project: str) -> Project | None:
        row = await self._first(one_project(project).with_for_update())
        return project_of_row(row) if row is not None else None

    async def insert_project(self, project: Project) -> None:
        made = (
            upsert(projects)
            .values(id=project.id, uid=project.uid, display_name=project.display_name, create_time=project.create_time)
            .on_conflict_do_nothing()
            .returning(projects.c.id)
        )
        if await self._first(made) is None:
            raise ProjectAlreadyExists(project.id)
        # Read by a statement of its own, which sees what the end of an earlier project of this name committed.
        newest = select(func.coalesce(func.max(agent_config_changes.c.sequence), 0)).scalar_subquery()
        await self._connection.execute(update(projects).where(projects.c.id == project.id).values(first_change=newest))

    async def mark_project(self, project: Project) -> None:
        statement = update(projects).where(projects.c.id == project.id).values(delete_time=project.delete_time)
        await self._connection.execute(statement)

    async def remove_agents(self, project: str, limit: int) -> Sequence[AgentConfig]:
        some = select(agent_configs).where(agent_configs.c.project == project)
        some = some.order_by(agent_configs.c.id, agent_configs.c.uid).limit(limit).with_for_update()
        gone = [agent_of(row) for row in await self._connection.execute(some)]
        uids = [agent.uid for agent in gone]
        await self._connection.execute(delete(agent_configs).where(agent_configs.c.uid.in_(uids)))
        return gone

    async def remove_project(self, project: Project) -> bool:
        for table in (agent_configs, tool_servers):
            if await self._first(select(table.c.uid).where(table.c.project == project.id).limit(1)) is not None:
                return False
        if await self.unrevoked_keys(project.uid, 1):
            return False
        await self._connection.execute(delete(projects).where(projects.c.uid == project.uid))
        return True

    async def insert_key(self, key: ApiKey, key_hash: bytes) -> None:
        await self._connection.execute(
            insert(api_keys).values(
                id=key.id,
                project=key.project,
                project_uid=key.project_uid,
                hash=key_hash,
                scopes=list(key.scopes),
                user_id=key.user_id,
                display_name=key.display_name,
                requests_per_minute=key.requests_per_minute,
                concurrent_turns=key.concurrent_turns,
                create_time=key.create_time,
                expire_time=key.expire_time,
                requests=key.requests or None,
            )
        )

    async def lock_key(self, project: str, key_id: str) -> ApiKey | None:
        row = await self._first(one_key(project, key_id).with_for_update())
        return key_of_row(row) if row is not None else None

    async def end_keys(self, keys: Sequence[ApiKey], time: datetime) -> None:
        for key in keys:
            ends = {"expire_time": key.expire_time, "revoke_time": key.revoke_time}
            await self._connection.execute(update(api_keys).where(api_keys.c.id == key.id).values(**ends))
        # The table's trigger numbers them, under a lock that it holds from here to the end of the transaction.
        rows = [{"api_key_id": key.id, "time": time} for key in keys]
        await self._connection.execute(insert(api_key_changes), rows)

    async def unrevoked_keys(self, project_uid: str, limit: int, user_id: str = "") -> Sequence[ApiKey]:
        statement = select(api_keys).where(api_keys.c.project_uid == project_uid, api_keys.c.revoke_time.is_(None))
        if user_id:
            statement = statement.where(api_keys.c.user_id == user_id)
        statement = statement.order_by(api_keys.c.create_time, api_keys.c.id).limit(limit).with_for_update()
        return [key_of_row(row) for row in await self._connection.execute(statement)]

    async def live_keys(self, project_uid: str, now: datetime) -> int:
        row = await self._first(live_keys_count(project_uid, now))
        return int(row.live) if row is not None else 0

    async def record(self, events: Sequence[AuditEvent]) -> None:
        if not events:
            return
        life = select(projects.c.uid).where(projects.c.id == bindparam("of_project")).scalar_subquery()
        statement = upsert(audit_events).values(project_uid=life).on_conflict_do_nothing()
        await self._connection.execute(statement, [_event_columns(event) for event in events])

    async def events_of_user(self, project: str, user_id: str, limit: int) -> Sequence[AuditEvent]:
        statement = select(audit_events).where(
            audit_events.c.project == project, audit_events.c.subjects.contains([user_id])
        )
        statement = statement.order_by(audit_events.c.sequence).limit(limit).with_for_update()
        return [event_of_row(row) for row in await self._connection.execute(statement)]

    async def rewrite_event(self, event: AuditEvent) -> None:
        erase = func.erase_in_audit_event(
            event.sequence,
            event.actor,
            event.resource,
            event.user_id,
            literal(sorted(event.subjects), ARRAY(Text)),
            literal(event.before, JSONB(none_as_null=True)),
            literal(event.after, JSONB(none_as_null=True)),
        )
        await self._connection.execute(select(erase))

    async def erase_author(self, project: str, author: str, pseudonym: str) -> None:
        for table, revisions in ((agent_configs, agent_config_revisions), (tool_servers, tool_server_revisions)):
            own = select(table.c.uid).where(table.c.project == project)
            await self._connection.execute(
                update(revisions).where(revisions.c.author == author, revisions.c.uid.in_(own)).values(author=pseudonym)
            )

    async def _first(self, statement: Any) -> AnyRow | None:
        row: AnyRow | None = (await self._connection.execute(statement)).first()
        return row


class PostgresAccess(ABC):
    """Implements what `config_svc.ports.access.AccessStore` reads and writes outside of transactions."""

    @abstractmethod
    async def _rows(self, statement: Any) -> Sequence[Any]:
        """Runs one statement by itself."""

    async def project(self, project: str) -> Project | None:
        rows = await self._rows(one_project(project))
        return project_of_row(rows[0]) if rows else None

    async def projects(self, after: str, limit: int, *, in_deletion: bool = False) -> Sequence[Project]:
        return [project_of_row(row) for row in await self._rows(projects_page(after, limit, in_deletion=in_deletion))]

    async def first_change(self, project: str) -> int:
        rows = await self._rows(select(projects.c.first_change).where(projects.c.id == project))
        return int(rows[0].first_change) if rows else 0

    async def secret(self, name: str, made: bytes) -> bytes:
        secrets = access_secrets
        await self._rows(
            upsert(secrets).values(name=name, value=made).on_conflict_do_nothing().returning(secrets.c.name)
        )
        rows = await self._rows(select(secrets.c.value).where(secrets.c.name == name))
        return bytes(rows[0].value)

    async def key_by_hash(self, hashes: Sequence[bytes]) -> tuple[ApiKey, bytes] | None:
        rows = await self._rows(key_with_hash(hashes))
        return (key_of_row(rows[0]), bytes(rows[0].hash)) if rows else None

    async def key(self, project: str, key_id: str) -> ApiKey | None:
        rows = await self._rows(one_key(project, key_id))
        return key_of_row(rows[0]) if rows else None

    async def keys(self, project: str, after: tuple[datetime, str] | None, limit: int) -> Sequence[ApiKey]:
        return [key_of_row(row) for row in await self._rows(keys_page(project, after, limit))]

    async def note_uses(self, uses: Sequence[Use]) -> None:
        if not uses:
            return
        noted = values(
            column("id", Text), column("time", DateTime(timezone=True)), column("new_hash", LargeBinary), name="noted"
        ).data([(use.key_id, use.time, use.new_hash) for use in uses])
        # Whoever holds a row writes it for a better reason: to wait for it could be to wait in a circle.
        free = select(api_keys.c.id).where(api_keys.c.id.in_([use.key_id for use in uses]))
        free = free.with_for_update(key_share=True, skip_locked=True)
        new_hash = cast(noted.c.new_hash, LargeBinary)  # a column of nothing but nulls would be text
        newer = unused_since(noted.c.time) | new_hash.is_not(None)
        statement = (
            update(api_keys)
            .values(
                last_used_time=func.greatest(api_keys.c.last_used_time, noted.c.time),
                hash=func.coalesce(new_hash, api_keys.c.hash),
            )
            .where(api_keys.c.id == noted.c.id, api_keys.c.id.in_(free), newer)
        )
        await self._rows(statement.returning(api_keys.c.id))

    async def forget_keys(self, before: datetime, limit: int) -> int:
        some = select(api_keys.c.id).where(ended_before(before)).limit(limit).with_for_update(skip_locked=True)
        return len(await self._rows(delete(api_keys).where(api_keys.c.id.in_(some)).returning(api_keys.c.id)))

    async def forget_key_changes(self, before: datetime) -> int:
        changes = api_key_changes
        return len(await self._rows(delete(changes).where(changes.c.time < before).returning(changes.c.sequence)))

    async def audit_events(
        self, query: AuditQuery, before: tuple[datetime, int] | None, limit: int
    ) -> Sequence[AuditEvent]:
        return [event_of_row(row) for row in await self._rows(audit_page(query, before, limit))]

    async def forget_audit_events(self, before: datetime, limit: int) -> int:
        statement = text("SELECT remove_old_audit_events(:before, :limit) AS count")
        rows = await self._rows(statement.bindparams(before=before, limit=limit))
        return int(rows[0].count)


def _event_columns(event: AuditEvent) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "project": event.project,
        "of_project": event.project,
        "actor": event.actor,
        "action": event.action,
        "resource": event.resource,
        "time": event.time,
        "before": event.before,
        "after": event.after,
        "request_id": event.request_id,
        "source": event.source,
        "user_id": event.user_id,
        "subjects": sorted(event.subjects),
    }
