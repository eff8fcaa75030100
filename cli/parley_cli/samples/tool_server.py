"""A tool server in one file: MCP over standard input and output. `parley up` offers it to agents as `sample`."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

server = MCPServer("sample", version="1", log_level="WARNING")
# A tool that changes nothing may be called again when its result was lost.
read_only = ToolAnnotations(read_only_hint=True)


@server.tool(annotations=read_only, structured_output=False)
def current_time(timezone: str = "UTC") -> str:
    """Returns the time in a time zone, such as Europe/Paris."""
    try:
        zone = UTC if timezone == "UTC" else ZoneInfo(timezone)
    except (LookupError, ValueError, OSError):
        raise ToolError(f"There is no time zone {timezone!r}.") from None  # the model reads this, and may try another
    return datetime.now(zone).isoformat(timespec="seconds")


@server.tool(annotations=read_only, structured_output=False)
def add(a: float, b: float) -> str:
    """Adds two numbers."""
    return f"{a + b:.15g}"


if __name__ == "__main__":
    server.run()
