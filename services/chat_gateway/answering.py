"""What an agent does in a turn that has begun: its slot, what it is shown, its tools, its answer, its journal."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

from access.caller import user_token
from chat_gateway.agents.agent import TurnContext
from chat_gateway.agents.toolbox import CallMetrics, Toolbox, ToolCaller
from chat_gateway.instances import Instances
from chat_gateway.instructions import with_instructions
from chat_gateway.journal import TurnJournal
from chat_gateway.leases import HeldLease
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.errors import AgentDepthExceeded
from chat_gateway.model.journal import TurnBegun
from chat_gateway.model.pairing import continues
from chat_gateway.model.stored_turn import Begun
from chat_gateway.model.tools import TurnResumed
from chat_gateway.model.turn import Answer, OnDelta, TurnRequest, TurnStarted
from chat_gateway.ports import Configs
from chat_gateway.resumption import resumption_of
from chat_gateway.scheduler import Scheduler
from chat_gateway.started_turn import StartedTurn
from chat_gateway.turn_tools import MAX_AGENT_DEPTH, ToolsOfTurns, approved_calls, has_gateway_tools
from chat_gateway.window_parts import WindowParts
from servicekit.errors import ServiceError


class Answering:
    """Has agents answer. What a turn does not use (parts, tools, a journal) it does not come by."""

    def __init__(
        self,
        configs: Configs,
        instances: Instances,
        scheduler: Scheduler,
        tools: ToolsOfTurns,
        parts: WindowParts | None,
        call_metrics: CallMetrics | None,
    ) -> None:
        self._configs = configs
        self._instances = instances
        self._scheduler = scheduler
        self._tools = tools
        self._parts = parts
        self._call_metrics = call_metrics

    async def answer(self, turn: StartedTurn, config: AgentConfig, begun: Begun) -> Answer:
        """Returns what the agent does, in a slot of the turn's own or of the turn that calls it."""
        async with self._scheduler.slot(turn.entered):
            if not begun.part_bytes and not (config.tools and has_gateway_tools(config)):
                return await self._respond(turn, config, begun, None)
            async with self._equipped(turn, config, begun) as (shown, toolbox):
                return await self._respond(turn, config, shown, toolbox)

    @asynccontextmanager
    async def journal(
        self, turn: StartedTurn, config: AgentConfig, begun: Begun, lease: HeldLease, asked: TurnRequest
    ) -> AsyncIterator[TurnJournal]:
        """Yields the journal of the turn."""

        def first_entry() -> TurnBegun | TurnResumed:
            if turn.resumed:
                return TurnResumed(turn.steps.count + 1, lease.attempt)
            # Who it is handed over to may pass the user's token on, which no other gateway has.
            takes_token = bool(user_token()) and not has_gateway_tools(config) and not asked.resumable
            request = b"" if takes_token else resumption_of(asked, config, turn.digest, turn.time)
            return TurnBegun(config.id, config.revision, begun.created, turn.time, request, turn.request.notes)

        journal = TurnJournal(
            lease,
            first_entry,
            turn.on_started,
            turn.on_delta,
            resumable=turn.request.resumable,
        )
        try:
            yield journal
        except ServiceError:
            await journal.failed()
            raise
        finally:
            await journal.close()

    async def answer_with_journal(
        self, turn: StartedTurn, config: AgentConfig, begun: Begun, journal: TurnJournal
    ) -> Answer:
        """Returns what the agent does, each step of which is written before anything follows from it."""
        written = replace(turn, on_started=journal.on_started, on_delta=journal.on_delta, sink=journal)
        if turn.resumed:
            await journal.go_on()
        return await self.answer(written, config, begun)

    @asynccontextmanager
    async def _equipped(
        self, turn: StartedTurn, config: AgentConfig, begun: Begun
    ) -> AsyncIterator[tuple[Begun, Toolbox | None]]:
        """Yields the window with the parts that it shows, and the tools that the gateway runs."""
        async with AsyncExitStack() as stack:
            if begun.part_bytes and self._parts is not None:
                shown = self._parts.filled(config.project, begun.session_id, begun.window, config.window_parts)
                begun = replace(begun, window=await stack.enter_async_context(shown))
            toolbox = None
            if has_gateway_tools(config):
                toolbox = await stack.enter_async_context(self._opened_tools(turn, config, begun))
            yield begun, toolbox

    async def _respond(self, turn: StartedTurn, config: AgentConfig, begun: Begun, toolbox: Toolbox | None) -> Answer:
        agent = self._instances.get(config)
        context = TurnContext(
            turn.request,
            with_instructions(turn.request, begun.window),
            begun.metadata,
            toolbox,
            steps=turn.steps,
            sink=turn.sink,
            hand_over=partial(self._hand_over, turn, begun, 1),
            goes_on_with=_goes_on_with(turn, begun),
            calls=self._call_metrics,
        )
        if begun.awaiting or turn.request.approvals:
            context = replace(context, approvals=approved_calls(turn.request, begun))
        if turn.on_started is not None:
            # What can fail without the model fails before the caller sees that the turn has started.
            agent.prompt(context)
            await turn.on_started(_started(turn, begun, config))
        return await agent.respond(context, turn.on_delta)

    async def _hand_over(
        self, turn: StartedTurn, begun: Begun, depth: int, agent_id: str, context: TurnContext, on_delta: OnDelta | None
    ) -> Answer:
        if depth > MAX_AGENT_DEPTH:
            raise AgentDepthExceeded(agent_id, MAX_AGENT_DEPTH)
        config = await self._configs.current(turn.request.project, agent_id)
        agent = self._instances.get(config)
        context = replace(
            context,
            toolbox=None,
            hand_over=partial(self._hand_over, turn, begun, depth + 1),
            handed_to=(*context.handed_to, agent_id),
            goes_on_with=context.goes_on_with[1:] if context.goes_on_with[:1] == (agent_id,) else (),
        )
        if not has_gateway_tools(config):
            answer = await agent.respond(context, on_delta)
        else:
            async with self._opened_tools(turn, config, begun) as toolbox:
                answer = await agent.respond(replace(context, toolbox=toolbox), on_delta)
        return replace(answer, handed_to=(agent_id, *answer.handed_to))

    def _opened_tools(
        self, turn: StartedTurn, config: AgentConfig, begun: Begun
    ) -> AbstractAsyncContextManager[Toolbox]:
        caller = ToolCaller(config.project, turn.request.user_id, begun.session_id, turn.turn_id, user_token())
        return self._tools.open(config, caller, begun.metadata, turn.called_by)


def _goes_on_with(turn: StartedTurn, begun: Begun) -> tuple[str, ...]:
    """Returns the agents that made the calls with which the turn continues."""
    if turn.steps.count:
        return turn.steps.handed_to
    if not begun.handed_to:
        return ()
    return begun.handed_to if turn.request.approvals or continues(turn.request.messages) else ()


def _started(turn: StartedTurn, begun: Begun, config: AgentConfig) -> TurnStarted:
    return TurnStarted(
        turn.turn_id,
        begun.session_id,
        begun.created,
        begun.expire_time,
        config.revision,
        turn.time,
        limits=begun.limits,
        provider=config.provider,
    )
