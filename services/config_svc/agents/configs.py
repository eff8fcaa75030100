"""Use cases of agent configs. A write is one transaction: state, revision, announced change."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from config_svc import paging
from config_svc.agents.references import check_references
from config_svc.agents.validation import PATH, validate_spec
from config_svc.audit.events import agent_event
from config_svc.metrics import Metrics
from config_svc.model import fields, rules
from config_svc.model.agent import AgentConfig, AgentSpec, Revision, new_agent_id
from config_svc.model.change import ChangeType
from config_svc.model.errors import (
    AgentAlreadyExists,
    AgentNotFound,
    EtagMismatch,
    IdempotencyKeyReused,
    ProjectNotFound,
    RevisionNotFound,
)
from config_svc.model.fields import Difference
from config_svc.model.filter import parse_filter
from config_svc.model.note import Note
from config_svc.model.query import After, AgentQuery, parse_order, place_of, place_types
from config_svc.model.spec_json import EncodedAgent, encode_spec, fingerprint, with_template
from config_svc.ports.claim import Claim
from config_svc.ports.store import Store, Transaction
from contract.fields import check_resource_id, is_resource_id
from servicekit.errors import Violations

REQUEST_ID_LIFETIME = timedelta(hours=24)


class AgentConfigs:
    """The use cases. `retention` is how long a deleted agent config can be undeleted."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime], retention: timedelta, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._retention = retention
        self._metrics = metrics

    async def create(
        self,
        project: str,
        agent_id: str,
        spec: AgentSpec,
        *,
        request_id: str = "",
        validate_only: bool = False,
        note: Note = Note(),
    ) -> AgentConfig:
        """Stores a new agent config as revision 1; a repeat with the same request id returns the first result. With
        `validate_only` nothing is stored, and the result has no uid.
        """

        async def work(transaction: Transaction) -> AgentConfig:
            found = Violations()
            _check_project(found, project)
            if agent_id:
                check_resource_id(found, f"{PATH}.id", agent_id)
            if request_id:
                rules.check_uuid(found, "request_id", request_id)
            note.check(found)
            now = self._clock()
            new_id = agent_id or new_agent_id()
            # Before the lock of references, whose holder must never wait for a deletion of the project.
            held = await transaction.hold_project(project) if is_resource_id(project) else None
            await check_references(transaction, found, project, new_id, spec, PATH)
            content = await validate_spec(transaction, spec, found, now=now)
            if held is None:
                raise ProjectNotFound(project)
            agent = AgentConfig(project, new_id, str(uuid.uuid4()), content, 1, now, now)
            if validate_only:
                if await transaction.live(project, agent.id) is not None:
                    raise AgentAlreadyExists(agent.id)
                return replace(agent, uid="")
            asked = encode_spec(spec)
            if request_id:
                claim = Claim(request_id.lower(), fingerprint(agent_id, asked, note.comment), agent.uid, agent.id, now)
                earlier = await transaction.claim(project, claim, expired_before=now - REQUEST_ID_LIFETIME)
                if earlier is not None:
                    return await _replayed(transaction, project, earlier, claim)
            encoded = EncodedAgent(agent, with_template(asked, content))
            await transaction.insert(encoded)
            await transaction.add_revision(encoded, Revision(1, content, now, note.author, note.comment))
            await transaction.record([agent_event("create", None, encoded, now)])
            await transaction.announce(ChangeType.CREATED, encoded, now)
            return agent

        with self._metrics.write("validate" if validate_only else "create"):
            return await self._store.transact(work)

    async def get(self, project: str, agent_id: str, *, revision: int = 0, uid: str = "") -> AgentConfig:
        """Reads the agent config that is not deleted; `revision` 0 is the current one, `uid` "" is any."""
        found = Violations()
        _check_name(found, project, agent_id)
        if revision < 0:
            found.add("revision", "must not be negative")
        if uid:
            rules.check_uuid(found, "uid", uid)
        found.check()
        _check_possible(agent_id)
        return await self._store.agent(project, agent_id, revision=revision or None, uid=uid or None)

    async def list(
        self, project: str, *, size: int, token: str, filter_text: str, order_by: str, show_deleted: bool
    ) -> tuple[Sequence[AgentConfig], str]:
        """Reads one page and the token of the next, which is empty on the last."""
        found = Violations()
        _check_project(found, project)
        order = parse_order(found, order_by)
        wanted = parse_filter(found, filter_text)
        found.check()
        query = AgentQuery(project, self._clock(), order, show_deleted, wanted)

        async def fetch(place: paging.Place | None, count: int) -> Sequence[AgentConfig]:
            return await self._store.agents(query, After(*place) if place else None, count)

        return await paging.read_page(
            fetch,
            ("agents", project, filter_text, order.field.value, str(order.descending), str(show_deleted)),
            size=size,
            token=token,
            types=place_types(order),
            place_of=lambda agent: place_of(agent, order),
            weigh=lambda agent: agent.spec.weight,
        )

    async def update(
        self,
        project: str,
        agent_id: str,
        spec: AgentSpec,
        paths: Sequence[str],
        *,
        etag: str = "",
        validate_only: bool = False,
        note: Note = Note(),
    ) -> AgentConfig:
        """Updates the fields named by `paths` and creates the next revision; without changes, none is created."""
        found = Violations()
        _check_name(found, project, agent_id, f"{PATH}.id")
        found.check()

        async def work(transaction: Transaction) -> AgentConfig:
            current = await _current(transaction, project, agent_id, etag)
            found = Violations()
            note.check(found)
            merged = fields.merge(found, current.spec, spec, paths)
            await check_references(transaction, found, project, agent_id, merged, PATH, current=current.spec)
            content = await validate_spec(transaction, merged, found, now=self._clock(), current=current.spec)
            return await self._revise(transaction, "update", current, content, note, validate_only=validate_only)

        with self._metrics.write("validate" if validate_only else "update"):
            return await self._store.transact(work)

    async def rollback(
        self, project: str, agent_id: str, number: int, *, etag: str = "", note: Note = Note()
    ) -> AgentConfig:
        """Creates a new revision with the content of an older one; without changes, none is created."""
        found = Violations()
        _check_name(found, project, agent_id)
        note.check(found)
        if number < 1:
            found.add("revision", "is required, at least 1")
        found.check()

        async def work(transaction: Transaction) -> AgentConfig:
            current = await _current(transaction, project, agent_id, etag)
            older = await transaction.revision(current.uid, number)
            if older is None:
                raise RevisionNotFound(agent_id, number)
            found = Violations()
            await check_references(transaction, found, project, agent_id, older.spec, PATH, current=current.spec)
            content = await validate_spec(transaction, older.spec, found, now=self._clock(), current=current.spec)
            return await self._revise(transaction, "rollback", current, content, note)

        with self._metrics.write("rollback"):
            return await self._store.transact(work)

    async def delete(
        self, project: str, agent_id: str, *, etag: str = "", allow_missing: bool = False
    ) -> AgentConfig | None:
        """Deletes softly; with `allow_missing`, returns the newest deleted one, or None, if none exists."""
        found = Violations()
        _check_name(found, project, agent_id)
        found.check()

        async def work(transaction: Transaction) -> AgentConfig | None:
            now = self._clock()
            try:
                current = await _current(transaction, project, agent_id, etag)
            except AgentNotFound:
                if allow_missing and not is_resource_id(agent_id):
                    return None
                if allow_missing:
                    return await transaction.newest_deleted(project, agent_id, now)
                raise
            before = EncodedAgent.of(current)
            deleted = before.with_agent(current.deleted(now, self._retention))
            await transaction.replace(deleted)
            await transaction.record([agent_event("delete", before, None, now)])
            await transaction.announce(ChangeType.DELETED, deleted, now)
            return deleted.agent

        with self._metrics.write("delete"):
            return await self._store.transact(work)

    async def undelete(self, project: str, uid: str = "", agent_id: str = "", *, deleted_id: str = "") -> AgentConfig:
        """Undeletes an agent config, under `agent_id` if given. A live one stays unchanged. Without `uid`, `deleted_id`
        selects the one deleted last with this id; with `uid`, it must match.
        """
        found = Violations()
        _check_project(found, project)
        if deleted_id:
            check_resource_id(found, "deleted_id", deleted_id)
        if uid or not deleted_id:
            rules.check_uuid(found, "uid", uid)
        if agent_id:
            check_resource_id(found, "id", agent_id)
        found.check()

        async def work(transaction: Transaction) -> AgentConfig:
            now = self._clock()
            if await transaction.hold_project(project) is None:
                raise AgentNotFound(deleted_id or agent_id or uid)
            newest = None if uid else await transaction.newest_deleted(project, deleted_id, now)
            current = (
                await transaction.by_uid(project, newest.uid if newest is not None else uid) if uid or newest else None
            )
            if current is None or (current.purge_time is not None and current.purge_time <= now):
                raise AgentNotFound(deleted_id or agent_id or uid)
            if deleted_id and current.delete_time is not None and current.id != deleted_id:
                raise AgentNotFound(deleted_id)
            wanted = agent_id or current.id
            if current.delete_time is None:
                if wanted != current.id:
                    raise AgentAlreadyExists(current.id)
                return current
            found = Violations()
            await check_references(transaction, found, project, wanted, current.spec, PATH)
            found.check()
            before = EncodedAgent.of(current)
            back = before.with_agent(current.undeleted(wanted))
            await transaction.replace(back)
            await transaction.record([agent_event("undelete", before, back, now)])
            await transaction.announce(ChangeType.CREATED, back, now)
            return back.agent

        with self._metrics.write("undelete"):
            return await self._store.transact(work)

    async def revisions(
        self, project: str, agent_id: str, *, size: int, token: str
    ) -> tuple[AgentConfig, Sequence[Revision], str]:
        """Reads one page of revisions, newest first, and the token of the next, which is empty on the last."""
        found = Violations()
        _check_name(found, project, agent_id)
        found.check()
        _check_possible(agent_id)
        agent = await self._store.agent(project, agent_id)

        async def fetch(place: paging.Place | None, count: int) -> Sequence[Revision]:
            return await self._store.revisions(agent.uid, place[0] if place else None, count)

        page, next_token = await paging.read_page(
            fetch,
            ("revisions", agent.uid),
            size=size,
            token=token,
            types=[int],
            place_of=lambda revision: (revision.number,),
            weigh=lambda revision: revision.spec.weight,
        )
        return agent, page, next_token

    async def compare(
        self, project: str, agent_id: str, *, before: int = 0, after: int = 0
    ) -> tuple[int, int, Sequence[Difference]]:
        """Returns the numbers of both revisions and their differences. `after` 0 is the current revision; `before` 0 is
        the one before `after`, or an empty config before the first. Revisions never change, so neither does the result
        for given numbers.
        """
        found = Violations()
        _check_name(found, project, agent_id)
        for field, number in (("from_revision", before), ("to_revision", after)):
            if number < 0:
                found.add(field, "must not be negative")
        found.check()
        _check_possible(agent_id)
        newer = await self._store.agent(project, agent_id, revision=after or None)
        before = before or newer.revision - 1
        older = AgentSpec()
        if before:
            older = (await self._store.agent(project, agent_id, revision=before, uid=newer.uid)).spec
        return before, newer.revision, fields.compared(older, newer.spec)

    async def _revise(
        self,
        transaction: Transaction,
        verb: str,
        current: AgentConfig,
        content: AgentSpec,
        note: Note,
        *,
        validate_only: bool = False,
    ) -> AgentConfig:
        changed = fields.differences(current.spec, content)
        if not changed:
            return current
        now = self._clock()
        agent = current.with_spec(content, now)
        if validate_only:
            return agent
        before, after = EncodedAgent.of(current), EncodedAgent.of(agent)
        await transaction.replace(after)
        await transaction.add_revision(
            after,
            Revision(agent.revision, content, agent.update_time, note.author, note.comment, changed),
        )
        await transaction.record([agent_event(verb, before, after, now)])
        await transaction.announce(ChangeType.UPDATED, after, now)
        return agent


async def _replayed(transaction: Transaction, project: str, earlier: Claim, claim: Claim) -> AgentConfig:
    """Returns the result of the first request with this id."""
    if earlier.fingerprint != claim.fingerprint:
        raise IdempotencyKeyReused(claim.request_id)
    first = await transaction.revision(earlier.uid, 1)
    if first is None:
        raise AgentNotFound(earlier.resource_id)
    return AgentConfig(project, earlier.resource_id, earlier.uid, first.spec, 1, first.create_time, first.create_time)


async def _current(transaction: Transaction, project: str, agent_id: str, etag: str) -> AgentConfig:
    """Reads and locks the agent config. An etag, if given, must be the current one."""
    current = await transaction.live(project, agent_id) if is_resource_id(agent_id) else None
    if current is None:
        raise AgentNotFound(agent_id)
    if etag and etag != current.etag:
        raise EtagMismatch(agent_id)
    return current


def _check_project(found: Violations, project: str) -> None:
    check_resource_id(found, "project", project)


def _check_name(found: Violations, project: str, agent_id: str, field: str = "id") -> None:
    """Reports an invalid project or a missing id. An impossible id is not a violation: no such agent exists."""
    _check_project(found, project)
    if not agent_id:
        found.add(field, "is required")


def _check_possible(agent_id: str) -> None:
    if not is_resource_id(agent_id):
        raise AgentNotFound(agent_id)
