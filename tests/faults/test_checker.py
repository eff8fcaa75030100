"""The judge of histories finds nothing wrong in a clean history made by hand."""

from dataclasses import replace

import pytest

from tests.faults.history.checker import Kind, check
from tests.faults.history.decisions import decisions
from tests.faults.history.records import (
    MISMATCH,
    Attempt,
    Call,
    Ending,
    Fork,
    Listing,
    Operation,
    Removal,
)
from tests.faults.made_histories import (
    FORK,
    SESSION,
    agent_of_all,
    clean,
    end,
    kinds,
    left_and_not_finished,
    store,
    with_fork,
    with_transcript,
)


@pytest.mark.parametrize("window", [40, 6])
def test_a_clean_history_has_no_anomaly(window: int) -> None:
    assert check(clean(window=window)) == []


def test_a_turn_of_unknown_outcome_may_be_there_or_not() -> None:
    history = clean()
    end(history, 3, ending=Ending.UNKNOWN, detail="peer_unavailable", answer="")
    assert check(history) == []
    store(history, [m.text for m in history.stored[SESSION]][:-3])
    assert check(history) == []


def test_a_refused_turn_that_is_not_there_is_fine() -> None:
    history = clean()
    end(history, 3, ending=Ending.REFUSED, detail="session_busy", answer="")
    store(history, [m.text for m in history.stored[SESSION]][:-3])
    assert check(history) == []


def test_a_session_that_was_deleted_begins_anew() -> None:
    history = clean(turns=2)
    history.removals.append(Removal("history", SESSION, began=0.92, ended=0.95, acknowledged=True))
    history.calls[1] = replace(history.calls[1], saw=history.operations[1].texts)
    store(history, [*history.operations[1].texts, "a1"])
    assert check(history) == []


def test_a_deletion_that_nobody_confirmed_may_have_happened_or_not() -> None:
    history = clean()
    history.removals.append(Removal("history", SESSION, began=3.95))
    assert check(history) == []
    history.stored.clear()
    assert check(history) == []


def test_what_was_deleted_with_its_agent_is_not_missed() -> None:
    history = clean()
    for operation in history.operations:
        operation.agent = "mortal"
    history.stored.clear()
    history.removals.append(Removal("mortal", "", began=3.95, ended=4.0, acknowledged=True, renewed=4.1))
    gone = Attempt(0, 4.02, 4.03, Ending.REFUSED, "agent_not_found")
    history.operations.append(Operation("op9", SESSION, ("u9",), agent="mortal", attempts=[gone]))
    assert check(history) == []


def test_a_brief_session_that_expired_begins_anew_and_is_not_listed() -> None:
    history = clean(turns=2)
    for operation in history.operations:
        operation.agent = "brief"
    end(history, 1, began=9.0, ended=9.9)
    history.calls[1] = replace(history.calls[1], at=9.5, saw=history.operations[1].texts)
    history.listings.append(Listing("brief", 5.0, 5.1, frozenset()))
    history.listings.append(Listing("brief", 9.6, 9.7, frozenset({SESSION})))
    history.listings.append(Listing("brief", 8.9, 9.6, frozenset({SESSION})))  # it was made again meanwhile
    history.stored.clear()
    assert check(history) == []


def test_a_brief_session_lives_from_the_turn_not_from_the_repeat_that_told_of_it() -> None:
    history = clean()
    agent_of_all(history, "brief")
    history.operations[2].attempts[:] = [
        Attempt(0, 2.0, 2.3, Ending.UNKNOWN, "(the client left)"),
        Attempt(1, 3.9, 3.95, Ending.ACKNOWLEDGED, answer="a2", replayed=True),
    ]
    history.operations[3].attempts[:] = [Attempt(0, 4.0, 4.9, Ending.ACKNOWLEDGED, answer="a3")]
    history.calls[3] = Call("a3", history.operations[3].texts, at=4.5)
    assert Kind.TOO_EARLY not in kinds(check(history))
    history.calls[3] = Call("a3", history.operations[3].texts, at=3.99)
    assert Kind.TOO_EARLY in kinds(check(history))


def test_a_turn_whose_caller_left_early_may_never_have_begun() -> None:
    history = clean()
    left_and_not_finished(history)
    del history.calls[-1]
    assert check(history) == []


def test_a_fork_goes_on_by_itself() -> None:
    history = clean()
    with_fork(history)
    assert check(history) == []
    history.forks.append(Fork("k of k", FORK, 1, began=3.0, ended=3.1, ending=Ending.ACKNOWLEDGED, turns=1))
    history.stored["k of k"] = history.stored[FORK][:3]
    history.forks.append(Fork("unheard", SESSION, 3, began=9.0))
    assert check(history) == []
    history.stored["unheard"] = history.stored[SESSION][:9]
    assert check(history) == []


def test_a_turn_may_be_sent_with_the_whole_history_before_it() -> None:
    history = clean()
    operation = with_transcript(history)
    assert check(history) == []
    # Without a key, too, it is sent again until it is known to be stored: by this.
    end(history, 3, ending=Ending.UNKNOWN, detail="peer_unavailable", answer="")
    operation.attempts.append(Attempt(0, 4.0, 4.1, Ending.REFUSED, MISMATCH))
    assert check(history) == []


def test_the_turns_that_could_be_decided_on_are_counted() -> None:
    history = clean()
    end(history, 1, ending=Ending.UNKNOWN, detail="peer_unavailable", answer="")
    refused = Attempt(0, 9, 9, Ending.REFUSED, "session_busy")
    history.operations.append(Operation("refused", SESSION, ("u8",), attempts=[refused]))
    unheard = Attempt(0, 9, 9, Ending.UNKNOWN, "(the client left)")
    history.operations.append(Operation("unheard", SESSION, ("u9",), attempts=[unheard]))
    brief = Attempt(0, 9, 9, Ending.ACKNOWLEDGED, answer="a10")
    history.operations.append(Operation("brief", "b", ("u10",), agent="brief", attempts=[brief]))
    assert decisions(history) == {
        "acknowledged, must be stored": 3,
        "found stored": 1,
        "refused, must not be stored": 1,
        "of unknown outcome, the model never asked": 1,
        "gone with its session": 1,
    }
    history.calls.append(Call("a9", ("u9",), at=9))
    assert decisions(history)["of unknown outcome, not stored"] == 1
    history.operations.append(Operation("later", "b", ("u11",), agent="brief", attempts=[unheard]))
    history.calls.append(Call("a11", ("u10", "a10", "u11"), at=9.5))
    assert decisions(history)["seen by a later turn"] == 1
