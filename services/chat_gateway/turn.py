"""The life of one turn, top to bottom."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from access.caller import ANONYMOUS, current, user_token
from chat_gateway.aborts import Aborts
from chat_gateway.admission import Admission, bounded, new_turn_id
from chat_gateway.agents.agent import TurnContext
from chat_gateway.agents.toolbox import NO_STEPS, CallMetrics, Steps, StepSink, Toolbox, Toolboxes, ToolCaller
from chat_gateway.digest import request_digest
from chat_gateway.instances import Instances
from chat_gateway.instructions import with_instructions
from chat_gateway.journal import TurnJournal
from chat_gateway.leases import HeldLease, LeaseTimes, TurnStop
from chat_gateway.limits import turn_limits
from chat_gateway.metrics import TurnMetrics
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.answers import pending_approvals, visible
from chat_gateway.model.background import ResumableTurn
from chat_gateway.model.errors import AgentDepthExceeded, SessionFull
from chat_gateway.model.history import EMPTY, grown, is_transcript
from chat_gateway.model.journal import TurnBegun
from chat_gateway.model.not_found import AgentNotFound
from chat_gateway.model.pairing import check_results_of_session, continues
from chat_gateway.model.rules import DEFAULT_BOUNDS, RequestBounds, check_size, check_tool_choice, check_turn_request
from chat_gateway.model.stored_turn import Begun, Lease, Turn
from chat_gateway.model.tools import TurnResumed
from chat_gateway.model.turn import Answer, OnDelta, OnStarted, TurnLimit, TurnOutcome, TurnRequest, TurnStarted
from chat_gateway.outcomes import outcome_of, replay
from chat_gateway.ports import Configs, Sessions
from chat_gateway.request_policy import resolved_request
from chat_gateway.resumption import resumption_of, time_left, unheard, with_session
from chat_gateway.scheduler import EnteredTurn, Scheduler
from chat_gateway.transcripts import new_of_transcript
from chat_gateway.turn_tools import MAX_AGENT_DEPTH, CallChain, ToolsOfTurns, approved_calls, has_gateway_tools
from chat_gateway.window_parts import WindowParts
from contract.reasons import Reason
from servicekit import traces
from servicekit.errors import ServiceError
from servicekit.values import value


@value
class _Started:
    """What is fixed once a turn has begun."""

    turn_id: str
    time: datetime
    digest: bytes
    request: TurnRequest
    on_started: OnStarted | None
    on_delta: OnDelta | None
    entered: EnteredTurn | None
    """None for the turn of an agent that another one calls: it runs in that one's slot."""
    called_by: CallChain | None = None
    sink: StepSink | None = None
    steps: Steps = NO_STEPS
    """What other gateways have done of the turn."""
    resumed: bool = False
    """Whether this gateway has taken the turn over, whose journal has begun then."""


class TurnRunner:
    """Runs turns. Holds no state of any of them: any gateway can run the next turn of any session."""

    def __init__(
        self,
        *,
        configs: Configs,
        instances: Instances,
        scheduler: Scheduler,
        sessions: Sessions,
        aborts: Aborts,
        lease_times: LeaseTimes,
        metrics: TurnMetrics,
        turn_timeout: float,
        toolboxes: Toolboxes | None = None,
        bounds: RequestBounds = DEFAULT_BOUNDS,
        parts: WindowParts | None = None,
        call_metrics: CallMetrics | None = None,
    ) -> None:
        self._configs = configs
        self._instances = instances
        self._scheduler = scheduler
        self._sessions = sessions
        self._aborts = aborts
        self._lease_times = lease_times
        self._admission = Admission(sessions, aborts, lease_times)
        self._metrics = metrics
        self._turn_timeout = turn_timeout
        self._tools = ToolsOfTurns(toolboxes, self._run_called, call_metrics)
        self._call_metrics = call_metrics
        self._bounds = bounds
        self._parts = parts

    async def run(
        self, request: TurnRequest, on_started: OnStarted | None = None, on_delta: OnDelta | None = None
    ) -> TurnOutcome:
        """Runs one turn in the caller's task and returns once it is stored.

        `on_started` is awaited once, when nothing but the model can fail any more; `on_delta` gets each piece of the
        answer, and without it the model is not asked to stream. Raises `ServiceError`, after which nothing of the turn
        is stored; the one exception is a commit whose outcome stays unknown: `Unavailable`, which a repeat with the
        same request id resolves, or `CommitUnresolved` where there is no such id.
        Cancelling the task cancels the model call and releases the lease.
        """
        check_turn_request(request, self._bounds, resolved=False)
        with self._metrics.turn(streamed=on_delta is not None) as observed, _span(request) as span:
            config = await self._config(request)
            check_tool_choice(request, config)
            digest = request_digest(request) if request.request_id else b""
            request = resolved_request(request, current(), config, self._bounds)
            with self._scheduler.entered(config) as entered:
                turn = _Started(new_turn_id(), datetime.now(UTC), digest, request, on_started, on_delta, entered)
                outcome = await self._run(turn, config)
            observed.ended(outcome)
            _record(span, outcome)
            return outcome

    async def go_on(self, lease: Lease, asked: ResumableTurn, steps: Steps) -> TurnOutcome:
        """Goes on with a turn that another gateway began or queued, in the caller's task; returns once it is stored.

        Raises as `run`, and `TurnHandedOver` for what another gateway may be able to run now, and is left to it.
        """
        request = with_session(asked.request, lease.session_id)
        with self._metrics.turn(streamed=request.resumable) as observed, _span(request) as span:
            async with bounded(self._turn_timeout, None) as stop, self._held(lease, stop, request.user_id) as held:
                config = await self._configs.current(request.project, request.agent_id)
                config = await self._at_revision(config, asked.agent_revision)
                stop.end_in(time_left(asked, config.turn_timeout or self._turn_timeout))
                with self._scheduler.entered(config) as entered:
                    on_delta = unheard if request.resumable else None
                    turn = _Started(lease.turn_id, asked.begin_time, asked.digest, request, None, on_delta, entered)
                    turn = replace(turn, steps=steps, resumed=True)
                    begun = await self._begin_with(turn, config)
                    if begun.lease is None:
                        return await replay(begun, None, None)
                    held.took(begun.lease)
                    outcome = await self._run_held(turn, config, begun, held)
            observed.ended(outcome)
            _record(span, outcome)
            return outcome

    async def _run_called(self, request: TurnRequest, chain: CallChain) -> TurnOutcome:
        """Runs the turn of an agent that another one calls, whose turn has entered and holds a slot for both."""
        check_turn_request(request, self._bounds)
        with self._metrics.turn(streamed=False) as observed, _span(request) as span:
            config = await self._config(request, chain)
            digest = request_digest(request) if request.request_id else b""
            turn = _Started(new_turn_id(), datetime.now(UTC), digest, request, None, None, None, chain)
            outcome = await self._run(turn, config)
            observed.ended(outcome)
            _record(span, outcome)
            return outcome

    async def _run(self, turn: _Started, config: AgentConfig) -> TurnOutcome:
        async with bounded(config.turn_timeout or self._turn_timeout, turn.request.timeout) as stop:
            if turn.request.stateless:
                return await self._stateless(turn, config, stop)
            return await self._in_session(turn, config, stop)

    async def _config(self, request: TurnRequest, called_by: CallChain | None = None) -> AgentConfig:
        config = await self._configs.current(request.project, request.agent_id)
        if called_by is not None:
            # Its session hangs on that of the caller, and has its life.
            return replace(config, idle_ttl=called_by.idle_ttl, max_lifetime=called_by.max_lifetime)
        if not request.agent_revision:
            return config
        return await self._at_revision(config, request.agent_revision)

    async def _at_revision(self, config: AgentConfig, revision: int) -> AgentConfig:
        # The agent's limits, and what requests may say, are those of now: an older revision is no way round them.
        chosen = await self._configs.at_revision(config, revision)
        return replace(
            chosen,
            max_concurrent_turns=config.max_concurrent_turns,
            requests_per_minute=config.requests_per_minute,
            requests=config.requests,
        )

    async def _in_session(self, turn: _Started, config: AgentConfig, stop: TurnStop) -> TurnOutcome:
        begun, config = await self._begin(turn, config)
        if begun.lease is None:
            return await replay(begun, turn.on_started, turn.on_delta)
        async with self._held(begun.lease, stop, turn.request.user_id) as lease:
            if begun.pinned_revision and not turn.request.agent_revision:
                config = await self._configs.at_revision(config, begun.pinned_revision)
            return await self._run_held(turn, config, begun, lease)

    async def _run_held(self, turn: _Started, config: AgentConfig, begun: Begun, lease: HeldLease) -> TurnOutcome:
        asked, first, cut_after = turn.request, 0, None
        transcript = is_transcript(turn.request)
        if transcript and not begun.created:
            new = await new_of_transcript(self._sessions, turn.request, begun, config, turn.digest)
            turn, begun, first, cut_after = replace(turn, request=new.request), new.begun, new.first, new.cut_after
        if begun.full_turns and cut_after is None:
            raise SessionFull(begun.session_id, begun.full_turns)
        if transcript:
            check_size(turn.request.messages, self._bounds)
        if continues(turn.request.messages):
            check_results_of_session(turn.request.messages, begun.window, first)
        if turn.request.resumable or turn.resumed or _keeps_journal(turn, config):
            answer = await self._answer_with_journal(turn, config, begun, lease, asked)
        else:
            answer = await self._answer(turn, config, begun)
        stored = _stored(turn, config, begun, answer, cut_after)
        committed = await lease.commit(stored, config, turn.request.request_id, turn.digest)
        outcome = outcome_of(
            stored, begun, config.revision, number=committed.turn_number, expire_time=committed.expire_time
        )
        return replace(outcome, unavailable=answer.unavailable) if answer.unavailable else outcome

    async def _begin(self, turn: _Started, config: AgentConfig) -> tuple[Begun, AgentConfig]:
        """Begins the turn; an agent that was deleted, and maybe made again, since its config was read is read again."""
        try:
            return await self._begin_with(turn, config), config
        except ServiceError as error:
            if error.reason != Reason.AGENT_DELETED:
                raise
        self._configs.forget(config.project, config.id, config.uid)
        self._instances.evict_uid(config.uid)
        fresh = await self._config(turn.request, turn.called_by)
        if fresh.uid == config.uid:
            raise AgentNotFound(config.id)
        return await self._begin_with(turn, fresh), fresh

    async def _begin_with(self, turn: _Started, config: AgentConfig) -> Begun:
        limits = _limits(turn, config)
        with self._aborts.unless_answered(turn.request, turn.turn_id, limits, has_lease=turn.resumed):
            return await self._sessions.begin(turn.request, config, turn.turn_id, turn.digest, limits)

    def _held(self, lease: Lease, stop: TurnStop, user_id: str) -> HeldLease:
        return HeldLease(lease, stop, self._sessions, self._aborts, self._lease_times, user_id)

    async def _stateless(self, turn: _Started, config: AgentConfig, stop: TurnStop) -> TurnOutcome:
        limits = _limits(turn, config)
        async with self._admission.limited(turn.request, turn.turn_id, limits, stop) as begun:
            return await self._answer_stateless(turn, config, begun)

    async def _answer_stateless(self, turn: _Started, config: AgentConfig, begun: Begun) -> TurnOutcome:
        answer = await self._answer(turn, config, begun)
        return TurnOutcome(
            turn_id=turn.turn_id,
            session_id="",
            session_created=False,
            turn_number=0,
            session_expire_time=None,
            agent_revision=config.revision,
            message=visible(answer.messages, answer.awaiting),
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            model=answer.model,
            begin_time=turn.time,
            limits=begun.limits,
            details=answer.details,
            unavailable=answer.unavailable,
            pending=pending_approvals(answer.messages, answer.awaiting),
            others=answer.others,
            said=answer.messages,
            runs=answer.runs,
            notes=turn.request.notes,
            listed=answer.listed,
        )

    async def _answer_with_journal(
        self, turn: _Started, config: AgentConfig, begun: Begun, lease: HeldLease, asked: TurnRequest
    ) -> Answer:
        def first_entry() -> TurnBegun | TurnResumed:
            if turn.resumed:
                return TurnResumed(turn.steps.count + 1, lease.attempt)
            request = resumption_of(asked, config, turn.digest, turn.time)
            return TurnBegun(config.id, config.revision, begun.created, turn.time, request, turn.request.notes)

        journal = TurnJournal(
            lease,
            first_entry,
            turn.on_started,
            turn.on_delta,
            resumable=turn.request.resumable,
        )
        turn = replace(turn, on_started=journal.on_started, on_delta=journal.on_delta, sink=journal)
        try:
            if turn.resumed:
                await journal.go_on()
            answer = await self._answer(turn, config, begun)
            await journal.finish()
            return answer
        finally:
            await journal.close()

    async def _answer(self, turn: _Started, config: AgentConfig, begun: Begun) -> Answer:
        if turn.entered is None:
            return await self._respond(turn, config, begun)
        async with self._scheduler.slot(turn.entered):
            return await self._respond(turn, config, begun)

    async def _respond(self, turn: _Started, config: AgentConfig, begun: Begun) -> Answer:
        if not begun.part_bytes or self._parts is None:
            return await self._respond_to(turn, config, begun)
        shown = self._parts.filled(config.project, begun.session_id, begun.window, config.window_parts)
        async with shown as window:
            return await self._respond_to(turn, config, replace(begun, window=window))

    async def _respond_to(self, turn: _Started, config: AgentConfig, begun: Begun) -> Answer:
        if not config.tools or not has_gateway_tools(config):
            return await self._respond_with(turn, config, begun, None)
        caller = ToolCaller(config.project, turn.request.user_id, begun.session_id, turn.turn_id, user_token())
        async with self._tools.open(config, caller, begun.metadata, turn.called_by) as toolbox:
            return await self._respond_with(turn, config, begun, toolbox)

    async def _respond_with(self, turn: _Started, config: AgentConfig, begun: Begun, toolbox: Toolbox | None) -> Answer:
        agent = self._instances.get(config)
        context = TurnContext(
            turn.request,
            with_instructions(turn.request, begun.window),
            begun.metadata,
            toolbox,
            steps=turn.steps,
            sink=turn.sink,
            hand_over=partial(self._hand_over, turn, begun, 1),
            calls=self._call_metrics,
        )
        if begun.awaiting or turn.request.approvals:
            context = replace(context, approvals=approved_calls(turn.request, begun))
        if turn.on_started is not None:
            # What can fail without the model fails before the caller hears that the turn has started.
            agent.prompt(context)
            await turn.on_started(_started(turn, begun, config))
        return await agent.respond(context, turn.on_delta)

    async def _hand_over(
        self, turn: _Started, begun: Begun, depth: int, agent_id: str, context: TurnContext, on_delta: OnDelta | None
    ) -> Answer:
        if depth > MAX_AGENT_DEPTH:
            raise AgentDepthExceeded(agent_id, MAX_AGENT_DEPTH)
        config = await self._configs.current(turn.request.project, agent_id)
        agent = self._instances.get(config)
        context = replace(context, toolbox=None, hand_over=partial(self._hand_over, turn, begun, depth + 1))
        if not has_gateway_tools(config):
            return await agent.respond(context, on_delta)
        caller = ToolCaller(config.project, turn.request.user_id, begun.session_id, turn.turn_id, user_token())
        async with self._tools.open(config, caller, begun.metadata, turn.called_by) as toolbox:
            return await agent.respond(replace(context, toolbox=toolbox), on_delta)


def _keeps_journal(turn: _Started, config: AgentConfig) -> bool:
    """Whether the turn may call tools of the gateway's. An agent that another one calls has its caller's journal."""
    return bool(config.tools) and turn.called_by is None and has_gateway_tools(config)


def _limits(turn: _Started, config: AgentConfig) -> tuple[TurnLimit, ...]:
    """Returns the limits that the turn counts in.

    That of an agent that another one calls counts in its agent's only: its key's counts the turn above. It takes no
    place that a turn above it holds, and so never waits for one.
    """
    if turn.called_by is None:
        return turn_limits(current(), config)
    return () if config.uid in turn.called_by.uids else turn_limits(ANONYMOUS, config)


def _stored(turn: _Started, config: AgentConfig, begun: Begun, answer: Answer, cut_after: int | None) -> Turn:
    plain = len(answer.messages) == 1 and not answer.awaiting
    return Turn(
        id=turn.turn_id,
        messages=turn.request.messages + answer.messages,
        agent_revision=config.revision,
        usage=answer.usage,
        finish_reason=answer.finish_reason,
        begin_time=turn.time,
        model=answer.model,
        details=answer.details,
        history_digest=_grown(begun, turn.request, answer),
        cut_after=cut_after,
        answer_start=None if plain else len(turn.request.messages),
        awaiting=answer.awaiting,
        runs=answer.runs,
        notes=turn.request.notes,
        end_time=datetime.now(UTC) if turn.request.notes else None,
        listed=answer.listed,
    )


def _grown(begun: Begun, request: TurnRequest, answer: Answer) -> bytes:
    """Returns the digest of the history with this turn; only what the caller has seen of the answer is in it."""
    digest = begun.history_digest or (b"" if begun.message_count else EMPTY)
    return grown(digest, (*request.messages, visible(answer.messages, answer.awaiting))) if digest else b""


def _span(request: TurnRequest) -> traces.Span:
    if not traces.on():
        return traces.NO_SPAN
    attributes = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.id": request.agent_id,
        "parley.project": request.project,
    }
    return traces.span(f"invoke_agent {request.agent_id}", attributes=attributes)


def _record(span: traces.Span, outcome: TurnOutcome) -> None:
    if span is traces.NO_SPAN:
        return
    span.set("parley.turn.id", outcome.turn_id)
    span.set("parley.agent.revision", outcome.agent_revision)
    span.set("parley.turn.replayed", outcome.replayed)
    if outcome.session_id:
        span.set("gen_ai.conversation.id", outcome.session_id)
        span.set("parley.turn.number", outcome.turn_number)


def _started(turn: _Started, begun: Begun, config: AgentConfig) -> TurnStarted:
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
