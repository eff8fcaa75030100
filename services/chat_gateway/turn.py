"""The life of one turn, top to bottom."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import dropwhile, takewhile

from access.caller import current
from chat_gateway.aborts import Aborts
from chat_gateway.admission import Admission, bounded, new_turn_id
from chat_gateway.agents.agent import TurnContext
from chat_gateway.digest import request_digest
from chat_gateway.instances import Instances
from chat_gateway.leases import HeldLease, LeaseTimes, TurnStop
from chat_gateway.limits import turn_limits
from chat_gateway.metrics import TurnMetrics
from chat_gateway.model.errors import AgentNotFound, HistoryMismatch
from chat_gateway.model.history import EMPTY, compare, end_of_history, grown, is_transcript
from chat_gateway.model.pairing import check_results_of_session, continues, whole_turns
from chat_gateway.model.rules import DEFAULT_BOUNDS, RequestBounds, check_turn_request
from chat_gateway.model.turn import (
    AgentConfig,
    Answer,
    Begun,
    Delta,
    HistoryPolicy,
    Lease,
    Message,
    OnDelta,
    OnStarted,
    ToolCallDelta,
    Turn,
    TurnOutcome,
    TurnRequest,
    TurnStarted,
)
from chat_gateway.ports import Configs, Sessions
from chat_gateway.scheduler import EnteredTurn, Scheduler
from contract.enums import Role
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
    entered: EnteredTurn


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
        bounds: RequestBounds = DEFAULT_BOUNDS,
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
        self._bounds = bounds

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
        check_turn_request(request, self._bounds)
        with self._metrics.turn(streamed=on_delta is not None) as observed, _span(request) as span:
            config = await self._config(request)
            digest = request_digest(request) if request.request_id else b""
            with self._scheduler.entered(config) as entered:
                turn = _Started(new_turn_id(), datetime.now(UTC), digest, request, on_started, on_delta, entered)
                async with bounded(config.turn_timeout or self._turn_timeout, request.timeout) as stop:
                    if request.stateless:
                        outcome = await self._stateless(turn, config, stop)
                    else:
                        outcome = await self._in_session(turn, config, stop)
            observed.ended(outcome)
            _record(span, outcome)
            return outcome

    async def _config(self, request: TurnRequest) -> AgentConfig:
        config = await self._configs.current(request.project, request.agent_id)
        if not request.agent_revision:
            return config
        # The agent's limits are those of now: a caller can't choose an older revision to get round them.
        chosen = await self._configs.at_revision(config, request.agent_revision)
        return replace(
            chosen, max_concurrent_turns=config.max_concurrent_turns, requests_per_minute=config.requests_per_minute
        )

    async def _in_session(self, turn: _Started, config: AgentConfig, stop: TurnStop) -> TurnOutcome:
        begun, config = await self._begin(turn, config)
        if begun.lease is None:
            return await _replay(turn, begun)
        async with self._held(begun.lease, stop) as lease:
            if begun.pinned_revision and not turn.request.agent_revision:
                config = await self._configs.at_revision(config, begun.pinned_revision)
            first, cut_after = 0, None
            if is_transcript(turn.request) and not begun.created:
                turn, begun, first, cut_after = await self._resent(turn, config, begun)
            if continues(turn.request.messages):
                check_results_of_session(turn.request.messages, begun.window, first)
            answer = await self._answer(turn, config, begun)
            stored = Turn(
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
            )
            committed = await lease.commit(stored, config, turn.request.request_id, turn.digest)
        return _outcome(stored, begun, config.revision, number=committed.turn_number, expire_time=committed.expire_time)

    async def _resent(
        self, turn: _Started, config: AgentConfig, begun: Begun
    ) -> tuple[_Started, Begun, int, int | None]:
        """Returns the turn with what its caller's transcript has beyond the history, and the place where that begins.

        Raises `HistoryMismatch`. Where the transcript is to replace the history, what is returned with it goes on from
        the last turn that both agree on, and that turn's number comes last.
        """
        request = turn.request
        end = end_of_history(request.messages, begun.history_digest) if begun.history_digest else None
        if end is None or end == len(request.messages):
            turns = await self._sessions.history(begun, request, config, turn.digest)
            if turns is None:
                raise HistoryMismatch(begun.session_id, 0, ends=False)
            resent, differs = compare(request.messages, turns)
            whole = resent.last_turn == (turns[-1].number if turns else 0)
            nothing_new = resent.first == len(request.messages)
            if nothing_new or not (whole or request.history is HistoryPolicy.REPLACE):
                raise HistoryMismatch(begun.session_id, differs, ends=differs == len(request.messages))
            kept = [one.messages for one in turns if one.number <= resent.last_turn]
            goes_on = continues(request.messages[resent.first :])
            digest = grown(EMPTY, request.messages[: resent.first])
            window = whole_turns(kept[::-1], config.window_messages, goes_on)
            if not whole:
                begun = replace(begun, window=window, history_digest=digest)
                return (
                    _with_new(turn, resent.first),
                    _with_system(begun, request, resent.first),
                    resent.first,
                    resent.last_turn,
                )
            begun, end = replace(begun, history_digest=digest), resent.first
        return _with_new(turn, end), _with_system(begun, request, end), end, None

    async def _begin(self, turn: _Started, config: AgentConfig) -> tuple[Begun, AgentConfig]:
        """Begins the turn; an agent that was deleted, and maybe made again, since its config was read is read again."""
        try:
            return await self._begin_with(turn, config), config
        except ServiceError as error:
            if error.reason != Reason.AGENT_DELETED:
                raise
        self._configs.forget(config.project, config.id, config.uid)
        self._instances.evict_uid(config.uid)
        fresh = await self._config(turn.request)
        if fresh.uid == config.uid:
            raise AgentNotFound(config.id)
        return await self._begin_with(turn, fresh), fresh

    async def _begin_with(self, turn: _Started, config: AgentConfig) -> Begun:
        limits = turn_limits(current(), config)
        with self._aborts.unless_answered(turn.request, turn.turn_id, limits):
            return await self._sessions.begin(turn.request, config, turn.turn_id, turn.digest, limits)

    def _held(self, lease: Lease, stop: TurnStop) -> HeldLease:
        return HeldLease(lease, stop, self._sessions, self._aborts, self._lease_times)

    async def _stateless(self, turn: _Started, config: AgentConfig, stop: TurnStop) -> TurnOutcome:
        limits = turn_limits(current(), config)
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
            message=answer.messages[-1],
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            model=answer.model,
            begin_time=turn.time,
            limits=begun.limits,
            details=answer.details,
        )

    async def _answer(self, turn: _Started, config: AgentConfig, begun: Begun) -> Answer:
        async with self._scheduler.slot(turn.entered):
            agent = self._instances.get(config)
            context = TurnContext(turn.request, begun.window, begun.metadata)
            if turn.on_started is not None:
                # What can fail without the model fails before the caller hears that the turn has started.
                agent.prompt(context)
                await turn.on_started(_started(turn, begun, config))
            return await agent.respond(context, turn.on_delta)


def _with_new(turn: _Started, first: int) -> _Started:
    return replace(turn, request=replace(turn.request, messages=turn.request.messages[first:]))


def _with_system(begun: Begun, request: TurnRequest, first: int) -> Begun:
    # The caller's own instructions are those of now, also where the turn that brought them first has left the window.
    system = tuple(takewhile(lambda message: message.role is Role.SYSTEM, request.messages))
    if not system or first < len(system):
        return begun
    texts = {message.content for message in system}
    window = dropwhile(lambda message: message.role is Role.SYSTEM, begun.window)
    rest = [message for message in window if message.role is not Role.SYSTEM or message.content not in texts]
    return replace(begun, window=(*system, *rest))


def _grown(begun: Begun, request: TurnRequest, answer: Answer) -> bytes:
    """Returns the digest of the history with this turn; only what the caller has seen of the answer is in it."""
    digest = begun.history_digest or (b"" if begun.message_count else EMPTY)
    return grown(digest, (*request.messages, answer.messages[-1])) if digest else b""


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


async def _replay(turn: _Started, begun: Begun) -> TurnOutcome:
    stored = begun.replayed
    assert stored is not None, "BeginTurn answers a lease or a stored turn"
    outcome = _outcome(
        stored, begun, stored.agent_revision, number=stored.number, expire_time=begun.expire_time, replayed=True
    )
    if turn.on_started is not None:
        await turn.on_started(
            TurnStarted(
                turn_id=stored.id,
                session_id=begun.session_id,
                session_created=False,
                session_expire_time=begun.expire_time,
                agent_revision=stored.agent_revision,
                begin_time=stored.begin_time,
                replayed=True,
                provider=stored.details.provider,
            )
        )
    if turn.on_delta is not None:
        await turn.on_delta(_whole_delta(outcome.message))
    return outcome


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


def _outcome(
    stored: Turn, begun: Begun, revision: int, *, number: int, expire_time: datetime | None, replayed: bool = False
) -> TurnOutcome:
    return TurnOutcome(
        turn_id=stored.id,
        session_id=begun.session_id,
        session_created=begun.created,
        turn_number=number,
        session_expire_time=expire_time,
        agent_revision=revision,
        message=stored.messages[-1],
        finish_reason=stored.finish_reason,
        usage=stored.usage,
        model=stored.model,
        begin_time=stored.begin_time,
        replayed=replayed,
        limits=begun.limits,
        details=stored.details,
    )


def _whole_delta(message: Message) -> Delta:
    calls = tuple(
        ToolCallDelta(index, call.id, call.name, call.arguments, call.provider_data)
        for index, call in enumerate(message.tool_calls)
    )
    return Delta(message.content, calls, message.refusal, message.reasoning, message.provider_data)
