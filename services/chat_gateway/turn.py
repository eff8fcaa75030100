"""The life of one turn, top to bottom."""

from dataclasses import replace
from datetime import UTC, datetime

from access.caller import current
from chat_gateway.aborts import Aborts
from chat_gateway.admission import Admission, new_turn_id
from chat_gateway.agents.toolbox import CallMetrics, Steps, Toolboxes
from chat_gateway.answering import Answering
from chat_gateway.digest import request_digest
from chat_gateway.instances import Instances
from chat_gateway.journal import TurnJournal
from chat_gateway.leases import HeldLease, LeaseTimes
from chat_gateway.metrics import TurnMetrics
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.background import ResumableTurn
from chat_gateway.model.errors import SessionFull
from chat_gateway.model.history import is_transcript
from chat_gateway.model.not_found import AgentNotFound
from chat_gateway.model.pairing import check_results_of_session, continues
from chat_gateway.model.rules import DEFAULT_BOUNDS, RequestBounds, check_size, check_tool_choice, check_turn_request
from chat_gateway.model.stored_turn import Begun, Lease
from chat_gateway.model.turn import Answer, OnDelta, OnStarted, TurnOutcome, TurnRequest
from chat_gateway.observed_turn import ObservedTurn
from chat_gateway.outcomes import outcome_of, replay, stateless_outcome, turn_to_store
from chat_gateway.ports import Configs, Sessions
from chat_gateway.request_policy import resolved_request
from chat_gateway.resumption import time_left, unheard, with_session
from chat_gateway.scheduler import Scheduler
from chat_gateway.started_turn import StartedTurn, keeps_journal, limits_of
from chat_gateway.transcripts import new_of_transcript
from chat_gateway.turn_stop import TurnStop
from chat_gateway.turn_tools import CallChain, ToolsOfTurns
from chat_gateway.window_parts import WindowParts
from contract.reasons import Reason
from servicekit.errors import ServiceError


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
        self._bounds = bounds
        tools = ToolsOfTurns(toolboxes, self._run_called, call_metrics)
        self._answering = Answering(configs, instances, scheduler, tools, parts, call_metrics)

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
        with ObservedTurn(self._metrics, request, streamed=on_delta is not None) as observed:
            config = await self._config(request)
            check_tool_choice(request, config)
            digest = request_digest(request) if request.request_id else b""
            request = resolved_request(request, current(), config, self._bounds)
            with self._scheduler.entered(config) as entered:
                turn = StartedTurn(new_turn_id(), datetime.now(UTC), digest, request, on_started, on_delta, entered)
                if request.stateless:
                    return observed.ended(await self._stateless(turn, config))
                return observed.ended(await self._in_session(turn, config))

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

    async def _in_session(self, turn: StartedTurn, config: AgentConfig) -> TurnOutcome:
        async with TurnStop(config.turn_timeout or self._turn_timeout, turn.request.timeout) as stop:
            begun, config = await self._begin(turn, config)
            if begun.lease is None:
                return await replay(begun, turn.on_started, turn.on_delta)
            async with self._held(begun.lease, stop, turn.request.user_id) as lease:
                if begun.pinned_revision and not turn.request.agent_revision:
                    config = await self._configs.at_revision(config, begun.pinned_revision)
                return await self._run_held(turn, config, begun, lease)

    async def _begin(self, turn: StartedTurn, config: AgentConfig) -> tuple[Begun, AgentConfig]:
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

    async def _begin_with(self, turn: StartedTurn, config: AgentConfig) -> Begun:
        limits = limits_of(turn, config)
        with self._aborts.unless_answered(turn.request, turn.turn_id, limits, has_lease=turn.resumed):
            return await self._sessions.begin(turn.request, config, turn.turn_id, turn.digest, limits)

    def _held(self, lease: Lease, stop: TurnStop, user_id: str) -> HeldLease:
        return HeldLease(lease, stop, self._sessions, self._aborts, self._lease_times, user_id)

    async def _run_held(self, turn: StartedTurn, config: AgentConfig, begun: Begun, lease: HeldLease) -> TurnOutcome:
        """Answers and commits. A transcript is first cut down to what it has beyond the session's history."""
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
        if keeps_journal(turn, config):
            async with self._answering.journal(turn, config, begun, lease, asked) as journal:
                answer = await self._answering.answer_with_journal(turn, config, begun, journal)
                return await self._commit(turn, config, begun, lease, answer, cut_after, journal)
        answer = await self._answering.answer(turn, config, begun)
        return await self._commit(turn, config, begun, lease, answer, cut_after)

    async def _commit(
        self,
        turn: StartedTurn,
        config: AgentConfig,
        begun: Begun,
        lease: HeldLease,
        answer: Answer,
        cut_after: int | None,
        journal: TurnJournal | None = None,
    ) -> TurnOutcome:
        """Stores the turn, with the rest of its journal."""
        stored = turn_to_store(turn, config.revision, begun, answer, cut_after)
        rest = await journal.finish() if journal is not None else None
        committed = await lease.commit(stored, config, turn.request.request_id, turn.digest, rest)
        if journal is not None:
            await journal.committed(committed.event_id)
        return outcome_of(
            stored, begun, config.revision, number=committed.turn_number, expire_time=committed.expire_time
        )

    async def _stateless(self, turn: StartedTurn, config: AgentConfig) -> TurnOutcome:
        async with (
            TurnStop(config.turn_timeout or self._turn_timeout, turn.request.timeout) as stop,
            self._admission.limited(turn.request, turn.turn_id, limits_of(turn, config), stop) as begun,
        ):
            answer = await self._answering.answer(turn, config, begun)
            return stateless_outcome(turn, config.revision, begun, answer)

    async def go_on(self, lease: Lease, asked: ResumableTurn, steps: Steps) -> TurnOutcome:
        """Goes on with a turn that another gateway began or queued, in the caller's task; returns once it is stored.

        Raises as `run`, and `TurnHandedOver` for what another gateway may be able to run now, and is left to it.
        """
        request = with_session(asked.request, lease.session_id)
        with ObservedTurn(self._metrics, request, streamed=request.resumable) as observed:
            async with TurnStop(self._turn_timeout) as stop, self._held(lease, stop, request.user_id) as held:
                config = await self._configs.current(request.project, request.agent_id)
                config = await self._at_revision(config, asked.agent_revision)
                stop.end_in(time_left(asked, config.turn_timeout or self._turn_timeout))
                with self._scheduler.entered(config) as entered:
                    on_delta = unheard if request.resumable else None
                    turn = StartedTurn(lease.turn_id, asked.begin_time, asked.digest, request, None, on_delta, entered)
                    turn = replace(turn, steps=steps, resumed=True)
                    begun = await self._begin_with(turn, config)
                    if begun.lease is None:
                        return await replay(begun, None, None)
                    held.took(begun.lease)
                    return observed.ended(await self._run_held(turn, config, begun, held))

    async def _run_called(self, request: TurnRequest, chain: CallChain) -> TurnOutcome:
        """Runs the turn of an agent that another one calls, whose turn has entered and holds a slot for both."""
        check_turn_request(request, self._bounds)
        with ObservedTurn(self._metrics, request, streamed=False) as observed:
            config = await self._config(request, chain)
            digest = request_digest(request) if request.request_id else b""
            turn = StartedTurn(new_turn_id(), datetime.now(UTC), digest, request, None, None, None, chain)
            if request.stateless:
                return observed.ended(await self._stateless(turn, config))
            return observed.ended(await self._in_session(turn, config))
