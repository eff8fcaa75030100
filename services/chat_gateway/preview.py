"""Builds the prompt that a turn would send, without running it."""

from dataclasses import dataclass, replace
from datetime import datetime

from access.binding import may_read_turns
from access.caller import current, user_token
from chat_gateway.agents.agent import TurnContext
from chat_gateway.agents.offer import Offer, make_offer, with_note
from chat_gateway.agents.toolbox import Toolboxes, ToolCaller
from chat_gateway.instances import Instances
from chat_gateway.instructions import with_instructions
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.history import is_transcript
from chat_gateway.model.not_found import SessionNotFound
from chat_gateway.model.pairing import check_results_of_session, continues
from chat_gateway.model.rules import DEFAULT_BOUNDS, RequestBounds, check_tool_choice, check_turn_request
from chat_gateway.model.stored_turn import Begun, Turn
from chat_gateway.model.tools import ToolsUnavailable
from chat_gateway.model.turn import Message, Tool, TurnRequest
from chat_gateway.ports import Configs, SessionReader, StoredWindow
from chat_gateway.request_policy import resolved_request
from chat_gateway.transcripts import new_of_transcript
from chat_gateway.turn_tools import ToolsOfTurns
from chat_gateway.window_parts import WindowParts
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
    tools: tuple[Tool, ...] = ()
    """As the provider would get them."""
    unavailable: tuple[ToolsUnavailable, ...] = ()


@dataclass(frozen=True, slots=True)
class _Read:
    """A history that was read."""

    turns: tuple[Turn, ...] | None

    async def history(
        self, begun: Begun, request: TurnRequest, config: AgentConfig, digest: bytes
    ) -> tuple[Turn, ...] | None:
        return self.turns


class PromptPreview:
    """Puts prompts together as turns do: same config, same window, same agent."""

    def __init__(
        self,
        configs: Configs,
        sessions: SessionReader,
        instances: Instances,
        bounds: RequestBounds = DEFAULT_BOUNDS,
        toolboxes: Toolboxes | None = None,
        parts: WindowParts | None = None,
    ) -> None:
        self._configs = configs
        self._sessions = sessions
        self._instances = instances
        self._bounds = bounds
        self._tools = ToolsOfTurns(toolboxes)
        self._parts = parts

    async def show(self, request: TurnRequest) -> Prompt:
        """Returns the prompt; a turn that runs meanwhile may change it. Raises as `TurnRunner.run`."""
        check_turn_request(request, self._bounds, resolved=False)
        config = await self._configs.current(request.project, request.agent_id)
        request = resolved_request(request, current(), config, self._bounds)
        stored = await self._stored(request, config)
        revision = request.agent_revision or stored.pinned_revision
        if revision:
            config = await self._configs.at_revision(config, revision)
        if is_transcript(request) and stored.expire_time is not None:
            request, stored = await self._resent(request, stored, config)
        elif continues(request.messages):
            check_results_of_session(request.messages, stored.messages)
        check_tool_choice(request, config)
        if not stored.part_bytes or self._parts is None:
            return await self._prompt(request, config, stored)
        shown = self._parts.filled(config.project, request.session_id, stored.messages, config.window_parts)
        async with shown as window:
            return await self._prompt(request, config, replace(stored, messages=window))

    async def _prompt(self, request: TurnRequest, config: AgentConfig, stored: StoredWindow) -> Prompt:
        agent = self._instances.get(config)
        context = TurnContext(request, with_instructions(request, stored.messages), stored.metadata)
        messages, offer = agent.prompt(context), None
        if config.tools:
            offer = await self._offer(config, context)
            messages = with_note(messages, offer.unavailable)
        return Prompt(
            messages=messages,
            omitted_message_count=max(stored.message_count - len(stored.messages), 0),
            agent_revision=config.revision,
            session_expire_time=stored.expire_time,
            tools=offer.tools if offer is not None else request.tools,
            unavailable=offer.unavailable if offer is not None else (),
        )

    async def _resent(
        self, request: TurnRequest, stored: StoredWindow, config: AgentConfig
    ) -> tuple[TurnRequest, StoredWindow]:
        """Returns what a transcript adds, and the part of the session before it. Raises `HistoryMismatch`."""
        turns = await self._sessions.turns(request)
        begun = Begun(
            session_id=request.session_id,
            created=False,
            message_count=stored.message_count,
            pinned_revision=stored.pinned_revision,
            metadata=stored.metadata,
            expire_time=stored.expire_time,
            lease=None,
            window=stored.messages,
            replayed=None,
        )
        new = await new_of_transcript(_Read(turns), request, begun, config, b"")
        if continues(new.request.messages):
            check_results_of_session(new.request.messages, new.begun.window, new.first)
        count = stored.message_count
        if new.cut_after is not None:
            count = sum(len(turn.messages) for turn in turns or () if turn.number <= new.cut_after)
        return new.request, replace(stored, messages=new.begun.window, message_count=count)

    async def _offer(self, config: AgentConfig, context: TurnContext) -> Offer:
        request = context.request
        caller = ToolCaller(config.project, request.user_id, request.session_id, "", user_token())
        async with self._tools.open(config, caller, request.metadata, None) as toolbox:
            return await make_offer(config, replace(context, toolbox=toolbox))

    async def _stored(self, request: TurnRequest, config: AgentConfig) -> StoredWindow:
        nothing = StoredWindow((), 0, request.metadata, 0, None)
        if not request.session_id:
            return nothing
        try:
            window = await self._sessions.window(request, config)
            if not request.user_id and not may_read_turns(current(), "", window.user_id):
                raise SessionNotFound(request.session_id)
        except ServiceError as error:
            if error.reason == Reason.SESSION_NOT_FOUND and not request.session_must_exist:
                return nothing
            raise
        return window
