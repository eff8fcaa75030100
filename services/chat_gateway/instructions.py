"""Instructions of a request, for its turn only."""

from collections.abc import Sequence

from chat_gateway.model.turn import Message, TurnRequest
from contract.enums import Role


def with_instructions(request: TurnRequest, window: Sequence[Message]) -> Sequence[Message]:
    """Returns the window preceded by the request's instructions, so that they follow the agent's in every prompt."""
    return (Message(Role.SYSTEM, request.instructions), *window) if request.instructions else window
