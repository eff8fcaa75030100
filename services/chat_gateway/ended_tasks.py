"""Reports the end of turns of A2A tasks to their notifier."""

from collections.abc import Callable

from chat_gateway.model.background import TurnOfUser
from chat_gateway.model.turn import TurnRequest

Listener = Callable[[TurnOfUser, str], None]
"""Takes the turn that the task began with, and the agent's id; returns at once, raises nothing."""


class EndedTasks:
    """Reports ended turns of tasks to one listener."""

    def __init__(self) -> None:
        self._listener: Listener | None = None

    def listen(self, listener: Listener) -> None:
        """Sets the listener."""
        self._listener = listener

    def ended(self, request: TurnRequest, session_id: str, turn_id: str) -> None:
        """Reports that a turn has ended, or may have, on this gateway. Ignores turns that are no A2A tasks."""
        if self._listener is not None and request.task is not None:
            first = TurnOfUser(request.project, session_id, request.user_id, request.task or turn_id)
            self._listener(first, request.agent_id)
