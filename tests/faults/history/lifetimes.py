"""Judges what became of sessions that were deleted, with or without their agent, or that expired. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tests.faults.history.records import Attempt, Call, Ending, History, Listing, Operation, Removal

TAIL_SECONDS = 30.0
"""How long a turn may go on after its caller knows nothing of it: the bounds of a turn and of its commit together."""

Finding = tuple[str, str]
"""Session, text."""


class Lifetimes:
    """What a history tells of the lives of its sessions."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._removals = history.removals
        self._operations: defaultdict[str, list[Operation]] = defaultdict(list)
        self._sender: dict[str, Operation] = {}
        for operation in history.operations:
            self._operations[operation.session].append(operation)
            self._sender.update(dict.fromkeys(operation.texts, operation))

    def may_be_gone(self, operation: Operation, acknowledgement: Attempt) -> bool:
        """Tell whether what was acknowledged may have gone: by a removal, or with a brief session."""
        if operation.agent == self._history.brief_agent:
            return True  # in the end all of them are gone; `too_early` judges what was seen before
        return any(r.concerns(operation) and r.ended > acknowledgement.began for r in self._removals)

    def may_run_anew(self, operation: Operation) -> bool:
        """Tell whether the outcome of a key may be forgotten, with the session that kept it."""
        return operation.agent == self._history.brief_agent or any(r.concerns(operation) for r in self._removals)

    def returned(self, stored: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
        """Find turns that came back: acknowledged, then deleted for certain, and stored in the end or seen later."""
        for removal in self._removals:
            if not removal.acknowledged:
                continue
            for operation in self._before(removal):
                if set(operation.texts) & set(stored.get(operation.session, ())):
                    yield operation.session, f"{operation.id} was deleted and is stored"
        for call, asker in self._calls():
            for seen in self._seen(call, asker):
                done = seen.acknowledgement
                for removal in self._removals:
                    gone = removal.acknowledged and removal.concerns(seen) and removal.ended < asker.attempts[0].began
                    if gone and done is not None and done.ended < removal.began:
                        yield seen.session, f"{asker.id} saw {seen.id}, which had been deleted before it began"

    def of_the_dead(self) -> Iterator[Finding]:
        """Find turns that ran on an agent between its deletion and its new creation."""
        for removal in self._removals:
            if removal.session or not removal.acknowledged:
                continue
            for call, asker in self._calls():
                within = removal.ended < asker.attempts[0].began and call.at < removal.renewed
                if within and removal.concerns(asker):
                    yield asker.session, f"{asker.id} ran on {removal.agent}, which had been deleted before it began"

    def continued(self) -> Iterator[Finding]:
        """Find turns that went on with a session that had expired."""
        for call, asker in self._calls():
            began = asker.attempts[0].began
            if asker.agent == self._history.brief_agent and self._dead(asker.session, began):
                old = [seen.id for seen in self._seen(call, asker) if seen.attempts[-1].began < began]
                if old:
                    yield asker.session, f"{asker.id} saw {old}, of a session that had expired"

    def too_early(self) -> Iterator[Finding]:
        """Find turns that did not see the one before, in a session that could not have expired yet."""
        for call, asker in self._calls():
            if asker.agent != self._history.brief_agent:
                continue
            latest = self._latest_before(asker)
            if latest is None or latest.acknowledgement is None:
                continue
            # The last attempt may have been told what the first one stored: that adds nothing to a session's life.
            alive = call.at < latest.attempts[0].began + self._history.brief_ttl
            full = len(call.saw) + len(asker.texts) >= self._history.window - 4
            if alive and not full and latest not in self._seen(call, asker):
                yield asker.session, f"{asker.id} did not see {latest.id}, within the session's time to live"

    def dead_listed(self) -> Iterator[Finding]:
        """Find sessions that were listed when they had expired, or had been deleted and not been used since."""
        for listing in self._history.listings:
            for session in sorted(listing.sessions):
                since = self._may_live_since(listing, session)
                if since is not None and self._untouched(session, since, listing.ended):
                    yield session, f"was listed, and cannot have been used in the {listing.began - since:.3f} s before"

    def _may_live_since(self, listing: Listing, session: str) -> float | None:
        """Return the time since which a session must have been used to be in a listing; None when it may be old."""
        if listing.agent == self._history.brief_agent:
            return listing.began - self._history.brief_ttl
        gone = [
            removal.began
            for removal in self._removals
            if removal.agent == listing.agent and removal.session in ("", session)
            if removal.acknowledged and removal.ended < listing.began
        ]
        return max(gone, default=None)

    def unfinished(self, stored: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
        """Find turns that were to be finished without their caller, reached the model, and are not stored."""
        asked = {call.saw[-1] for call in self._history.calls if call.saw}
        for operation in self._history.left:
            left = operation.ending is Ending.UNKNOWN and operation.texts[-1] in asked
            if left and not set(operation.texts) <= set(stored.get(operation.session, ())):
                yield operation.session, f"{operation.id} was to be finished without its caller"

    def _calls(self) -> Iterator[tuple[Call, Operation]]:
        for call in self._history.calls:
            asker = self._sender.get(call.saw[-1]) if call.saw else None
            if asker is not None and asker.attempts:
                yield call, asker

    def _seen(self, call: Call, asker: Operation) -> list[Operation]:
        """Return the other operations whose texts a call saw, each once."""
        senders = {self._sender[text].id: self._sender[text] for text in call.saw if text in self._sender}
        return [sender for sender in senders.values() if sender is not asker]

    def _before(self, removal: Removal) -> Iterator[Operation]:
        for operation in self._history.operations:
            done = operation.acknowledgement
            if done is not None and done.ended < removal.began and removal.concerns(operation):
                yield operation

    def _latest_before(self, asker: Operation) -> Operation | None:
        done = [
            (operation.acknowledgement.ended, number)
            for number, operation in enumerate(self._operations[asker.session])
            if operation is not asker
            and operation.acknowledgement is not None
            and operation.acknowledgement.ended < asker.attempts[0].began
        ]
        return self._operations[asker.session][max(done)[1]] if done else None

    def _dead(self, session: str, at: float) -> bool:
        """Tell whether nothing can have touched a brief session for as long as it lives."""
        return self._untouched(session, at - self._history.brief_ttl, at)

    def _untouched(self, session: str, since: float, until: float) -> bool:
        return not any(
            attempt.began < until and self._tail(attempt) > since
            for operation in self._operations[session]
            for attempt in operation.attempts
        )

    def _tail(self, attempt: Attempt) -> float:
        """Return until when an attempt may have touched its session."""
        if attempt.ending is not Ending.UNKNOWN:
            return attempt.ended
        idle = self._history.idle_since
        return attempt.ended + TAIL_SECONDS if attempt.ended > idle else min(attempt.ended + TAIL_SECONDS, idle)
