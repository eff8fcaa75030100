"""The judge of histories finds what must not be of calls of tools, in histories made by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from chat_gateway.model.answers import STEP_BREAK
from tests.faults.history.checker import Kind, check
from tests.faults.history.records import Attempt, Call, Ending, Execution, History, Message, Operation
from tests.faults.history.slots import TOOLED_AGENT
from tests.faults.history.tool_server import CHARGE, GUARDED, READ
from tests.faults.made_histories import OF_TOOLS, kinds

SESSION = "t"
CHILD = "t:helper"


def step(*ids: str) -> Message:
    return Message("assistant", "", ids)


def answered(call_id: str, text: str) -> Message:
    return Message("tool", text, call_id=call_id)


def with_tools() -> History:
    """A turn that calls all that there is, and ends with a call that waits; the next one approves it."""
    first = [
        Message("user", "u0"),
        step("call-t1.0", "call-t1.1", "call-t1.2"),
        answered("call-t1.0", "r1 of t1.0"),
        answered("call-t1.1", "r2 of t1.1"),
        answered("call-t1.2", "h2 saw 1"),
        Message("assistant", "a3, waits for call-t3.0", ("call-t3.0",)),
    ]
    decided, asked, last = answered("call-t3.0", "r3 of t3.0"), Message("user", "u1"), Message("assistant", "a4")
    history = History(window=4)
    history.tools = {"t1.0": READ, "t1.1": CHARGE, "t1.2": "helper", "t3.0": GUARDED}
    history.executions = [
        Execution(READ, "t1.0", "r1 of t1.0", 0.2),
        Execution(CHARGE, "t1.1", "r2 of t1.1", 0.2),
        Execution(GUARDED, "t3.0", "r3 of t3.0", 1.2),
    ]
    history.calls = [
        Call("(step 1)", ("u0",), 0.1),
        Call("h2 saw 1", ("helper t1.2",), 0.2),
        Call("a3, waits for call-t3.0", ("u0",), 0.3, tuple(first[:5])),
        Call("a4", ("u0", first[-1].text, "u1"), 1.3, (*first, decided, asked)),
    ]
    history.operations = [
        Operation("op0", SESSION, ("u0",), agent=TOOLED_AGENT),
        Operation("op1", SESSION, ("u1",), agent=TOOLED_AGENT, approvals=(("call-t3.0", True),)),
    ]
    for number, (operation, answer) in enumerate(zip(history.operations, (first[-1], last), strict=True)):
        operation.attempts.append(Attempt(0, number, number + 0.9, Ending.ACKNOWLEDGED, answer=answer.text))
    history.stored[SESSION] = [*first, asked, decided, last]
    history.children[CHILD] = [Message("user", "helper t1.2"), Message("assistant", "h2 saw 1")]
    return history


def test_a_clean_history_has_no_anomaly() -> None:
    assert check(with_tools()) == []


def test_what_may_be_made_again_may_be_until_its_result_is_known() -> None:
    history = with_tools()
    history.executions.append(Execution(READ, "t1.0", "r9 of t1.0", 0.25))
    assert check(history) == []


def test_a_call_that_nobody_decided_on_needs_no_result() -> None:
    history = with_tools()
    history.operations[1].approvals = ()
    history.executions.pop()
    history.stored[SESSION] = [one for one in history.stored[SESSION] if one.call_id != "call-t3.0"]
    history.calls[3] = replace(
        history.calls[3], full=(*history.calls[3].full[:6], answered("call-t3.0", "No result"), Message("user", "u1"))
    )
    assert check(history) == []


def charged_twice(history: History) -> None:
    history.executions.append(Execution(CHARGE, "t1.1", "r9 of t1.1", 0.25))


def read_after_its_result(history: History) -> None:
    history.executions.append(Execution(READ, "t1.0", "r9 of t1.0", 0.5))


def transferred_twice(history: History) -> None:
    history.executions.append(Execution(GUARDED, "t3.0", "r9 of t3.0", 1.25))


def not_approved(history: History) -> None:
    history.operations[1].approvals = (("call-t3.0", False),)


def result_is_not_stored(history: History) -> None:
    del history.stored[SESSION][2]


def call_is_not_stored(history: History) -> None:
    history.stored[SESSION][1] = step("call-t1.0", "call-t1.1")


def prompt_without_a_result(history: History) -> None:
    history.calls[2] = replace(history.calls[2], full=history.calls[2].full[:-1])


def prompt_with_a_result_of_nothing(history: History) -> None:
    full = history.calls[2].full
    history.calls[2] = replace(history.calls[2], full=(*full, full[-1]))


def another_result_is_stored(history: History) -> None:
    history.stored[SESSION][3] = answered("call-t1.1", "the tool server answered 500")


def no_tool_gave_it(history: History) -> None:
    history.executions[0] = replace(history.executions[0], result="r7 of t1.0")


def child_is_lost(history: History) -> None:
    history.children.clear()


def child_is_doubled(history: History) -> None:
    history.children[CHILD] *= 2


def going_on(history: History, text: str) -> None:
    """Let the first turn go on behind its last step."""
    last = history.calls[3]
    first, decided = last.full[:6], answered("call-t3.0", text)
    said = Message("assistant", "a5")
    history.calls[3] = replace(last, saw=(*last.saw[:2], "a5", "u1"), full=(*first, decided, said, last.full[-1]))
    history.calls.append(Call("a5", ("u0", first[-1].text), 0.4, (*first, decided)))
    history.operations[0].attempts[0] = replace(
        history.operations[0].attempts[0], answer=f"{first[-1].text}{STEP_BREAK}a5"
    )
    history.operations[1].approvals = ()
    history.executions.pop()
    history.stored[SESSION] = [*first, decided, said, Message("user", "u1"), Message("assistant", "a4")]


def test_a_turn_of_several_steps_that_say_something_is_one() -> None:
    history = with_tools()
    going_on(history, "Not run: the tool 'transfer' of 'counting' is unavailable: can't be reached.")
    assert kinds(check(history)) == {Kind.CALL_UNAWAITED}
    plain = {"a3, waits for call-t3.0": "a3 looks"}
    history = renamed(history, plain)
    assert check(history) == []
    history.operations[0].attempts[0] = replace(history.operations[0].attempts[0], answer="a3 looks")
    assert kinds(check(history)) == {Kind.OTHER_ANSWER}


def renamed(history: History, texts: dict[str, str]) -> History:
    def of(message: Message) -> Message:
        return replace(message, text=texts.get(message.text, message.text))

    history.calls = [
        replace(
            call,
            answer=texts.get(call.answer, call.answer),
            saw=tuple(texts.get(text, text) for text in call.saw),
            full=tuple(map(of, call.full)),
        )
        for call in history.calls
    ]
    history.stored[SESSION] = list(map(of, history.stored[SESSION]))
    attempt = history.operations[0].attempts[0]
    parts = [texts.get(part, part) for part in attempt.answer.split(STEP_BREAK)]
    history.operations[0].attempts[0] = replace(attempt, answer=STEP_BREAK.join(parts))
    return history


def vanished(history: History) -> None:
    """As seed 6202 had it: the gateway that went on could not reach the tool server."""
    going_on(history, "There is no tool 'transfer'. The tools are: helper")
    renamed(history, {"a3, waits for call-t3.0": "a3 looks"})


def not_awaited(history: History) -> None:
    going_on(history, "Not run: the tool 'transfer' is unavailable.")


CASES = [
    (vanished, Kind.CALL_VANISHED),
    (not_awaited, Kind.CALL_UNAWAITED),
    (charged_twice, Kind.CALL_REPEATED),
    (transferred_twice, Kind.CALL_REPEATED),
    (read_after_its_result, Kind.CALL_MADE_AGAIN),
    (not_approved, Kind.CALL_UNAPPROVED),
    (result_is_not_stored, Kind.CALL_ORPHAN),
    (call_is_not_stored, Kind.CALL_ORPHAN),
    (prompt_without_a_result, Kind.CALL_ORPHAN),
    (prompt_with_a_result_of_nothing, Kind.CALL_ORPHAN),
    (another_result_is_stored, Kind.CALL_OTHER_RESULT),
    (no_tool_gave_it, Kind.CALL_OTHER_RESULT),
    (child_is_lost, Kind.CHILD),
    (child_is_doubled, Kind.CHILD),
]


@pytest.mark.parametrize(
    ("plant", "kind"),
    CASES,
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_must_not_be_is_found(plant: Callable[[History], None], kind: Kind) -> None:
    history = with_tools()
    plant(history)
    assert kinds(check(history)) == {kind}


def test_every_kind_has_a_history_that_shows_it() -> None:
    assert {kind for _, kind in CASES} == OF_TOOLS
