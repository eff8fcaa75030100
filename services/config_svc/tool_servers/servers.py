"""What can be done with tool servers. A write is one transaction: state, revision, audit event."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from config_svc import paging
from config_svc.audit.events import tool_server_event
from config_svc.metrics import Metrics
from config_svc.model import rules
from config_svc.model.argument_schema import argument_schema_violations
from config_svc.model.errors import (
    IdempotencyKeyReused,
    ProjectNotFound,
    ToolServerAlreadyExists,
    ToolServerChanged,
    ToolServerInUse,
    ToolServerNotFound,
)
from config_svc.model.filter import TOOL_SERVER_FIELDS, parse_filter
from config_svc.model.json_form import encoded
from config_svc.model.note import Note
from config_svc.model.query import After, ToolServerQuery, parse_order, place_of, place_types
from config_svc.model.spec_json import fingerprint
from config_svc.model.tool_server import (
    MAX_CALLS,
    ToolServer,
    ToolServerRevision,
    ToolServerSpec,
    differences,
    merge,
)
from config_svc.ports.claim import Claim
from config_svc.ports.store import Store, Transaction
from config_svc.tool_servers.openapi_document import openapi_problems
from contract.fields import check_resource_id, is_resource_id
from servicekit.errors import Violations

PATH = "tool_server"
MAX_NAMED = 10
"""How many of the agents that name a tool server an error lists."""

REQUEST_ID_LIFETIME = timedelta(hours=24)


class ToolServers:
    """The use cases."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime], metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics

    async def create(
        self,
        project: str,
        server_id: str,
        spec: ToolServerSpec,
        *,
        request_id: str = "",
        validate_only: bool = False,
        note: Note = Note(),
    ) -> ToolServer:
        """Stores a new tool server as revision 1; a repeat with the same request id answers what the first made.

        With `validate_only` nothing is stored, and what is answered has no uid.
        """
        found = Violations()
        check_resource_id(found, "project", project)
        check_resource_id(found, f"{PATH}.id", server_id)
        if request_id:
            rules.check_uuid(found, "request_id", request_id)
        note.check(found)
        await _check_spec(found, spec)
        found.check()

        async def work(transaction: Transaction) -> ToolServer:
            now = self._clock()
            if await transaction.hold_project(project) is None:
                raise ProjectNotFound(project)
            server = ToolServer(project, server_id, str(uuid.uuid4()), spec, 1, now, now)
            if validate_only:
                if await transaction.lock_tool_server(project, server_id) is not None:
                    raise ToolServerAlreadyExists(server_id)
                return replace(server, uid="")
            if request_id:
                digest = fingerprint(f"tool_servers/{server_id}", encoded(spec), note.comment)
                claim = Claim(request_id.lower(), digest, server.uid, server_id, now)
                earlier = await transaction.claim_tool_server(project, claim, expired_before=now - REQUEST_ID_LIFETIME)
                if earlier is not None:
                    return await _replayed(transaction, project, earlier, claim)
            await transaction.insert_tool_server(server)
            revision = ToolServerRevision(1, spec, now, note.author, note.comment)
            await transaction.add_tool_server_revision(server.uid, revision)
            await transaction.record([tool_server_event("create", None, server, now)])
            return server

        with self._metrics.tool_server_write("validate" if validate_only else "create"):
            return await self._store.transact(work)

    async def get(self, project: str, server_id: str) -> ToolServer:
        """Reads a tool server."""
        _check_named(project, server_id)
        return await self._store.tool_server(project, server_id)

    async def list(
        self, project: str, *, size: int, token: str, filter_text: str, order_by: str
    ) -> tuple[Sequence[ToolServer], str]:
        """Reads one page and the token of the next, which is empty on the last."""
        found = Violations()
        check_resource_id(found, "project", project)
        order = parse_order(found, order_by)
        wanted = parse_filter(found, filter_text, TOOL_SERVER_FIELDS)
        found.check()
        query = ToolServerQuery(project, order, wanted)

        async def fetch(place: paging.Place | None, count: int) -> Sequence[ToolServer]:
            return await self._store.tool_servers(query, After(*place) if place else None, count)

        return await paging.read_page(
            fetch,
            ("tool_servers", project, filter_text, order.field.value, str(order.descending)),
            size=size,
            token=token,
            types=place_types(order),
            place_of=lambda server: place_of(server, order),
            weigh=lambda server: server.spec.weight,
        )

    async def update(
        self,
        project: str,
        server_id: str,
        spec: ToolServerSpec,
        paths: Sequence[str],
        *,
        etag: str = "",
        validate_only: bool = False,
        note: Note = Note(),
    ) -> ToolServer:
        """Takes over the fields that `paths` name and makes the next revision; changing nothing makes none."""
        _check_named(project, server_id, f"{PATH}.id")

        async def work(transaction: Transaction) -> ToolServer:
            current = await _current(transaction, project, server_id, etag)
            found = Violations()
            note.check(found)
            content = merge(found, current.spec, spec, paths)
            await _check_spec(found, content)
            if content.kind != current.spec.kind and content.kind:
                found.add(f"{PATH}.{content.kind}", f"can't be set: the tool server's kind is {current.spec.kind}")
            found.check()
            changed = differences(current.spec, content)
            if not changed:
                return current
            now = self._clock()
            server = current.with_spec(content, now)
            if validate_only:
                return server
            await transaction.replace_tool_server(server)
            revision = ToolServerRevision(
                server.revision, content, server.update_time, note.author, note.comment, changed
            )
            await transaction.add_tool_server_revision(server.uid, revision)
            await transaction.record([tool_server_event("update", current, server, now)])
            return server

        with self._metrics.tool_server_write("validate" if validate_only else "update"):
            return await self._store.transact(work)

    async def delete(self, project: str, server_id: str, *, etag: str = "", allow_missing: bool = False) -> None:
        """Deletes a tool server that no agent config names as it is now. Raises ToolServerInUse otherwise."""
        found = Violations()
        check_resource_id(found, "project", project)
        if not server_id:
            found.add("id", "is required")
        found.check()

        async def work(transaction: Transaction) -> None:
            try:
                current = await _current(transaction, project, server_id, etag)
            except ToolServerNotFound:
                if allow_missing:
                    return
                raise
            await transaction.lock_references(project)
            ids, count = await transaction.agents_naming(project, server_id, MAX_NAMED)
            if count:
                raise ToolServerInUse(server_id, ids, count)
            await transaction.remove_tool_server(current.uid)
            await transaction.record([tool_server_event("delete", current, None, self._clock())])

        with self._metrics.tool_server_write("delete"):
            await self._store.transact(work)

    async def revisions(
        self, project: str, server_id: str, *, size: int, token: str
    ) -> tuple[ToolServer, Sequence[ToolServerRevision], str]:
        """Reads one page of revisions, newest first, and the token of the next, which is empty on the last."""
        server = await self.get(project, server_id)

        async def fetch(place: paging.Place | None, count: int) -> Sequence[ToolServerRevision]:
            return await self._store.tool_server_revisions(server.uid, place[0] if place else None, count)

        page, next_token = await paging.read_page(
            fetch,
            ("tool_server_revisions", server.uid),
            size=size,
            token=token,
            types=[int],
            place_of=lambda revision: (revision.number,),
            weigh=lambda revision: revision.spec.weight,
        )
        return server, page, next_token


async def _check_spec(found: Violations, spec: ToolServerSpec) -> None:
    spec.check(found, PATH)
    if spec.http is None:
        return
    http = spec.http
    if http.openapi:
        for problem in await asyncio.to_thread(openapi_problems, http.openapi):
            found.add(f"{PATH}.http.openapi", problem)
    for index, call in enumerate(http.calls[:MAX_CALLS]):
        for violation in argument_schema_violations(call.parameters, f"{PATH}.http.calls[{index}].parameters"):
            found.add(violation.field, violation.description)


async def _replayed(transaction: Transaction, project: str, earlier: Claim, claim: Claim) -> ToolServer:
    """Returns what the first request with this id made, as it was then."""
    if earlier.fingerprint != claim.fingerprint:
        raise IdempotencyKeyReused(claim.request_id)
    first = await transaction.tool_server_revision(earlier.uid, 1)
    if first is None:
        raise ToolServerNotFound(earlier.resource_id)
    return ToolServer(project, earlier.resource_id, earlier.uid, first.spec, 1, first.create_time, first.create_time)


async def _current(transaction: Transaction, project: str, server_id: str, etag: str) -> ToolServer:
    """Reads and locks the tool server whose etag, where one is given, must be the current one."""
    current = await transaction.lock_tool_server(project, server_id) if is_resource_id(server_id) else None
    if current is None:
        raise ToolServerNotFound(server_id)
    if etag and etag != current.etag:
        raise ToolServerChanged(server_id)
    return current


def _check_named(project: str, server_id: str, field: str = "id") -> None:
    """Raises for a wrong project or a missing id. An id that none can have is not wrong, there is just none."""
    found = Violations()
    check_resource_id(found, "project", project)
    if not server_id:
        found.add(field, "is required")
    found.check()
    if not is_resource_id(server_id):
        raise ToolServerNotFound(server_id)
