"""Writes a turn's journal, before anything depends on what is written."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

from chat_gateway.agents.toolbox import Steps
from chat_gateway.coalescing import CoalescedDeltas
from chat_gateway.leases import HeldLease
from chat_gateway.model.journal import CallRecorded, JournalEntry, StepCalled, TurnBegun, UnwrittenEntries
from chat_gateway.model.tools import CallFinished, CallStarted, StepFinished, TurnResumed
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import Delta, Message, OnDelta, OnStarted, TurnStarted
from contract.reasons import Reason
from servicekit.errors import ServiceError

_OTHER_REPLICAS = 8
"""How often a replica that knows the method is looked for."""
_MAX_LAST_WORDS_SECONDS = 1.0


class TurnJournal:
    """The journal of one turn: the sink of its steps, and a layer before its caller. It begins with the first tool call
    or, for a resumable turn, with its start; then each piece of the answer is written before it goes to the caller,
    with its event id. A failed write ends the turn; without journals in session_svc (an older release) only turns that
    ask for one end. Consecutive entries are written together, the last ones with the commit. After a takeover, the
    journal continues with an entry for it.
    """

    def __init__(
        self,
        lease: HeldLease,
        begun: Callable[[], TurnBegun | TurnResumed],
        on_started: OnStarted | None,
        on_delta: OnDelta | None,
        *,
        resumable: bool,
    ) -> None:
        self._lease = lease
        self._begun = begun
        self._on_started = on_started
        self._on_delta = on_delta
        self._count = 0
        self._resumable = resumable
        self._off = False
        """Whether session_svc is of a release without journals, and the turn runs as it did then."""
        self._held: list[JournalEntry] = []
        """Written together with the next entry."""
        self._rest: Delta | None = None
        """The end of the answer, which is written with the commit."""
        self._one_at_a_time = asyncio.Lock()
        self._pieces = CoalescedDeltas(self._pass_on, joins_first=True) if resumable and on_delta is not None else None

    @property
    def on_started(self) -> OnStarted | None:
        """The callback for the start of the turn."""
        return self._on_started if self._pieces is None else self._started

    @property
    def on_delta(self) -> OnDelta | None:
        """The callback for pieces of the answer."""
        return self._on_delta if self._pieces is None else self._pieces

    async def go_on(self) -> None:
        """Records that this gateway has taken over the turn."""
        await self._append()

    async def finish(self) -> UnwrittenEntries | None:
        """Returns what is still to be written, with the commit; `committed` then passes it on."""
        pieces = await self._pieces.take() if self._pieces is not None else []
        if not self._count:
            if self._held:
                await self._append()
            return None
        # Activity is already in the journal.
        activity = max((place for place, delta in enumerate(pieces, 1) if delta.activity is not None), default=0)
        if activity:
            await self._pass_on(pieces[:activity])
        self._rest = merged(pieces[activity:]) if pieces[activity:] else None
        entries = (*self._held, self._rest) if self._rest is not None else tuple(self._held)
        return UnwrittenEntries(self._count + 1, entries) if entries else None

    async def committed(self, event_id: str) -> None:
        """Passes on the rest of the answer, which was written with this id."""
        if self._rest is not None and self._on_delta is not None:
            await self._on_delta(replace(self._rest, event_id=event_id))

    async def failed(self) -> None:
        """Writes and passes on, within a second, what came of the answer before the turn failed."""
        if self._pieces is not None:
            with contextlib.suppress(ServiceError, TimeoutError):
                async with asyncio.timeout(_MAX_LAST_WORDS_SECONDS):
                    await self._pieces.flush()

    async def close(self) -> None:
        """Drops the rest. Idempotent; must always be called."""
        if self._pieces is not None:
            await self._pieces.close()

    async def tools_listed(self, event: ToolsListed) -> None:
        """Records the offered tools if the stream is resumable; nothing else depends on this."""
        if self._pieces is not None:
            await self._record(event)

    async def call_started(self, event: CallStarted) -> None:
        """Records that a call is about to be made."""
        await self._record(event)

    async def call_finished(self, event: CallFinished, result: Message, *, ends_step: bool) -> None:
        """Records the result of a call, together with the end of the step if that follows."""
        entry = CallRecorded(event, result.content)
        await (self._hold(entry) if ends_step else self._record(entry))

    async def step_called(self, event: StepCalled) -> None:
        """Records the calls that the model requests, with the start of the first."""
        await self._hold(event)

    async def step_finished(self, steps: Steps) -> None:
        """Records the end of a step."""
        await self._record(StepFinished(steps.count, steps.usage))

    async def _record(self, entry: JournalEntry) -> None:
        if self._pieces is not None:
            await self._pieces.flush()  # what the model said before it
        await self._append(entry)

    async def _hold(self, entry: JournalEntry) -> None:
        if self._pieces is not None:
            await self._pieces.flush()  # what the model said before it
        self._held.append(entry)

    async def _started(self, started: TurnStarted) -> None:
        event_id = await self._append()
        if self._on_started is not None:
            await self._on_started(replace(started, event_id=event_id))

    async def _pass_on(self, deltas: list[Delta]) -> None:
        """Activity is already in the journal through the sink; the other pieces become one entry."""
        assert self._on_delta is not None, "somebody takes the pieces"
        for is_activity, group in groupby(deltas, lambda delta: delta.activity is not None):
            for delta in group if is_activity else [merged(list(group))]:
                event_id = "" if is_activity else await self._append(delta)
                await self._on_delta(replace(delta, event_id=event_id))

    async def _append(self, *entries: JournalEntry) -> str:
        async with self._one_at_a_time:
            if self._off:
                return ""
            begun = () if self._count else (self._begun(),)
            held, self._held = self._held, []
            written = (*begun, *held, *entries)
            if not written:
                return ""
            try:
                last = await self._written(written)
            except ServiceError as error:
                if error.reason != Reason.NOT_IMPLEMENTED or self._resumable or not isinstance(written[0], TurnBegun):
                    raise
                self._off = True
                return ""
            self._count += len(written)
            return last

    async def _written(self, entries: Sequence[JournalEntry]) -> str:
        """Writes entries. During an upgrade some replicas may not know the method: once one has written, another is
        asked.
        """
        for _ in range(_OTHER_REPLICAS if self._count else 0):
            try:
                return await self._lease.append(self._count + 1, entries)
            except ServiceError as error:
                if error.reason != Reason.NOT_IMPLEMENTED:
                    raise
        return await self._lease.append(self._count + 1, entries)


def merged(deltas: list[Delta]) -> Delta:
    """Returns several pieces of an answer as one; logprobs are kept only for a single piece."""
    if len(deltas) == 1:
        return deltas[0]
    return Delta(
        content="".join([delta.content for delta in deltas]),
        tool_calls=tuple([call for delta in deltas for call in delta.tool_calls]),
        refusal="".join([delta.refusal for delta in deltas]),
        reasoning="".join([delta.reasoning for delta in deltas]),
        provider_data=next((one.provider_data for one in reversed(deltas) if one.provider_data is not None), None),
        provider=next((one.provider for one in deltas if one.provider), ""),
    )
