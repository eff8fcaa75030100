"""An MCP server whose only tool answers at once: `python -m benchmarks.mock_tools --port N`."""

import argparse

import uvicorn
from mcp.server.mcpserver import MCPServer

from benchmarks.conversation import TOOL
from parley_cli.processes.ports import LOOPBACK


def main() -> None:
    """Serve until ended."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    port = arguments.parse_args().port
    server = MCPServer("benchmark", version="1", log_level="CRITICAL")

    @server.tool(name=TOOL, description="Says when.", structured_output=False)
    async def when(turn: int) -> str:
        return f"in turn {turn}"

    app = server.streamable_http_app(json_response=True, stateless_http=True)
    uvicorn.run(app, host=LOOPBACK, port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
