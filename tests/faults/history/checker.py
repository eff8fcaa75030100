"""Judges a recorded history. Pure: what it finds follows from the history alone.

What must hold (DESIGN.md, invariants 1 to 3):

- every acknowledged turn is stored exactly once, with the answer that its caller got;
- a turn that was refused with a definite error is not stored; one of unknown outcome is stored once or not at all;
- a turn is whole: its messages in order, its answer behind them, nothing of another turn between;
- the model call behind a stored turn saw exactly the turns stored before it, as many as the window holds;
- a turn that was acknowledged before another began stands before it;
- a key that is repeated gets the same answer, without another model call;
- a turn that was sent with its session's whole history stands right behind just that, and is refused only when more had
  been stored; sent again it is stored once, with a key or without;
- a fork has whole turns of its source, from the first on, and goes on by itself;
- what was deleted does not come back, with its session, its agent or a new agent of the same id; no turn runs on an
  agent that was deleted; an expired session is neither continued nor listed, and none expires before its time;
- a turn that is to be finished without its caller is;
- nothing is stuck, and every error is one that a caller can act on.

The rules about the lives of sessions are in `lifetimes`, those about forks in `forks`, those about tools in `tooling`:
what is judged here of a turn with tools is what its users said and were answered.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from chat_gateway.model.answers import STEP_BREAK
from tests.faults.history.background import NOT_FOUND
from tests.faults.history.forks import Forks
from tests.faults.history.lifetimes import Lifetimes
from tests.faults.history.records import (
    CANCELLED,
    DECIDED_ALREADY,
    DEFINITE,
    GONE,
    MISMATCH,
    UNDECIDED,
    Call,
    Ending,
    History,
    Message,
    Operation,
)
from tests.faults.history.slots import MORTAL_AGENT, TOOLED_AGENT
from tests.faults.history.tooling import WAITS, Tooling, plain

KEPT_JOURNALS = 16
"""A session has the journals of so many turns; those of older ones make room."""


class Kind(StrEnum):
    """The kinds of anomaly."""

    LOST = "an acknowledged turn is not stored"
    DOUBLED = "a turn is stored more than once"
    HALF = "a part of a turn is stored"
    INTERLEAVED = "two turns are mixed"
    PHANTOM = "something is stored that nobody sent"
    OTHER_ANSWER = "the stored answer is not the acknowledged one"
    REFUSED_BUT_STORED = "a turn was refused and is stored"
    OTHER_HISTORY = "the model saw other turns than those stored before"
    OTHER_TRANSCRIPT = "a turn stands behind another history than the one that was sent with it"
    MISMATCH_UNFOUNDED = "a transcript was refused that was the session's history"
    FORKED_OTHERWISE = "a fork is not a beginning of its source"
    OUT_OF_ORDER = "a turn stands behind one that began after it was acknowledged"
    OTHER_REPLAY = "a repeated key got another answer"
    CALLED_AGAIN = "a repeated key of a stored turn called the model"
    STRANGE_ERROR = "an error that no fault explains"
    RETURNED = "a deleted turn came back"
    OF_THE_DEAD = "a turn ran on a deleted agent"
    CONTINUED = "an expired session went on"
    TOO_EARLY = "a session ended before its time"
    DEAD_LISTED = "a session was listed that was gone"
    UNFINISHED = "a turn that was to be finished is not stored"
    STUCK = "a session takes no turn"
    UNRECOVERED = "a part did not come back"
    ABANDONED = "a turn is said to run, and nobody runs it"
    VANISHED = "a turn was not found, and nothing has taken it away"
    CALL_REPEATED = "a call of a tool that is not idempotent was made again"
    CALL_MADE_AGAIN = "a call of a tool was made again whose result was known"
    CALL_UNAPPROVED = "a call of a tool was made without its approval"
    CALL_ORPHAN = "a call of a tool has no result, or a result no call"
    CALL_OTHER_RESULT = "a call of a tool has another result"
    CALL_VANISHED = "a call of a tool that was offered was answered that there is none"
    CALL_UNAWAITED = "a turn went on past a call that waits for an approval"
    CHILD = "the turn of a called agent is not stored as its caller was told"


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One thing that must not be."""

    kind: Kind
    session: str
    text: str


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A stored turn that is whole."""

    operation: Operation
    calls: tuple[Call, ...]
    """Of the steps that said something; the last is the answer's."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Its messages."""
        return (*self.operation.texts, *(call.answer for call in self.calls))

    @property
    def answer(self) -> str:
        """What its caller got."""
        return STEP_BREAK.join(call.answer for call in self.calls)


def check(history: History) -> list[Anomaly]:
    """Return everything that is wrong with a history."""
    index = _Index(history)
    found = [Anomaly(Kind.UNRECOVERED, "", part) for part in history.unrecovered]
    found += [Anomaly(Kind.STUCK, session, said) for session, said in history.stuck.items()]
    found += [Anomaly(Kind.ABANDONED, session, turn) for turn, session in history.abandoned.items()]
    found += [Anomaly(Kind.VANISHED, operation.session, operation.id) for operation in _vanished(history)]
    found += _of_lifetimes(history, lifetimes := Lifetimes(history))
    by_session: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        by_session[operation.session].append(operation)
        found += _errors(operation)
    for session in sorted({*by_session, *history.stored}):
        found += _Session(history, index, lifetimes, session, by_session[session]).check()
    return found


def _vanished(history: History) -> Iterator[Operation]:
    """Find turns that were not found: a session that is deleted takes them along, and newer journals replace them."""
    for operation in history.operations:
        for attempt in operation.attempts:
            if attempt.detail != NOT_FOUND or any(removal.concerns(operation) for removal in history.removals):
                continue
            later = [
                other
                for other in history.operations
                if other.session == operation.session and (other.background or other.agent == TOOLED_AGENT)
                if any(one.ended > operation.attempts[0].began and one.began < attempt.ended for one in other.attempts)
            ]
            if len(later) < KEPT_JOURNALS:
                yield operation


def _of_lifetimes(history: History, lifetimes: Lifetimes) -> list[Anomaly]:
    stored = {session: [message.text for message in messages] for session, messages in history.stored.items()}
    rules = (
        (Kind.RETURNED, lifetimes.returned(stored)),
        (Kind.OF_THE_DEAD, lifetimes.of_the_dead()),
        (Kind.CONTINUED, lifetimes.continued()),
        (Kind.TOO_EARLY, lifetimes.too_early()),
        (Kind.DEAD_LISTED, lifetimes.dead_listed()),
        (Kind.UNFINISHED, lifetimes.unfinished(stored)),
        (Kind.FORKED_OTHERWISE, Forks(history).wrong()),
        (Kind.CALL_REPEATED, (tooling := Tooling(history)).repeated()),
        (Kind.CALL_MADE_AGAIN, tooling.made_again()),
        (Kind.CALL_UNAPPROVED, tooling.unapproved()),
        (Kind.CALL_ORPHAN, tooling.orphans()),
        (Kind.CALL_OTHER_RESULT, tooling.other_results()),
        (Kind.CALL_VANISHED, tooling.vanished()),
        (Kind.CHILD, tooling.children()),
    )
    return [Anomaly(kind, session, text) for kind, findings in rules for session, text in findings]


class _Index:
    """Who sent a text, which call made an answer, what was called when."""

    def __init__(self, history: History) -> None:
        self.sender = {text: operation for operation in history.operations for text in operation.texts}
        self.forks = Forks(history)
        self.call = {call.answer: call for call in history.calls}
        self.last_call: dict[str, float] = {}
        for call in history.calls:
            if call.saw:
                self.last_call[call.saw[-1]] = max(call.at, self.last_call.get(call.saw[-1], 0.0))


def _errors(operation: Operation) -> Iterator[Anomaly]:
    known = DEFINITE | GONE if operation.agent == MORTAL_AGENT else DEFINITE
    if operation.approvals:
        known |= {DECIDED_ALREADY}
    if operation.transcript:
        known |= {MISMATCH}
    if operation.cancel_after is not None:
        known |= {CANCELLED}
    for attempt in operation.attempts:
        reason = attempt.detail
        refused = attempt.ending is Ending.REFUSED
        if (refused and reason not in known) or (
            attempt.ending is Ending.UNKNOWN and not reason.startswith("(") and reason not in UNDECIDED
        ):
            yield Anomaly(Kind.STRANGE_ERROR, operation.session, f"{operation.id} got {reason!r}")
    answers = {a.answer for a in operation.attempts if a.ending is Ending.ACKNOWLEDGED}
    if len(answers) > 1:
        yield Anomaly(Kind.OTHER_REPLAY, operation.session, f"{operation.id} got {sorted(answers)}")


class _Session:
    """One session's part of a history."""

    def __init__(
        self, history: History, index: _Index, lifetimes: Lifetimes, session: str, operations: Sequence[Operation]
    ) -> None:
        self._history = history
        self._index = index
        self._lifetimes = lifetimes
        self._name = session
        self._origins = index.forks.origins(session)
        self._operations = operations
        self._stored = plain(history.stored.get(session, []))
        self._found: list[Anomaly] = []

    def check(self) -> list[Anomaly]:
        turns, whole = self._turns()
        self._check_each_operation(turns)
        if whole:
            self._check_histories(turns)
            self._check_transcripts(turns)
        self._check_order(turns)
        return self._found

    def _report(self, kind: Kind, text: str) -> None:
        self._found.append(Anomaly(kind, self._name, text))

    def _turns(self) -> tuple[list[StoredTurn], bool]:
        """Return the turns that are whole, and whether that is all there is."""
        turns: list[StoredTurn] = []
        whole = True
        for texts, answers in _exchanges(self._stored):
            turn = self._turn(texts, answers)
            if turn is None:
                whole = False
            else:
                turns.append(turn)
        return turns, whole

    def _turn(self, texts: tuple[str, ...], answers: tuple[str, ...]) -> StoredTurn | None:
        """Return the turn that these messages are, or report what they are instead."""
        answer = STEP_BREAK.join(answers)
        senders = {self._index.sender[text].id for text in texts if text in self._index.sender}
        unknown = [text for text in texts if text not in self._index.sender]
        calls = tuple(self._index.call[one] for one in answers if one in self._index.call)
        if unknown or len(calls) < len(answers):
            self._report(Kind.PHANTOM, f"{texts} {answer!r}: nobody sent {unknown or answer}")
        elif len(senders) > 1:
            self._report(Kind.INTERLEAVED, f"{texts} {answer!r} are of {sorted(senders)}")
        elif not calls or not texts or self._index.sender[texts[0]].texts != texts:
            self._report(Kind.HALF, f"{texts} {answer!r} are not a whole turn")
        elif self._index.sender[texts[0]].session not in self._origins:
            self._report(Kind.PHANTOM, f"{texts} belongs to session {self._index.sender[texts[0]].session}")
        elif (odd := _other_step(texts, calls)) is not None:
            kind = Kind.INTERLEAVED if odd is calls[0] else Kind.HALF
            self._report(kind, f"{texts} has the answer {odd.answer!r} to {odd.saw[-len(texts) :]}")
        else:
            if any(WAITS in one for one in answers[:-1]):
                self._report(Kind.CALL_UNAWAITED, f"{texts} has the answer {answer!r}")
            return StoredTurn(self._index.sender[texts[0]], calls)
        return None

    def _check_each_operation(self, turns: Sequence[StoredTurn]) -> None:
        times = Counter(turn.operation.id for turn in turns)
        answers = {turn.operation.id: turn.answer for turn in turns}
        some = {message.text for message in self._stored}
        for operation in self._operations:
            stored, acknowledgement = times[operation.id], operation.acknowledgement
            if stored > 1:
                self._report(Kind.DOUBLED, f"{operation.id} is stored {stored} times")
            if acknowledgement is not None:
                gone = self._lifetimes.may_be_gone(operation, acknowledgement)
                if not stored and not gone and not some.intersection(operation.texts):
                    self._report(Kind.LOST, f"{operation.id}, acknowledged with {acknowledgement.answer!r}")
                elif stored and acknowledgement.answer != answers[operation.id]:
                    got = f"got {acknowledgement.answer!r}, stored is {answers[operation.id]!r}"
                    self._report(Kind.OTHER_ANSWER, f"{operation.id} {got}")
                last_call = self._index.last_call.get(operation.texts[-1], 0.0)
                anew = self._lifetimes.may_run_anew(operation)
                if not anew and acknowledgement.ended < self._history.quiet_since <= last_call:
                    self._report(Kind.CALLED_AGAIN, operation.id)
            elif operation.ending is Ending.REFUSED and stored:
                reasons = [attempt.detail for attempt in operation.attempts]
                self._report(Kind.REFUSED_BUT_STORED, f"{operation.id}: {reasons}")

    def _check_histories(self, turns: Sequence[StoredTurn]) -> None:
        for number, turn in enumerate(turns):
            expected = self._window(turns[:number])
            told = [call.saw[: -len(turn.operation.texts) - n or None] for n, call in enumerate(turn.calls)]
            saw = next((one for one in told if one != expected), expected)
            if saw != expected:
                missed = [text for text in expected if text not in saw]
                beyond = [text for text in saw if text not in expected]
                what = f"did not see {missed}, saw {beyond} besides" if missed or beyond else "saw another order"
                self._report(Kind.OTHER_HISTORY, f"{turn.operation.id} (turn {number + 1}): {what}")

    def _check_transcripts(self, turns: Sequence[StoredTurn]) -> None:
        place, places = 0, {}
        for turn in turns:
            places[turn.operation.id] = place
            place += len(turn.texts)
        for operation in self._operations:
            transcript = operation.transcript
            if transcript and (stands := places.get(operation.id)) is not None:
                if list(transcript) != self._stored[:stands]:
                    self._report(
                        Kind.OTHER_TRANSCRIPT, f"{operation.id}, sent {len(transcript)} messages, has {stands}"
                    )
                if operation.key and any(attempt.detail == MISMATCH for attempt in operation.attempts):
                    self._report(Kind.OTHER_REPLAY, f"{operation.id} is stored, and its key was answered {MISMATCH}")
            for attempt in operation.attempts:
                behind = [turn for turn in turns if places[turn.operation.id] >= len(transcript)]
                if attempt.detail == MISMATCH and not any(turn.calls[-1].at < attempt.ended for turn in behind):
                    self._report(Kind.MISMATCH_UNFOUNDED, operation.id)

    def _window(self, before: Sequence[StoredTurn]) -> tuple[str, ...]:
        window: tuple[str, ...] = ()
        most = float("inf") if any(turn.operation.agent == TOOLED_AGENT for turn in before) else self._history.window
        for turn in reversed(before):
            if len(window) + len(turn.texts) > most:
                break
            window = turn.texts + window
        return window

    def _check_order(self, turns: Sequence[StoredTurn]) -> None:
        earliest, of = float("inf"), ""
        for turn in reversed(turns):
            operation = turn.operation
            began = operation.attempts[0].began
            if earliest < began:
                self._report(Kind.OUT_OF_ORDER, f"{operation.id} began after {of} was acknowledged and stands before")
            acknowledgement = operation.acknowledgement
            if acknowledgement is not None and acknowledgement.ended < earliest:
                earliest, of = acknowledgement.ended, operation.id


def _other_step(texts: tuple[str, ...], calls: Sequence[Call]) -> Call | None:
    """Return the first call that is no step of a turn: its prompt ends with the turn so far."""
    for call in calls:
        if call.saw[-len(texts) :] != texts:
            return call
        texts = (*texts, call.answer)
    return None


def _exchanges(messages: Sequence[Message]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Split stored messages behind the answers of every turn; the last piece has none if something is missing.

    Every turn begins with what its user says, so answers in a row are of the steps of one.
    """
    texts: list[str] = []
    answers: list[str] = []
    for message in messages:
        if message.role == "assistant":
            answers.append(message.text)
            continue
        if answers:
            yield tuple(texts), tuple(answers)
            texts, answers = [], []
        texts.append(message.text)
    if texts or answers:
        yield tuple(texts), tuple(answers)
