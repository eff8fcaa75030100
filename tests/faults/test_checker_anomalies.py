"""The judge of histories finds each kind of anomaly in a history made by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.history.background import NOT_FOUND
from tests.faults.history.checker import KEPT_JOURNALS, Kind, check
from tests.faults.history.records import (
    MISMATCH,
    Attempt,
    Call,
    Ending,
    History,
    Listing,
    Message,
    Operation,
    Removal,
)
from tests.faults.made_histories import (
    FORK,
    OF_TOOLS,
    SESSION,
    agent_of_all,
    clean,
    end,
    kinds,
    left_and_not_finished,
    messages,
    store,
    with_fork,
    with_transcript,
)


def fork_of_a_part_of_a_turn(history: History) -> None:
    with_fork(history)
    del history.stored[FORK][5]


def fork_that_misses_a_turn(history: History) -> None:
    with_fork(history)
    del history.stored[FORK][:3]


def fork_shorter_than_said(history: History) -> None:
    with_fork(history)
    history.forks[0] = replace(history.forks[0], turns=3)


def fork_without_an_acknowledged_turn(history: History) -> None:
    with_fork(history, turns=1)


def fork_with_a_later_turn(history: History) -> None:
    with_fork(history, turns=3)


def fork_longer_than_asked_for(history: History) -> None:
    with_fork(history)
    history.forks[0] = replace(history.forks[0], up_to=1)


def fork_goes_on_with_its_source(history: History) -> None:
    with_fork(history)
    history.stored[FORK] += history.stored[SESSION][6:9]


def fork_refused_and_made(history: History) -> None:
    with_fork(history)
    history.forks[0] = replace(history.forks[0], ending=Ending.REFUSED)


def source_goes_on_with_its_fork(history: History) -> None:
    with_fork(history)
    history.stored[SESSION] += history.stored[FORK][6:]


def fork_saw_what_its_source_got_later(history: History) -> None:
    with_fork(history)
    history.calls[-1] = replace(history.calls[-1], saw=(*[m.text for m in history.stored[SESSION][:9]], "own"))


def behind_another_history_than_was_sent(history: History) -> None:
    operation = with_transcript(history)
    operation.transcript = operation.transcript[:6]


def transcript_doubled(history: History) -> None:
    with_transcript(history)
    history.stored[SESSION][9:9] = history.stored[SESSION][:9]


def transcript_refused_for_nothing(history: History) -> None:
    refused = Attempt(0, 5, 6, Ending.REFUSED, MISMATCH)
    transcript = tuple(history.stored[SESSION])
    history.operations.append(Operation("op9", SESSION, ("u9",), transcript=transcript, attempts=[refused]))


def key_of_a_stored_transcript_refused(history: History) -> None:
    operation = with_transcript(history)
    operation.key = "key"
    end(history, 3, ending=Ending.UNKNOWN, detail="peer_unavailable", answer="")
    operation.attempts.append(Attempt(0, 4.0, 4.1, Ending.REFUSED, MISMATCH))


def mismatch_without_a_transcript(history: History) -> None:
    refused = Attempt(0, 9, 9, Ending.REFUSED, MISMATCH)
    history.operations.append(Operation("op9", SESSION, ("u9",), attempts=[refused]))


def lost(history: History) -> None:
    del history.stored[SESSION][-3:]


def session_lost(history: History) -> None:
    history.stored.clear()


def doubled(history: History) -> None:
    history.stored[SESSION] += history.stored[SESSION][-3:]


def half_without_answer(history: History) -> None:
    del history.stored[SESSION][-1]


def half_without_first_message(history: History) -> None:
    del history.stored[SESSION][-3]


def answer_alone(history: History) -> None:
    del history.stored[SESSION][-3:-1]


def interleaved(history: History) -> None:
    texts = [m.text for m in history.stored[SESSION]]
    texts[-6:] = ["u2.0", "u3.0", "u2.1", "a2", "u3.1", "a3"]
    store(history, texts)


def answers_swapped(history: History) -> None:
    texts = [m.text for m in history.stored[SESSION]]
    texts[-4], texts[-1] = texts[-1], texts[-4]
    store(history, texts)


def phantom(history: History) -> None:
    history.stored[SESSION] += messages(["x", "a0"])


def phantom_answer(history: History) -> None:
    history.stored[SESSION][-1] = Message("assistant", "a-nobody")


def of_another_session(history: History) -> None:
    history.operations.append(Operation("other", "t", ("u9.0",)))
    history.calls.append(Call("a9", ("u9.0",), at=9))
    history.stored[SESSION] += messages(["u9.0", "a9"])


def other_answer(history: History) -> None:
    end(history, 1, answer="a-different")


def refused_but_stored(history: History) -> None:
    end(history, 3, ending=Ending.REFUSED, detail="lease_lost", answer="")


def stale_history(history: History) -> None:
    history.calls[3] = replace(history.calls[3], saw=(*history.calls[2].saw[:-2], "u3.0", "u3.1"))


def history_of_an_aborted_turn(history: History) -> None:
    saw = history.calls[3].saw
    history.calls[3] = replace(history.calls[3], saw=(*saw[:-2], "u-aborted", *saw[-2:]))


def out_of_order(history: History) -> None:
    end(history, 1, began=50.0, ended=51.0)


def other_replay(history: History) -> None:
    history.operations[1].attempts.append(Attempt(1, 60, 61, Ending.ACKNOWLEDGED, answer="a-other"))


def called_again(history: History) -> None:
    history.quiet_since = 100.0
    history.calls.append(Call("a-again", ("u1.0", "u1.1"), at=101.0))


def stuck(history: History) -> None:
    history.stuck[SESSION] = "session_busy"


def unrecovered(history: History) -> None:
    history.unrecovered.append("gateway 1")


def strange_refusal(history: History) -> None:
    history.operations.append(
        Operation("op9", SESSION, ("u9",), attempts=[Attempt(0, 9, 9, Ending.REFUSED, "idempotency_key_reused")])
    )


def internal_error(history: History) -> None:
    history.operations.append(
        Operation("op9", SESSION, ("u9",), attempts=[Attempt(0, 9, 9, Ending.UNKNOWN, "internal")])
    )


def deleted_and_stored(history: History) -> None:
    history.removals.append(Removal("history", SESSION, began=2.5, ended=2.6, acknowledged=True))


def deleted_and_seen(history: History) -> None:
    deleted_and_stored(history)
    store(history, ["u3.0", "u3.1", "a3"])


def deleted_with_its_agent_and_stored(history: History) -> None:
    agent_of_all(history, "mortal")
    history.removals.append(Removal("mortal", "", began=2.95, ended=2.97, acknowledged=True, renewed=2.98))


def ran_on_a_deleted_agent(history: History) -> None:
    deleted_with_its_agent_and_stored(history)
    history.removals[0] = replace(history.removals[0], renewed=3.6)


def expired_and_seen(history: History) -> None:
    agent_of_all(history, "brief")
    end(history, 3, began=13.0, ended=13.9)
    history.calls[3] = replace(history.calls[3], at=13.5)


def expired_too_early(history: History) -> None:
    agent_of_all(history, "brief")
    history.calls[3] = replace(history.calls[3], saw=history.operations[3].texts)


def expired_and_listed(history: History) -> None:
    agent_of_all(history, "brief")
    history.listings.append(Listing("brief", 13.0, 13.1, frozenset({SESSION})))


def deleted_and_listed(history: History) -> None:
    history.stored.clear()
    history.removals.append(Removal("history", SESSION, began=5.0, ended=5.1, acknowledged=True))
    history.listings.append(Listing("history", 6.0, 6.1, frozenset({SESSION})))


def renewed_agent_is_unknown_to_a_lasting_one(history: History) -> None:
    end(history, 3, ending=Ending.REFUSED, detail="agent_not_found", answer="")


def abandoned(history: History) -> None:
    history.abandoned["chatcmpl-t.s"] = SESSION


def not_found(history: History) -> None:
    history.operations[1].background = True
    history.operations[1].attempts.insert(0, Attempt(0, 1.0, 1.1, Ending.UNKNOWN, NOT_FOUND))


def vanished(history: History) -> None:
    not_found(history)


def cancelled_by_nobody(history: History) -> None:
    history.operations[1].background = True
    history.operations[1].attempts.insert(0, Attempt(0, 1.0, 1.1, Ending.REFUSED, "cancelled"))


def test_a_turn_that_goes_with_its_session_or_makes_room_is_not_missed() -> None:
    history = clean()
    not_found(history)
    history.removals.append(Removal(history.operations[1].agent, SESSION, 1.05))
    assert Kind.VANISHED not in kinds(check(history))
    history = clean(turns=KEPT_JOURNALS + 4)
    for operation in history.operations:
        operation.background = True
    history.operations[1].attempts.insert(0, Attempt(0, 1.0, 99.0, Ending.UNKNOWN, NOT_FOUND))
    assert Kind.VANISHED not in kinds(check(history))


CASES: list[tuple[Callable[[History], None], Kind]] = [
    (lost, Kind.LOST),
    (session_lost, Kind.LOST),
    (doubled, Kind.DOUBLED),
    (half_without_answer, Kind.HALF),
    (half_without_first_message, Kind.HALF),
    (answer_alone, Kind.HALF),
    (interleaved, Kind.INTERLEAVED),
    (answers_swapped, Kind.INTERLEAVED),
    (phantom, Kind.PHANTOM),
    (phantom_answer, Kind.PHANTOM),
    (of_another_session, Kind.PHANTOM),
    (other_answer, Kind.OTHER_ANSWER),
    (refused_but_stored, Kind.REFUSED_BUT_STORED),
    (stale_history, Kind.OTHER_HISTORY),
    (history_of_an_aborted_turn, Kind.OTHER_HISTORY),
    (out_of_order, Kind.OUT_OF_ORDER),
    (other_replay, Kind.OTHER_REPLAY),
    (called_again, Kind.CALLED_AGAIN),
    (strange_refusal, Kind.STRANGE_ERROR),
    (internal_error, Kind.STRANGE_ERROR),
    (deleted_and_stored, Kind.RETURNED),
    (deleted_and_seen, Kind.RETURNED),
    (deleted_with_its_agent_and_stored, Kind.RETURNED),
    (ran_on_a_deleted_agent, Kind.OF_THE_DEAD),
    (expired_and_seen, Kind.CONTINUED),
    (expired_too_early, Kind.TOO_EARLY),
    (expired_and_listed, Kind.DEAD_LISTED),
    (deleted_and_listed, Kind.DEAD_LISTED),
    (left_and_not_finished, Kind.UNFINISHED),
    (renewed_agent_is_unknown_to_a_lasting_one, Kind.STRANGE_ERROR),
    (fork_of_a_part_of_a_turn, Kind.FORKED_OTHERWISE),
    (fork_that_misses_a_turn, Kind.FORKED_OTHERWISE),
    (fork_shorter_than_said, Kind.FORKED_OTHERWISE),
    (fork_without_an_acknowledged_turn, Kind.FORKED_OTHERWISE),
    (fork_with_a_later_turn, Kind.FORKED_OTHERWISE),
    (fork_longer_than_asked_for, Kind.FORKED_OTHERWISE),
    (fork_goes_on_with_its_source, Kind.FORKED_OTHERWISE),
    (fork_refused_and_made, Kind.FORKED_OTHERWISE),
    (source_goes_on_with_its_fork, Kind.PHANTOM),
    (fork_saw_what_its_source_got_later, Kind.OTHER_HISTORY),
    (behind_another_history_than_was_sent, Kind.OTHER_TRANSCRIPT),
    (transcript_doubled, Kind.DOUBLED),
    (transcript_refused_for_nothing, Kind.MISMATCH_UNFOUNDED),
    (key_of_a_stored_transcript_refused, Kind.OTHER_REPLAY),
    (mismatch_without_a_transcript, Kind.STRANGE_ERROR),
    (stuck, Kind.STUCK),
    (abandoned, Kind.ABANDONED),
    (vanished, Kind.VANISHED),
    (cancelled_by_nobody, Kind.STRANGE_ERROR),
    (unrecovered, Kind.UNRECOVERED),
]


@pytest.mark.parametrize(("spoil", "kind"), CASES, ids=[spoil.__name__ for spoil, _ in CASES])
def test_an_anomaly_of_each_kind_is_found(spoil: Callable[[History], None], kind: Kind) -> None:
    history = clean()
    spoil(history)
    assert kind in kinds(check(history))


def test_every_kind_has_a_history_that_shows_it() -> None:
    assert {kind for _, kind in CASES} == set(Kind) - OF_TOOLS
