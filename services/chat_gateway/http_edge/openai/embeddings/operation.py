"""POST /v1/embeddings as the OpenAPI document describes it."""

from typing import Any, Final

from chat_gateway.http_edge.wire.openapi import SCHEMA_REF, error_response

EMBEDDINGS_PATH: Final = "/v1/embeddings"

_REQUEST_HEADERS = {
    "X-Project-ID": "The project; an API key has its own. `default` when nothing names one.",
    "X-User-ID": "The user on whose behalf it is asked; of credentials of one user, that one.",
}
_ANSWER_HEADERS = {
    "X-Agent-Revision": "The revision of the agent config whose model it is; without an agent, there is none.",
    "X-Parley-Provider": "The provider that answered.",
    "x-ratelimit-limit-requests": "Requests per minute, by the key's or agent's limit that is closest to being "
    "reached. Turns count in it, too.",
    "x-ratelimit-remaining-requests": "Requests that may begin now under that limit.",
    "x-ratelimit-reset-requests": "Time until the limit is fully replenished, such as `6m0s`.",
}
_ERRORS = {
    "400": "The request is not valid, or the provider refuses it, or has no embeddings (`embeddings_unsupported`).",
    "404": "There is no such agent, revision, provider or model.",
    "429": "Too many requests are running and queued, or a limit of the key, agent or provider is reached.",
    "500": "An internal error, or a malformed answer of the provider.",
    "502": "The provider refuses the gateway: its operator has to look at its settings (`provider_misconfigured`).",
    "503": "The provider or a part of the service is unavailable.",
    "504": "The provider took too long.",
}


def embeddings_operation() -> dict[str, Any]:
    """Returns the operation, without its security."""
    string = {"type": "string"}
    return {
        "summary": "Create Embeddings",
        "description": "Returns the vectors of texts, from the provider of an agent, or from `provider/model`.",
        "operationId": "create_embeddings",
        "parameters": [
            {"name": name, "in": "header", "description": text, "required": False, "schema": string}
            for name, text in _REQUEST_HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": SCHEMA_REF.format(name="EmbeddingsRequest")}}},
        },
        "responses": {
            "200": {
                "description": "The vectors.",
                "headers": {name: {"description": text, "schema": string} for name, text in _ANSWER_HEADERS.items()},
                "content": {"application/json": {"schema": {"$ref": SCHEMA_REF.format(name="EmbeddingList")}}},
            },
            **{status: error_response(text) for status, text in _ERRORS.items()},
        },
    }
