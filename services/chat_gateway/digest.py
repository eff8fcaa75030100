"""By what a repeated request id is known to come with the same request."""

import hashlib

import msgspec

from chat_gateway.model.turn import TurnRequest

_encode = msgspec.json.Encoder(order="deterministic").encode


def request_digest(request: TurnRequest) -> bytes:
    """Returns 32 bytes that are the same for the same request, streamed or not.

    How long the caller waits and what it does about a busy session are not part of what it asks for.
    """
    asked = (
        request.project,
        request.agent_id,
        request.user_id,
        request.messages,
        request.agent_revision,
        request.sampling,
        request.tools,
        request.tool_choice,
        request.response_format,
    )
    return hashlib.sha256(_encode(asked)).digest()
