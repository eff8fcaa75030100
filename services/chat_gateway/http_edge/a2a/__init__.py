"""A2A over HTTP, under /a2a/{agent}: the agent card, JSON-RPC and REST."""
