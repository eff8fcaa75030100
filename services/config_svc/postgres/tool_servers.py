"""Tool servers in PostgreSQL: in a transaction, and by themselves; and what agent configs say of them."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    case,
    cast,
    collate,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from config_svc.model.errors import ToolServerAlreadyExists, ToolServerNotFound
from config_svc.model.filter import LABEL, TIME_FIELDS
from config_svc.model.json_form import decoded, encoded
from config_svc.model.query import After, ToolServerQuery
from config_svc.model.tool_server import KINDS, ToolServer, ToolServerRevision, ToolServerSpec
from config_svc.ports.claim import Claim
from config_svc.postgres.claims import take_claim
from config_svc.postgres.statements import AnyRow, condition, page
from config_svc.postgres.tables import agent_configs, tool_server_claims, tool_server_revisions, tool_servers

_ID = "tool_servers_id"


class PostgresToolServerTransaction:
    """Implements `config_svc.ports.tool_servers.ToolServerTransaction` on a connection with an open transaction."""

    _connection: AsyncConnection

    async def lock_references(self, project: str) -> None:
        key = func.hashtextextended(literal(f"parley/config/references/{project}", Text), 0)
        await self._connection.execute(select(func.pg_advisory_xact_lock(key)))

    async def claim_tool_server(self, project: str, claim: Claim, *, expired_before: datetime) -> Claim | None:
        return await take_claim(self._connection, tool_server_claims, project, claim, expired_before=expired_before)

    async def lock_tool_server(self, project: str, tool_server_id: str) -> ToolServer | None:
        row = await self._row(_one(project, tool_server_id).with_for_update())
        return _server_of(row) if row is not None else None

    async def tool_server_kinds(self, project: str, ids: Collection[str]) -> Mapping[str, str]:
        table = tool_servers.c
        rows = await self._connection.execute(
            select(table.id, _KIND.label("kind")).where(table.project == project, table.id.in_(sorted(ids)))
        )
        return {row.id: row.kind for row in rows}

    async def insert_tool_server(self, server: ToolServer) -> None:
        try:
            await self._connection.execute(insert(tool_servers).values(uid=server.uid, **_columns(server)))
        except IntegrityError as error:
            diagnostics = getattr(error.orig, "diag", None)
            if getattr(diagnostics, "constraint_name", None) == _ID:
                raise ToolServerAlreadyExists(server.id) from error
            raise

    async def replace_tool_server(self, server: ToolServer) -> None:
        statement = update(tool_servers).where(tool_servers.c.uid == server.uid)
        await self._connection.execute(statement.values(**_columns(server)))

    async def remove_tool_server(self, uid: str) -> None:
        await self._connection.execute(delete(tool_servers).where(tool_servers.c.uid == uid))

    async def remove_tool_servers(self, project: str, limit: int) -> Sequence[ToolServer]:
        some = select(tool_servers).where(tool_servers.c.project == project)
        some = some.order_by(tool_servers.c.id).limit(limit).with_for_update()
        gone = [_server_of(row) for row in await self._connection.execute(some)]
        await self._connection.execute(delete(tool_servers).where(tool_servers.c.uid.in_([one.uid for one in gone])))
        return gone

    async def add_tool_server_revision(self, uid: str, revision: ToolServerRevision) -> None:
        await self._connection.execute(
            insert(tool_server_revisions).values(
                uid=uid,
                number=revision.number,
                spec=encoded(revision.spec),
                create_time=revision.create_time,
                author=revision.author,
                comment=revision.comment,
                changed_fields=list(revision.changed_fields),
            )
        )

    async def tool_server_revision(self, uid: str, number: int) -> ToolServerRevision | None:
        revisions = tool_server_revisions
        row = await self._row(select(revisions).where(revisions.c.uid == uid, revisions.c.number == number))
        return _revision_of(row) if row is not None else None

    async def agents_naming(self, project: str, tool_server_id: str, limit: int) -> tuple[Sequence[str], int]:
        agents = agent_configs.c
        tools = agents.spec["tools"]
        naming = or_(*(tools.contains([{kind: {"tool_server": tool_server_id}}]) for kind in KINDS))
        count = func.count().over().label("agent_count")
        rows = (
            await self._connection.execute(
                select(agents.id, count)
                .where(agents.project == project, agents.delete_time.is_(None), naming)
                .order_by(agents.id)
                .limit(limit)
            )
        ).all()
        return [row.id for row in rows], rows[0].agent_count if rows else 0

    async def calls_of(self, project: str, ids: Collection[str]) -> Mapping[str, Sequence[str]]:
        agents = agent_configs.c
        called = func.jsonb_path_query_array(agents.spec, cast("$.tools[*].agent.agent_id", JSONPATH))
        rows = await self._connection.execute(
            select(agents.id, called.label("called")).where(
                agents.project == project, agents.id.in_(sorted(ids)), agents.delete_time.is_(None)
            )
        )
        return {row.id: row.called for row in rows}

    async def _row(self, statement: Any) -> AnyRow | None:
        row: AnyRow | None = (await self._connection.execute(statement)).one_or_none()
        return row


class PostgresToolServers(ABC):
    """Implements what `config_svc.ports.tool_servers.ToolServerStore` reads outside of transactions."""

    @abstractmethod
    async def _rows(self, statement: Any) -> Sequence[Any]:
        """Runs one statement by itself."""

    async def tool_server(self, project: str, tool_server_id: str) -> ToolServer:
        rows = await self._rows(_one(project, tool_server_id))
        if not rows:
            raise ToolServerNotFound(tool_server_id)
        return _server_of(rows[0])

    async def tool_servers(self, query: ToolServerQuery, after: After | None, limit: int) -> Sequence[ToolServer]:
        statement = select(tool_servers).where(tool_servers.c.project == query.project)
        if query.filter is not None:
            statement = statement.where(condition(query.filter, _filtered))
        return [_server_of(row) for row in await self._rows(page(statement, tool_servers, query.order, after, limit))]

    async def tool_server_revisions(self, uid: str, before: int | None, limit: int) -> Sequence[ToolServerRevision]:
        revisions = tool_server_revisions
        statement = select(revisions).where(revisions.c.uid == uid).order_by(revisions.c.number.desc()).limit(limit)
        if before is not None:
            statement = statement.where(revisions.c.number < before)
        return [_revision_of(row) for row in await self._rows(statement)]


_KIND = case(*((tool_servers.c.spec.has_key(kind), kind) for kind in KINDS), else_="")


def _one(project: str, tool_server_id: str) -> Select[Any]:
    return select(tool_servers).where(tool_servers.c.project == project, tool_servers.c.id == tool_server_id)


def _filtered(field: str) -> ColumnElement[Any]:
    if field in TIME_FIELDS:
        return tool_servers.c[field]
    if field.startswith(LABEL):
        return collate(tool_servers.c.spec["labels"][field.removeprefix(LABEL)].astext, "C")
    return collate(_KIND, "C")


def _columns(server: ToolServer) -> dict[str, Any]:
    return {
        "project": server.project,
        "id": server.id,
        "spec": encoded(server.spec),
        "revision": server.revision,
        "create_time": server.create_time,
        "update_time": server.update_time,
    }


def _server_of(row: AnyRow) -> ToolServer:
    return ToolServer(
        project=row.project,
        id=row.id,
        uid=row.uid,
        spec=decoded(ToolServerSpec, row.spec),
        revision=row.revision,
        create_time=row.create_time,
        update_time=row.update_time,
    )


def _revision_of(row: AnyRow) -> ToolServerRevision:
    return ToolServerRevision(
        number=row.number,
        spec=decoded(ToolServerSpec, row.spec),
        create_time=row.create_time,
        author=row.author,
        comment=row.comment,
        changed_fields=tuple(row.changed_fields),
    )
