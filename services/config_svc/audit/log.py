"""Use cases of the audit log: recording, listing, and erasing users."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from access.caller import OPERATOR, current
from config_svc import paging
from config_svc.model import rules
from config_svc.model.audit import TOKEN, AuditEvent, AuditQuery
from config_svc.ports.store import Store, Transaction
from contract.fields import check_resource_id
from servicekit.errors import Violations

EVENTS_PER_STEP = 100
"""The default number of events that one transaction of an erasure changes."""


class AuditLog:
    """The use cases. Events are ordered by the clocks of this service; one transaction erases `events_per_step`."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime], events_per_step: int = EVENTS_PER_STEP) -> None:
        self._store = store
        self._clock = clock
        self._events_per_step = events_per_step

    async def record(self, event: AuditEvent) -> None:
        """Adds the write of another service, at the time of this call. The same event id again adds nothing."""
        found = Violations()
        event.check(found, "audit_event")
        found.check()
        stamped = replace(event.bounded(), time=self._clock(), event_id=(event.event_id or "").lower())
        await self._store.transact(lambda transaction: transaction.record([stamped]))

    async def list(self, query: AuditQuery, *, size: int, token: str) -> tuple[Sequence[AuditEvent], str]:
        """Reads one page, newest first, and the token of the next, which is empty on the last.

        A caller of a project sees only events since that project was created; an operator also those of earlier
        projects with the same id.
        """
        found = Violations()
        check_resource_id(found, "project", query.project)
        rules.check_text(found, "actor", query.actor, maximum=512)
        rules.check_text(found, "resource", query.resource, maximum=512)
        found.check()
        if not current().may(OPERATOR):
            project = await self._store.project(query.project)
            if project is None:
                return [], ""
            query = replace(query, project_uid=project.uid)

        async def fetch(place: paging.Place | None, count: int) -> Sequence[AuditEvent]:
            return await self._store.audit_events(query, (place[0], place[1]) if place else None, count)

        return await paging.read_page(
            fetch,
            ("audit", query.project, query.actor, query.resource, str(query.start), str(query.end)),
            size=size,
            token=token,
            types=[datetime, int],
            place_of=lambda event: (event.time, event.sequence),
            weigh=lambda event: event.weight,
        )

    async def erase(self, project: str, user_id: str) -> int:
        """Replaces the user by a pseudonym in the project's log and as author of revisions; returns the number of
        replacements. The pseudonym is random and the mapping is not stored: events of one call can still be recognised
        as one user's, but not whose. After an interruption, the next call completes the erasure under another
        pseudonym.
        """
        rules.check_user_of(project, user_id)
        pseudonym = f"erased-{secrets.token_hex(16)}"

        async def some(transaction: Transaction) -> int:
            events = await transaction.events_of_user(project, user_id, self._events_per_step)
            for event in events:
                await transaction.rewrite_event(event.erased(user_id, pseudonym))
            return len(events)

        erased = 0
        while count := await self._store.transact(some):
            erased += count
        await self._store.transact(
            lambda transaction: transaction.erase_author(project, TOKEN + user_id, TOKEN + pseudonym)
        )
        return erased
