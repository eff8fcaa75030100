"""Histories made by hand, for the tests of their judge."""

from dataclasses import replace

from tests.faults.history.checker import Anomaly, Kind
from tests.faults.history.records import Attempt, Call, Ending, Fork, History, Message, Operation

SESSION = "s"
FORK = "k"
OF_TOOLS = {kind for kind in Kind if kind.name.startswith("CALL_")} | {Kind.CHILD}
"""The kinds that `test_checker_tools` shows."""


def clean(turns: int = 4, window: int = 40) -> History:
    """A history of acknowledged turns of two user messages each, one after the other."""
    history = History(window=window)
    stored: list[str] = []
    for n in range(turns):
        operation = Operation(f"op{n}", SESSION, (f"u{n}.0", f"u{n}.1"))
        answer = f"a{n}"
        seen = tuple(stored[-(window // 3) * 3 :])
        history.calls.append(Call(answer, (*seen, *operation.texts), at=n + 0.5))
        operation.attempts.append(Attempt(0, n, n + 0.9, Ending.ACKNOWLEDGED, answer=answer))
        history.operations.append(operation)
        stored += [*operation.texts, answer]
    history.stored[SESSION] = messages(stored)
    return history


def messages(texts: list[str]) -> list[Message]:
    return [Message("assistant" if text.startswith("a") else "user", text) for text in texts]


def store(history: History, texts: list[str]) -> None:
    history.stored[SESSION] = messages(texts)


def kinds(found: list[Anomaly]) -> set[Kind]:
    return {anomaly.kind for anomaly in found}


def end(history: History, number: int, **changes: object) -> None:
    """Make the only attempt of an operation end otherwise."""
    attempts = history.operations[number].attempts
    attempts[0] = replace(attempts[0], **changes)  # type: ignore[arg-type]


def with_fork(history: History, turns: int = 2) -> None:
    """Fork the session after its second turn, when it had ended, and take one turn on the fork."""
    history.forks.append(Fork(FORK, SESSION, 0, began=1.95, ended=1.99, ending=Ending.ACKNOWLEDGED, turns=turns))
    copied = [message.text for message in history.stored[SESSION][: 3 * turns]]
    history.operations.append(
        Operation("own", FORK, ("own",), attempts=[Attempt(0, 2.0, 2.9, Ending.ACKNOWLEDGED, answer="a own")])
    )
    history.calls.append(Call("a own", (*copied, "own"), at=2.5))
    history.stored[FORK] = messages([*copied, "own", "a own"])


def with_transcript(history: History) -> Operation:
    """Let the last turn be one that was sent with the whole history before it."""
    operation = history.operations[3]
    operation.transcript = tuple(history.stored[SESSION][:9])
    return operation


def agent_of_all(history: History, agent: str) -> None:
    for operation in history.operations:
        operation.agent = agent


def left_and_not_finished(history: History) -> None:
    gone = Attempt(0, 9, 9.1, Ending.UNKNOWN, "(the client left)")
    operation = Operation("left", "f", ("u left",), finish=True, attempts=[gone])
    history.operations.append(operation)
    history.left.append(operation)
    history.calls.append(Call("a left", operation.texts, at=9.05))
