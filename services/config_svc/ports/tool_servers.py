"""The part of the database port for tool servers, and for references of agent configs."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from config_svc.model.query import After, ToolServerQuery
from config_svc.model.tool_server import ToolServer, ToolServerRevision
from config_svc.ports.claim import Claim


class ToolServerTransaction(Protocol):
    """What a transaction can do with tool servers."""

    async def lock_references(self, project: str) -> None:
        """Blocks others who call this for the project until the transaction ends. References between agents and tool
        servers that are read after it stay valid until then, because every writer of references calls this first.
        """
        ...

    async def claim_tool_server(self, project: str, claim: Claim, *, expired_before: datetime) -> Claim | None:
        """Does for tool servers what `Transaction.claim` does for agent configs."""
        ...

    async def lock_tool_server(self, project: str, tool_server_id: str) -> ToolServer | None:
        """Reads and locks a tool server."""
        ...

    async def tool_server_kinds(self, project: str, ids: Collection[str]) -> Mapping[str, str]:
        """Returns `mcp` or `http` for those of the ids that tool servers of the project have."""
        ...

    async def insert_tool_server(self, server: ToolServer) -> None:
        """Stores a new tool server. Raises ToolServerAlreadyExists."""
        ...

    async def replace_tool_server(self, server: ToolServer) -> None:
        """Stores the new state of the tool server with this uid."""
        ...

    async def remove_tool_server(self, uid: str) -> None:
        """Removes a tool server with its revisions."""
        ...

    async def remove_tool_servers(self, project: str, limit: int) -> Sequence[ToolServer]:
        """Removes at most `limit` tool servers of a project with all revisions; returns them."""
        ...

    async def add_tool_server_revision(self, uid: str, revision: ToolServerRevision) -> None:
        """Stores a revision."""
        ...

    async def tool_server_revision(self, uid: str, number: int) -> ToolServerRevision | None:
        """Reads a revision."""
        ...

    async def agents_naming(self, project: str, tool_server_id: str, limit: int) -> tuple[Sequence[str], int]:
        """Returns the ids of agents that name the tool server as they are now: the first, in order, and how many."""
        ...

    async def calls_of(self, project: str, ids: Collection[str]) -> Mapping[str, Sequence[str]]:
        """Returns, for those of the ids that agents have that are not deleted, which agents they call."""
        ...


class ToolServerStore(Protocol):
    """Reads of tool servers."""

    async def tool_server(self, project: str, tool_server_id: str) -> ToolServer:
        """Reads a tool server. Raises ToolServerNotFound."""
        ...

    async def tool_servers(self, query: ToolServerQuery, after: After | None, limit: int) -> Sequence[ToolServer]:
        """Reads one page at a cost that does not grow with how far in the list it is."""
        ...

    async def tool_server_revisions(self, uid: str, before: int | None, limit: int) -> Sequence[ToolServerRevision]:
        """Reads revisions with a number under `before`, newest first."""
        ...
