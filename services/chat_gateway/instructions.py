"""What a request adds to the agent's instructions, for its turn only."""

from collections.abc import Sequence

from chat_gateway.model.turn import Message, TurnRequest
from contract.enums import Role


def with_instructions(request: TurnRequest, window: Sequence[Message]) -> Sequence[Message]:
    """Returns the window with the request's instructions before it: right behind the agent's own in every prompt."""
    return (Message(Role.SYSTEM, request.instructions), *window) if request.instructions else window
