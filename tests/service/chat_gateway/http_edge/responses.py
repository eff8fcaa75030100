"""Requests for responses."""

from typing import Any

from tests.service.chat_gateway.http_edge.edge import Edge

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


async def ask(edge: Edge, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return await edge.client.post("/v1/responses", json={"model": "hello", "input": "Hi"} | fields, headers=headers)
