"""POST /v1/responses as the OpenAPI document describes it."""

from typing import Any, Final

from chat_gateway.http_edge.openai.chat.operation import chat_operation
from chat_gateway.http_edge.wire.openapi import SCHEMA_REF

RESPONSES_PATH: Final = "/v1/responses"


def responses_operation() -> dict[str, Any]:
    """Returns the operation, without its security."""
    operation = chat_operation()
    answer = {"$ref": SCHEMA_REF.format(name="Response")}
    events = {"type": "string"}
    busy = "While another turn of the conversation runs: reject (default), wait or interrupt."
    return operation | {
        "summary": "Create Response",
        "description": "Runs one turn as OpenAI's Responses API has it. The answer, or the last event of a stream, is "
        "sent once the turn is stored. An error in mid-stream is `response.failed`.",
        "operationId": "create_response",
        "parameters": [
            one | {"description": busy} if one["name"] == "X-Session-Busy" else one for one in operation["parameters"]
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": SCHEMA_REF.format(name="ResponseRequest")}}},
        },
        "responses": operation["responses"]
        | {
            "200": {
                "description": "The response, or with `stream` its events as server-sent events.",
                "headers": operation["responses"]["200"]["headers"],
                "content": {"application/json": {"schema": answer}, "text/event-stream": {"schema": events}},
            }
        },
    }
