"""Turns that another gateway goes on with, in memory: the twin of the Redis adapter."""

from session_svc.model.errors import LeaseLost, ProjectQueueFull, TurnCancelled, TurnNotFound
from session_svc.model.journal import ClaimedTurn, TurnProgress, TurnStage, TurnWatch, UnheardEnd
from session_svc.model.turn import Lease
from tests.doubles.session_svc.memory_state import Journal, MemoryState, Pickup, Stored, Waiting
from tests.doubles.session_svc.memory_turns import lost

QUIET_MS = 60_000


class MemoryClaims:
    """The `ClaimStore` in memory."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state
        self._last_places: dict[str, int] = {}
        self._now_at = 0
        self.queued = 0

    async def hand_over(self, lease: Lease, *, queued: bool) -> None:
        state, waiting = self._state, (lease.key, lease.turn_id)
        if queued:
            self._enqueue(waiting)
        stored, bounds = state.load(lease.key), state.limits.pickup
        pickup = stored.pickup if stored is not None and stored.turn_id == lease.turn_id else None
        if stored is not None and stored.token == lease.token + 1 and pickup is not None and pickup.released:
            return
        if queued and self._went_on(stored, lease):
            return
        try:
            pickup = self._handed_over(stored, lease)
        except LeaseLost:
            if queued:
                self.forget(waiting)
            raise
        assert stored is not None
        pickup.ms, pickup.released = bounds.queue_ms if queued else bounds.wait_ms, True
        if queued:
            pickup.attempt = 0
        stored.until_ms, stored.token, stored.waiter_id = state.now(), lease.token + 1, ""
        if waiting not in state.queued:
            state.running[waiting] = state.now()

    def _went_on(self, stored: Stored | None, lease: Lease) -> bool:
        journal = self._journal((lease.key, lease.turn_id))
        runs = stored is not None and stored.turn_id == lease.turn_id and stored.pickup and stored.token > lease.token
        return journal is not None and bool(runs or journal.token > lease.token)

    def _handed_over(self, stored: Stored | None, lease: Lease) -> Pickup:
        is_last = stored is not None and (stored.token, stored.turn_id) == (lease.token, lease.turn_id)
        if stored is None or not is_last or stored.pickup is None:
            raise lost(stored, lease)
        if stored.pickup.cancelled and stored.pickup.ms:
            raise TurnCancelled(lease.key.session_id)
        if not stored.pickup.ms:
            raise LeaseLost(lease.key.session_id)
        return stored.pickup

    async def claim(self) -> ClaimedTurn | None:
        while (waiting := self._take()) is not None:
            found = self._claimed(waiting)
            if isinstance(found, ClaimedTurn):
                return found
            if found is None:
                self.forget(waiting)
            else:
                self._state.running[waiting] = self._state.now() + found
        return None

    async def next_due(self) -> float | None:
        state = self._state
        if state.queued:
            return 0.0
        return max(min(state.running.values()) - state.now(), 0) / 1000 if state.running else None

    def _claimed(self, waiting: Waiting) -> ClaimedTurn | int | None:
        """Returns the turn, in how many milliseconds to look again, or None."""
        state, (key, turn_id) = self._state, waiting
        stored, journal = state.load(key), self._journal(waiting)
        if stored is None or stored.turn_id != turn_id or stored.pickup is None or journal is None or journal.ended_ms:
            state.end_unheard(key, turn_id, UnheardEnd.LOST)
            return None
        if stored.until_ms > state.now():
            return stored.until_ms - state.now()
        pickup = stored.pickup
        pickup.lost += not pickup.released
        if pickup.cancelled or pickup.lost >= state.limits.pickup.max_lost:
            why = UnheardEnd.CANCELLED if pickup.cancelled else UnheardEnd.GIVEN_UP
            state.end_unheard(key, turn_id, why)
            state.undo(key, stored)
            return None
        pickup.ms, pickup.released = state.limits.pickup.wait_ms, False
        pickup.attempt += 1
        stored.token = max(state.now(), stored.token + 1)
        stored.until_ms, stored.waiter_id = state.now() + state.limits.lease_ms, ""
        return ClaimedTurn(Lease(key, turn_id, stored.token, stored.until_ms), journal.request, pickup.attempt)

    async def cancel(self, watch: TurnWatch) -> bool:
        state, waiting = self._state, (watch.key, watch.turn_id)
        stored, journal = state.load(watch.key), self._journal(waiting)
        owner = stored.session.user_id if stored is not None else journal.user_id if journal is not None else None
        if owner != watch.user_id:
            raise TurnNotFound(watch.turn_id)
        if journal is not None and journal.ended_ms:
            return True
        if stored is not None and stored.turn_id == watch.turn_id and state.held(stored):
            if stored.until_ms > state.now():
                stored.pickup = stored.pickup or Pickup(0)
                if not stored.pickup.cancelled:
                    stored.pickup.cancelled = True
                    state.wake(stored.waiter_id)
                return False
            state.end_unheard(watch.key, watch.turn_id, UnheardEnd.CANCELLED)
            state.undo(watch.key, stored)
        elif journal is not None:
            state.end_unheard(watch.key, watch.turn_id, UnheardEnd.LOST)
        elif stored is None or stored.done != watch.turn_id:
            raise TurnNotFound(watch.turn_id)
        self.forget(waiting)
        return True

    async def progress(self, watch: TurnWatch, *, with_request: bool = False) -> TurnProgress:
        state, waiting = self._state, (watch.key, watch.turn_id)
        stored, journal = state.load(watch.key), self._journal(waiting)
        runs = stored is not None and state.held(stored) and stored.turn_id == watch.turn_id
        owner = journal.user_id if journal is not None else stored.session.user_id if stored and runs else None
        if owner != watch.user_id:
            raise TurnNotFound(watch.turn_id)
        pickup = stored.pickup if stored is not None and stored.pickup is not None else Pickup(0)
        attempt = pickup.attempt if runs else 1
        if journal is None:
            return TurnProgress(TurnStage.RUNNING, attempt)
        begun = journal.events[0] if journal.events else None
        asked = journal.request if with_request else b""
        if journal.ended_ms:
            return TurnProgress(TurnStage.ENDED, attempt, begun, journal.events[-1], asked)
        if not runs and stored is None:
            return TurnProgress(TurnStage.ENDED, attempt, begun, request=asked)
        if not runs:
            state.running.setdefault(waiting, state.now())
        return TurnProgress(TurnStage.RUNNING if pickup.attempt else TurnStage.QUEUED, attempt, begun, request=asked)

    async def keep_up(self) -> None:
        """Counts what is queued: all is written at once."""
        self.queued = len(self._state.queued)

    def forget(self, waiting: Waiting) -> None:
        """Has a turn not looked at any more."""
        self._state.running.pop(waiting, None)
        self._state.queued.pop(waiting, None)

    def _journal(self, waiting: Waiting) -> Journal | None:
        return self._state.journals.get(waiting[0], {}).get(waiting[1])

    def _enqueue(self, waiting: Waiting) -> None:
        state, project = self._state, waiting[0].project
        if waiting in state.queued:
            return
        if sum(key.project == project for key, _ in state.queued) >= state.limits.pickup.queued:
            raise ProjectQueueFull(project, state.limits.pickup.queued)
        of_project = [place for (key, _), place in state.queued.items() if key.project == project]
        state.queued[waiting] = max([*of_project, self._last_places.get(project, 0), self._now_at]) + 1
        self._last_places[project] = state.queued[waiting]
        state.running.pop(waiting, None)

    def _take(self) -> Waiting | None:
        state = self._state
        self.queued = len(state.queued)
        again = state.now() + state.limits.lease_ms
        for waiting, due in sorted(state.running.items(), key=lambda item: item[1]):
            if due <= state.now():
                state.running[waiting] = again
                return waiting
        if not state.queued:
            return None
        waiting = min(state.queued, key=lambda one: (state.queued[one], str(one)))
        self._now_at = state.queued.pop(waiting)
        self.queued -= 1
        state.running[waiting] = again
        return waiting
