"""Shows the prompt that a turn would send, without running it."""

from dataclasses import dataclass
from datetime import datetime

from chat_gateway.agents.agent import TurnContext
from chat_gateway.instances import Instances
from chat_gateway.model.rules import DEFAULT_BOUNDS, RequestBounds, check_turn_request
from chat_gateway.model.turn import AgentConfig, Message, TurnRequest
from chat_gateway.ports import Configs, SessionReader, StoredWindow
from contract.reasons import Reason
from servicekit.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model would be sent, and how much of the session it would not see."""

    messages: list[Message]
    omitted_message_count: int
    agent_revision: int
    session_expire_time: datetime | None
    """None where there is no session yet."""


class PromptPreview:
    """Puts prompts together as turns do: same config, same window, same agent."""

    def __init__(
        self, configs: Configs, sessions: SessionReader, instances: Instances, bounds: RequestBounds = DEFAULT_BOUNDS
    ) -> None:
        self._configs = configs
        self._sessions = sessions
        self._instances = instances
        self._bounds = bounds

    async def show(self, request: TurnRequest) -> Prompt:
        """Returns the prompt; a turn that runs meanwhile may change it. Raises as `TurnRunner.run`."""
        check_turn_request(request, self._bounds)
        config = await self._configs.current(request.project, request.agent_id)
        stored = await self._stored(request, config)
        revision = request.agent_revision or stored.pinned_revision
        if revision:
            config = await self._configs.at_revision(config, revision)
        agent = self._instances.get(config)
        messages = agent.prompt(TurnContext(request, stored.messages, stored.metadata))
        omitted = stored.message_count - len(stored.messages)
        return Prompt(messages, omitted, config.revision, stored.expire_time)

    async def _stored(self, request: TurnRequest, config: AgentConfig) -> StoredWindow:
        nothing = StoredWindow((), 0, request.metadata, 0, None)
        if not request.session_id:
            return nothing
        try:
            return await self._sessions.window(request, config)
        except ServiceError as error:
            if error.reason == Reason.SESSION_NOT_FOUND and not request.session_must_exist:
                return nothing
            raise
