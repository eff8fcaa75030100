"""Tool servers: MCP over HTTP and stdio, HTTP services, their credentials, and the toolbox of a turn."""
