"""POST /v1/chat/completions as the OpenAPI document describes it."""

from typing import Any, Final

from chat_gateway.http_edge.wire.openapi import SCHEMA_REF, error_response

CHAT_PATH: Final = "/v1/chat/completions"

_REQUEST_HEADERS = {
    "X-Session-ID": "The session to continue, or to create under this id.",
    "X-User-ID": "The user that the session belongs to.",
    "X-Project-ID": "The project; an API key has its own. `default` when nothing names one.",
    "X-Session-Busy": "While another turn of the session runs: wait (default), reject or interrupt.",
    "X-Session-History": "What messages with answers of the assistant are: match (default), replace or append.",
    "Idempotency-Key": "A repeat with the same key and body replays the first outcome.",
}
_ANSWER_HEADERS = {
    "X-Session-ID": "The session.",
    "X-Session-Created": "`true` when this turn created it.",
    "X-Session-Expires": "When it expires unless another turn begins.",
    "X-Agent-Revision": "The revision of the agent config that the turn ran on.",
    "X-Parley-Provider": "The provider that answered: the agent's own, or one of its fallbacks. Of a stream that was "
    "silent for long before its first piece, the one that was asked first.",
    "x-ratelimit-limit-requests": "Turns per minute, by the key's or agent's limit that is closest to being reached.",
    "x-ratelimit-remaining-requests": "Turns that may begin now under that limit.",
    "x-ratelimit-reset-requests": "Time until the limit is fully replenished, such as `6m0s`.",
    "Idempotent-Replayed": "`true` when this is the stored outcome of an earlier request.",
}
_ERRORS = {
    "400": "The request is not valid, or can't be served in the current state.",
    "404": "There is no such agent, revision or session.",
    "409": "The session is busy, the turn was interrupted, the messages contradict the session's history, or the "
    "idempotency key was used for another body.",
    "429": "Too many turns are running and queued, or a limit of the key or agent is reached (`rate_limited`).",
    "500": "An internal error, or a malformed answer of the provider.",
    "502": "The provider refuses the gateway: its operator has to look at its settings (`provider_misconfigured`).",
    "503": "The provider or a part of the service is unavailable.",
    "504": "The provider, or the whole turn, took too long.",
}


def chat_operation() -> dict[str, Any]:
    """Returns the operation, without its security."""
    string = {"type": "string"}
    answer_headers = {name: {"description": text, "schema": string} for name, text in _ANSWER_HEADERS.items()}
    return {
        "summary": "Create Chat Completion",
        "description": "Runs one turn. The answer, or the last chunk of a stream, is sent once the turn is stored. An "
        'error in mid-stream is one frame `data: {"error": …}` and no `[DONE]`.',
        "operationId": "create_chat_completion",
        "parameters": [
            {"name": name, "in": "header", "description": text, "required": False, "schema": string}
            for name, text in _REQUEST_HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": SCHEMA_REF.format(name="ChatCompletionRequest")}}},
        },
        "responses": {
            "200": {
                "description": "The answer, or with `stream` its chunks as server-sent events.",
                "headers": answer_headers,
                "content": {
                    "application/json": {"schema": {"$ref": SCHEMA_REF.format(name="ChatCompletion")}},
                    "text/event-stream": {"schema": string},
                },
            },
            **{status: error_response(text) for status, text in _ERRORS.items()},
        },
    }
