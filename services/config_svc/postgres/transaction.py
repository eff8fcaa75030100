"""One transaction in PostgreSQL (READ COMMITTED): rows are locked when they are read for writing."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Insert, Select, delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from config_svc.model.agent import AgentConfig, Revision
from config_svc.model.change import ChangeType
from config_svc.model.errors import AgentAlreadyExists
from config_svc.model.provider import GatewayProviders
from config_svc.model.spec_json import EncodedAgent
from config_svc.model.template import Template
from config_svc.ports.claim import Claim
from config_svc.postgres.access import PostgresAccessTransaction
from config_svc.postgres.claims import take_claim
from config_svc.postgres.records import encode_agent, encode_placeholders
from config_svc.postgres.statements import (
    AnyRow,
    agent_of,
    gateway_of,
    live_agent,
    live_providers,
    one_template,
    revision_of,
    template_of,
)
from config_svc.postgres.tables import (
    agent_config_changes,
    agent_config_claims,
    agent_config_revisions,
    agent_configs,
    templates,
)
from config_svc.postgres.tool_servers import PostgresToolServerTransaction

_LIVE_ID = "agent_configs_live_id"


class PostgresTransaction(PostgresAccessTransaction, PostgresToolServerTransaction):
    """Implements `config_svc.ports.store.Transaction` on a connection with an open transaction."""

    async def claim(self, project: str, claim: Claim, *, expired_before: datetime) -> Claim | None:
        return await take_claim(self._connection, agent_config_claims, project, claim, expired_before=expired_before)

    async def live(self, project: str, agent_id: str) -> AgentConfig | None:
        return await self._agent(live_agent(project, agent_id).with_for_update())

    async def by_uid(self, project: str, uid: str) -> AgentConfig | None:
        same = (agent_configs.c.uid == uid, agent_configs.c.project == project)
        return await self._agent(select(agent_configs).where(*same).with_for_update())

    async def newest_deleted(self, project: str, agent_id: str, now: datetime) -> AgentConfig | None:
        return await self._agent(
            select(agent_configs)
            .where(
                agent_configs.c.project == project,
                agent_configs.c.id == agent_id,
                agent_configs.c.purge_time > now,
            )
            .order_by(agent_configs.c.delete_time.desc(), agent_configs.c.uid.desc())
            .limit(1)
        )

    async def revision(self, uid: str, number: int) -> Revision | None:
        revisions = agent_config_revisions
        row = await self._one(select(revisions).where(revisions.c.uid == uid, revisions.c.number == number))
        return revision_of(row) if row is not None else None

    async def template(self, template_id: str, version: str) -> Template | None:
        row = await self._one(one_template(template_id, version))
        return template_of(row) if row is not None else None

    async def published_providers(self, now: datetime) -> Sequence[GatewayProviders]:
        return [gateway_of(row) for row in await self._connection.execute(live_providers(now))]

    async def publish(self, template: Template) -> tuple[Template, bool]:
        major, minor, patch = template.order
        statement = (
            upsert(templates)
            .values(
                id=template.id,
                version=template.version,
                major=major,
                minor=minor,
                patch=patch,
                description=template.description,
                parameters_schema=template.parameters_schema,
                create_time=template.create_time,
                placeholders=encode_placeholders(template.placeholders),
            )
            .on_conflict_do_nothing()
            .returning(templates)
        )
        made = await self._one(statement)
        if made is not None:
            return template_of(made), True
        found = (await self._connection.execute(one_template(template.id, template.version))).one()
        return template_of(found), False

    async def purge(self, now: datetime, limit: int) -> Sequence[AgentConfig]:
        due = select(agent_configs.c.uid).where(agent_configs.c.purge_time <= now).limit(limit)
        statement = delete(agent_configs).where(agent_configs.c.uid.in_(due.with_for_update(skip_locked=True)))
        return [agent_of(row) for row in await self._connection.execute(statement.returning(agent_configs))]

    async def insert(self, encoded: EncodedAgent) -> None:
        await self._unless_taken(
            insert(agent_configs).values(uid=encoded.agent.uid, **_columns(encoded)), encoded.agent.id
        )

    async def replace(self, encoded: EncodedAgent) -> None:
        agent = encoded.agent
        statement = update(agent_configs).where(agent_configs.c.uid == agent.uid).values(**_columns(encoded))
        await self._unless_taken(statement, agent.id)

    async def add_revision(self, encoded: EncodedAgent, revision: Revision) -> None:
        await self._connection.execute(
            insert(agent_config_revisions).values(
                uid=encoded.agent.uid,
                number=revision.number,
                spec=encoded.spec,
                create_time=revision.create_time,
                author=revision.author,
                comment=revision.comment,
                changed_fields=list(revision.changed_fields),
            )
        )

    async def announce(self, change: ChangeType, encoded: EncodedAgent, time: datetime) -> None:
        await self.announce_all(change, [encoded], time)

    async def announce_all(self, change: ChangeType, agents: Sequence[EncodedAgent], time: datetime) -> None:
        if not agents:
            return
        # The table's trigger gives the numbers, and holds the feed's lock from here to the end of the transaction.
        rows = [{"type": change.value, "agent_config": encode_agent(agent), "time": time} for agent in agents]
        await self._connection.execute(insert(agent_config_changes), rows)

    async def _unless_taken(self, statement: Insert | Any, agent_id: str) -> None:
        try:
            await self._connection.execute(statement)
        except IntegrityError as error:
            diagnostics = getattr(error.orig, "diag", None)
            if getattr(diagnostics, "constraint_name", None) == _LIVE_ID:
                raise AgentAlreadyExists(agent_id) from error
            raise

    async def _agent(self, statement: Select[Any]) -> AgentConfig | None:
        row = await self._one(statement)
        return agent_of(row) if row is not None else None

    async def _one(self, statement: Any) -> AnyRow | None:
        row: AnyRow | None = (await self._connection.execute(statement)).one_or_none()
        return row


def _columns(encoded: EncodedAgent) -> dict[str, Any]:
    agent = encoded.agent
    return {
        "project": agent.project,
        "id": agent.id,
        "spec": encoded.spec,
        "revision": agent.revision,
        "create_time": agent.create_time,
        "update_time": agent.update_time,
        "delete_time": agent.delete_time,
        "purge_time": agent.purge_time,
    }
