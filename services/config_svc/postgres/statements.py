"""The SQL of the reads, and what its rows mean. Shared by the pool, transactions and the feed's own connection."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, collate, false, func, literal, not_, or_, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from config_svc.model.agent import AgentConfig, Revision
from config_svc.model.change import Change, ChangeType, FeedPosition
from config_svc.model.filter import LABEL, OPERATORS, TIME_FIELDS, Comparison, Every, Filter, Not, Some
from config_svc.model.provider import GatewayProviders
from config_svc.model.query import After, AgentQuery, Order
from config_svc.model.spec_json import decode_spec
from config_svc.model.template import Template
from config_svc.postgres.records import decode_agent, decode_placeholders, decode_providers
from config_svc.postgres.tables import (
    agent_config_changes,
    agent_config_revisions,
    agent_configs,
    feed,
    gateway_providers,
    templates,
)

AnyRow = Row[Any]


def live_agent(project: str, agent_id: str) -> Select[Any]:
    """Selects the agent config with this id that is not deleted."""
    return select(agent_configs).where(
        agent_configs.c.project == project, agent_configs.c.id == agent_id, agent_configs.c.delete_time.is_(None)
    )


def live_agent_at(project: str, agent_id: str, revision: int) -> Select[Any]:
    """Selects it with the content of a revision; `number` is null when there is no such revision."""
    revisions = agent_config_revisions
    return (
        select(
            agent_configs,
            revisions.c.number,
            revisions.c.spec.label("revision_spec"),
            revisions.c.create_time.label("revision_time"),
        )
        .outerjoin(revisions, and_(revisions.c.uid == agent_configs.c.uid, revisions.c.number == revision))
        .where(
            agent_configs.c.project == project, agent_configs.c.id == agent_id, agent_configs.c.delete_time.is_(None)
        )
    )


def agents_page(query: AgentQuery, after: After | None, limit: int) -> Select[Any]:
    """Selects one page by its place in an index (keyset), never by counting rows off."""
    shown: ColumnElement[bool] = agent_configs.c.delete_time.is_(None)
    if query.show_deleted:
        shown = or_(shown, agent_configs.c.purge_time > query.now)
    statement = select(agent_configs).where(agent_configs.c.project == query.project, shown)
    if query.filter is not None:
        statement = statement.where(condition(query.filter, _filtered))
    return page(statement, agent_configs, query.order, after, limit)


def page(statement: Select[Any], table: Table, order: Order, after: After | None, limit: int) -> Select[Any]:
    """Selects the page after a place in the order of a table that has `uid`."""
    column = table.c[order.field.value]
    key = tuple_(column, table.c.uid)
    if after is not None:
        start = tuple_(literal(after.value, column.type), literal(after.uid, table.c.uid.type))
        statement = statement.where(key < start if order.descending else key > start)
    if order.descending:
        return statement.order_by(column.desc(), table.c.uid.desc()).limit(limit)
    return statement.order_by(column, table.c.uid).limit(limit)


def condition(wanted: Filter, column_of: Callable[[str], ColumnElement[Any]]) -> ColumnElement[bool]:
    """Returns a filter as SQL over what `column_of` gives for its fields."""
    match wanted:
        case Every(parts):
            return and_(*(condition(part, column_of) for part in parts))
        case Some(parts):
            return or_(*(condition(part, column_of) for part in parts))
        case Not(part):
            return not_(condition(part, column_of))
        case Comparison(field, sign, value):
            column = column_of(field)
            if sign == ":*":
                return column.is_not(None)
            # A missing label is null, and "unknown" turned round would stay unknown.
            return func.coalesce(OPERATORS[sign](column, value), false())


def _filtered(field: str) -> ColumnElement[Any]:
    if field in TIME_FIELDS:
        return agent_configs.c[field]
    if field == "template_id":
        text = agent_configs.c.spec["template_id"].astext
    elif field.startswith(LABEL):
        text = agent_configs.c.spec["labels"][field.removeprefix(LABEL)].astext
    else:
        text = agent_configs.c.spec["model"]["name" if field == "model" else "provider"].astext
    return collate(text, "C")


def one_template(template_id: str, version: str) -> Select[Any]:
    """Selects a template version, the newest when `version` is empty."""
    statement = select(templates).where(templates.c.id == template_id)
    if version:
        return statement.where(templates.c.version == version)
    return statement.order_by(*_newest_first()).limit(1)


def newest_templates(after: str, limit: int) -> Select[Any]:
    """Selects the newest version of each template."""
    return (
        select(templates)
        .ext(distinct_on(templates.c.id))
        .where(templates.c.id > after)
        .order_by(templates.c.id, *_newest_first())
        .limit(limit)
    )


def live_providers(now: datetime) -> Select[Any]:
    """Selects what gateways have declared that has not expired."""
    return select(gateway_providers).where(gateway_providers.c.expire_time > now)


def _newest_first() -> Sequence[Any]:
    return templates.c.major.desc(), templates.c.minor.desc(), templates.c.patch.desc()


async def read_position(connection: AsyncConnection) -> FeedPosition:
    """Reads the feed's position."""
    newest = select(func.max(agent_config_changes.c.sequence)).scalar_subquery()
    row = (await connection.execute(select(feed.c.id, feed.c.compacted, newest.label("newest")))).one()
    return FeedPosition(row.id, max(row.newest or 0, row.compacted), row.compacted)


async def read_changes(connection: AsyncConnection, after: int, limit: int) -> list[Change]:
    """Reads the oldest changes after `after`."""
    statement = (
        select(agent_config_changes)
        .where(agent_config_changes.c.sequence > after)
        .order_by(agent_config_changes.c.sequence)
        .limit(limit)
    )
    return [
        Change(row.sequence, ChangeType(row.type), decode_agent(row.agent_config), row.time)
        for row in await connection.execute(statement)
    ]


def agent_of(row: AnyRow) -> AgentConfig:
    """Returns the agent config of a row of `agent_configs`."""
    return AgentConfig(
        project=row.project,
        id=row.id,
        uid=row.uid,
        spec=decode_spec(row.spec),
        revision=row.revision,
        create_time=row.create_time,
        update_time=row.update_time,
        delete_time=row.delete_time,
        purge_time=row.purge_time,
    )


def revision_of(row: AnyRow) -> Revision:
    """Returns the revision of a row of `agent_config_revisions`."""
    return Revision(
        number=row.number,
        spec=decode_spec(row.spec),
        create_time=row.create_time,
        author=row.author,
        comment=row.comment,
        changed_fields=tuple(row.changed_fields),
    )


def template_of(row: AnyRow) -> Template:
    """Returns the template of a row of `templates`."""
    return Template(
        id=row.id,
        version=row.version,
        description=row.description,
        parameters_schema=row.parameters_schema,
        create_time=row.create_time,
        placeholders=decode_placeholders(row.placeholders),
    )


def gateway_of(row: AnyRow) -> GatewayProviders:
    """Returns what a row of `gateway_providers` declares."""
    return GatewayProviders(row.gateway, decode_providers(row.providers), row.expire_time)
