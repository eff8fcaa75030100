"""The port `ToolServers` in memory."""

from chat_gateway.model.not_found import ToolServerNotFound
from chat_gateway.model.tool_servers import HttpService, McpServer, ToolServer, ToolServerAuth


class KnownToolServers:
    """Implements `ToolServers`; `put` makes the next revision."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, str], ToolServer] = {}

    def put(
        self,
        server_id: str,
        kind: McpServer | HttpService,
        auth: ToolServerAuth | None = None,
        project: str = "default",
    ) -> None:
        """Creates or updates a tool server."""
        before = self._servers.get((project, server_id))
        revision = before.revision + 1 if before is not None else 1
        self._servers[project, server_id] = ToolServer(
            project, server_id, f"uid-{project}-{server_id}", revision, kind, auth
        )

    async def get(self, project: str, tool_server_id: str) -> ToolServer:
        try:
            return self._servers[project, tool_server_id]
        except KeyError:
            raise ToolServerNotFound(tool_server_id) from None

    async def read(self, project: str, tool_server_id: str) -> ToolServer:
        return await self.get(project, tool_server_id)
