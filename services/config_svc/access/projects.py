"""Use cases of projects.

A deletion takes several bounded transactions and may be interrupted after any of them: the mark on the project's row
stays, and the next call, or the next sweep of any replica, continues. Once marked, nothing can be created in the
project and none of its keys is valid. The row is removed last, under a lock that every creation takes too, so a new
project under the same id is empty.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from access.caller import Caller
from config_svc import paging
from config_svc.access.api_keys import KEYS_PER_STEP, revoke_some
from config_svc.audit.events import SELF, agent_event, project_event, tool_server_event
from config_svc.metrics import Metrics
from config_svc.model.change import ChangeType
from config_svc.model.errors import ProjectInUse, ProjectNotFound
from config_svc.model.project import Project
from config_svc.model.spec_json import EncodedAgent
from config_svc.ports.store import Store, Transaction
from contract.fields import DEFAULT_PROJECT, is_resource_id
from servicekit.errors import Violations

AGENTS_PER_STEP = 100
"""The default number of agent configs that one transaction of a deletion removes."""

PROJECTS_PER_SWEEP = 100

_AGAIN_SECONDS = 0.05
_PROJECT_WEIGHT = 512


class Projects:
    """The use cases. One transaction of a deletion removes `agents_per_step` agent configs or tool servers."""

    def __init__(
        self, store: Store, *, clock: Callable[[], datetime], metrics: Metrics, agents_per_step: int = AGENTS_PER_STEP
    ) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._agents_per_step = agents_per_step

    async def create(self, project_id: str, display_name: str) -> Project:
        """Creates a project. Raises ProjectAlreadyExists, also while an earlier one with this id is being deleted."""
        found = Violations()
        project = Project(project_id, str(uuid.uuid4()), display_name, self._clock())
        project.check(found, "project")
        found.check()

        async def work(transaction: Transaction) -> Project:
            await transaction.insert_project(project)
            await transaction.record([project_event("create", None, project, project.create_time)])
            return project

        with self._metrics.access_write("create_project"):
            return await self._store.transact(work)

    async def list(self, *, size: int, token: str) -> tuple[Sequence[Project], str]:
        """Reads one page, in order of id, and the token of the next, which is empty on the last."""

        async def fetch(place: paging.Place | None, count: int) -> Sequence[Project]:
            return await self._store.projects(place[0] if place else "", count)

        return await paging.read_page(
            fetch,
            ("projects",),
            size=size,
            token=token,
            types=[str],
            place_of=lambda project: (project.id,),
            weigh=lambda _: _PROJECT_WEIGHT,
        )

    async def delete(self, project_id: str) -> None:
        """Deletes a project with its agent configs and keys; returns when it is gone. Raises ProjectNotFound."""
        found = Violations()
        if not project_id:
            found.add("id", "is required")
        found.check()
        if project_id == DEFAULT_PROJECT:
            raise ProjectInUse(project_id)
        if not is_resource_id(project_id):
            raise ProjectNotFound(project_id)
        with self._metrics.access_write("delete_project"):
            await self._finish(await self._store.transact(lambda transaction: self._mark(transaction, project_id)))

    async def resume(self) -> int:
        """Completes interrupted deletions; returns how many."""
        begun = await self._store.projects("", PROJECTS_PER_SWEEP, in_deletion=True)
        for project in begun:
            await self._finish(project, SELF)
        return len(begun)

    async def _mark(self, transaction: Transaction, project_id: str) -> Project:
        project = await transaction.lock_project(project_id)
        if project is None:
            raise ProjectNotFound(project_id)
        if project.delete_time is not None:
            return project
        now = self._clock()
        marked = replace(project, delete_time=now)
        await transaction.mark_project(marked)
        await transaction.record([project_event("delete", project, None, now)])
        return marked

    async def _finish(self, project: Project, caller: Caller | None = None) -> None:
        while await self._store.transact(lambda transaction: self._revoke_some(transaction, project, caller)):
            pass
        while True:
            while await self._store.transact(lambda transaction: self._delete_some(transaction, project, caller)):
                pass
            while await self._store.transact(lambda transaction: self._delete_servers(transaction, project, caller)):
                pass
            if await self._store.transact(lambda transaction: self._remove(transaction, project)):
                return
            # Something was created before the mark, and committed only now.
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _revoke_some(self, transaction: Transaction, project: Project, caller: Caller | None) -> int:
        return await revoke_some(transaction, project.uid, self._clock(), limit=KEYS_PER_STEP, caller=caller)

    async def _delete_some(self, transaction: Transaction, project: Project, caller: Caller | None) -> int:
        now = self._clock()
        current = await transaction.lock_project(project.id)
        if current is None or current.uid != project.uid:
            return 0  # another call has finished it
        gone = await transaction.remove_agents(project.id, self._agents_per_step)
        live = [EncodedAgent.of(agent) for agent in gone if agent.delete_time is None]
        deleted = [encoded.with_agent(encoded.agent.deleted(now, timedelta(0))) for encoded in live]
        await transaction.record([agent_event("delete", encoded, None, now, caller=caller) for encoded in live])
        await transaction.announce_all(ChangeType.DELETED, deleted, now)
        return len(gone)

    async def _delete_servers(self, transaction: Transaction, project: Project, caller: Caller | None) -> int:
        current = await transaction.lock_project(project.id)
        if current is None or current.uid != project.uid:
            return 0
        gone = await transaction.remove_tool_servers(project.id, self._agents_per_step)
        now = self._clock()
        await transaction.record([tool_server_event("delete", one, None, now, caller=caller) for one in gone])
        return len(gone)

    async def _remove(self, transaction: Transaction, project: Project) -> bool:
        current = await transaction.lock_project(project.id)
        return current is None or current.uid != project.uid or await transaction.remove_project(current)
