"""Tool servers in the in-memory twin of the store."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from config_svc.model.errors import ToolServerAlreadyExists, ToolServerNotFound
from config_svc.model.filter import matches
from config_svc.model.query import After, SortValue, ToolServerQuery, sort_value
from config_svc.model.tool_server import ToolServer, ToolServerRevision
from config_svc.ports.claim import Claim
from tests.doubles.config_svc.memory_state import State


def _find(state: State, project: str, tool_server_id: str) -> ToolServer | None:
    servers = state.tool_servers.values()
    return next((one for one in servers if (one.project, one.id) == (project, tool_server_id)), None)


class MemoryToolServerTransaction:
    """What a transaction does with tool servers; there is one writer at a time, so locks are nothing."""

    _state: State

    async def lock_references(self, project: str) -> None:
        return

    async def claim_tool_server(self, project: str, claim: Claim, *, expired_before: datetime) -> Claim | None:
        held = self._state.tool_server_claims.get((project, claim.request_id))
        if held is not None and held.create_time >= expired_before:
            return held
        self._state.tool_server_claims[project, claim.request_id] = claim
        return None

    async def lock_tool_server(self, project: str, tool_server_id: str) -> ToolServer | None:
        return _find(self._state, project, tool_server_id)

    async def tool_server_kinds(self, project: str, ids: Collection[str]) -> Mapping[str, str]:
        servers = self._state.tool_servers.values()
        return {one.id: one.spec.kind for one in servers if one.project == project and one.id in ids}

    async def insert_tool_server(self, server: ToolServer) -> None:
        if _find(self._state, server.project, server.id) is not None:
            raise ToolServerAlreadyExists(server.id)
        self._state.tool_servers[server.uid] = server

    async def replace_tool_server(self, server: ToolServer) -> None:
        self._state.tool_servers[server.uid] = server

    async def remove_tool_server(self, uid: str) -> None:
        state = self._state
        del state.tool_servers[uid]
        state.tool_server_revisions = {key: one for key, one in state.tool_server_revisions.items() if key[0] != uid}
        state.tool_server_claims = {key: one for key, one in state.tool_server_claims.items() if one.uid != uid}

    async def remove_tool_servers(self, project: str, limit: int) -> Sequence[ToolServer]:
        gone = sorted(
            (one for one in self._state.tool_servers.values() if one.project == project), key=lambda one: one.id
        )[:limit]
        for one in gone:
            await self.remove_tool_server(one.uid)
        return gone

    async def add_tool_server_revision(self, uid: str, revision: ToolServerRevision) -> None:
        self._state.tool_server_revisions[uid, revision.number] = revision

    async def tool_server_revision(self, uid: str, number: int) -> ToolServerRevision | None:
        return self._state.tool_server_revisions.get((uid, number))

    async def agents_naming(self, project: str, tool_server_id: str, limit: int) -> tuple[Sequence[str], int]:
        found = sorted(
            agent.id
            for agent in self._state.agents.values()
            if agent.project == project
            and agent.delete_time is None
            and any(
                server is not None and server.tool_server == tool_server_id
                for tool in agent.spec.tools
                for server in (tool.mcp, tool.http)
            )
        )
        return found[:limit], len(found)

    async def calls_of(self, project: str, ids: Collection[str]) -> Mapping[str, Sequence[str]]:
        return {
            agent.id: [tool.agent.agent_id for tool in agent.spec.tools if tool.agent is not None]
            for agent in self._state.agents.values()
            if agent.project == project and agent.id in ids and agent.delete_time is None
        }


class MemoryToolServers:
    """Reads of tool servers."""

    _state: State

    async def tool_server(self, project: str, tool_server_id: str) -> ToolServer:
        server = _find(self._state, project, tool_server_id)
        if server is None:
            raise ToolServerNotFound(tool_server_id)
        return server

    async def tool_servers(self, query: ToolServerQuery, after: After | None, limit: int) -> Sequence[ToolServer]:
        def key(server: ToolServer) -> tuple[SortValue, str]:
            return sort_value(server, query.order), server.uid

        found = [
            one
            for one in self._state.tool_servers.values()
            if one.project == query.project and (query.filter is None or matches(one, query.filter))
        ]
        found.sort(key=key, reverse=query.order.descending)
        if after is not None:
            start = (after.value, after.uid)
            found = [one for one in found if (key(one) < start if query.order.descending else key(one) > start)]
        return found[:limit]

    async def tool_server_revisions(self, uid: str, before: int | None, limit: int) -> Sequence[ToolServerRevision]:
        found = [
            revision
            for (owner, number), revision in self._state.tool_server_revisions.items()
            if owner == uid and (before is None or number < before)
        ]
        return sorted(found, key=lambda revision: revision.number, reverse=True)[:limit]
