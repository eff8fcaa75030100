"""Journals in memory: the twin of the Redis adapter."""

from session_svc.model.errors import TurnCancelled, TurnNotFound
from session_svc.model.journal import JournalPage, NewEvents, TurnWatch
from tests.doubles.session_svc.memory_state import MemoryState
from tests.doubles.session_svc.memory_turns import MemoryTurns, lost


class MemoryJournals:
    """The `JournalStore` in memory."""

    def __init__(self, state: MemoryState, turns: MemoryTurns) -> None:
        self._state = state
        self.new_waiter_id = turns.new_waiter_id
        self.wait_for_wakeup = turns.wait_for_wakeup

    async def append(self, new: NewEvents) -> str:
        state, lease = self._state, new.lease
        stored = state.load(lease.key)
        if stored is None or not state.holds(stored, lease):
            raise lost(stored, lease)
        if stored.pickup is not None and stored.pickup.cancelled:
            raise TurnCancelled(lease.key.session_id)
        if new.request:
            state.running[lease.key, lease.turn_id] = state.now() + state.limits.lease_ms
        event_id = state.add_events(stored, lease, new.first, new.events, new.request)
        calls = {*stored.session.begun_calls, *new.begun_calls} - {*new.denied_calls}
        state.change(stored, begun_calls=tuple(sorted(calls)))
        state.wake_watchers(lease.key)
        return event_id

    async def read(self, watch: TurnWatch, waiter_id: str) -> JournalPage:
        state = self._state
        stored = state.load(watch.key)
        journal = state.journals.get(watch.key, {}).get(watch.turn_id)
        if journal is None or journal.user_id != watch.user_id:
            raise TurnNotFound(watch.turn_id)
        held = stored is not None and state.held(stored) and stored.turn_id == watch.turn_id
        after = _place(watch.after)
        events = tuple(event for event in journal.events if _place(event.id) > after)
        if not events and not journal.ended_ms:
            state.watchers.setdefault(watch.key, set()).add(waiter_id)
        return JournalPage(events, bool(journal.ended_ms), held)


def _place(event_id: str) -> tuple[int, ...]:
    return tuple(map(int, event_id.split("-"))) if event_id else ()
