"""Judges calls of tools. Pure.

What must hold (DESIGN.md, invariants 10 and 13):

- a call whose result the model was shown is not made again; one that is not idempotent is made once at most, whatever
  fails, and one that needs an approval only after somebody has approved it;
- in stored histories and in every prompt each call has its result and each result its call, once (but for calls that
  wait for an approval, or whose approval nobody gave);
- a tool that was offered does not vanish: where it is unavailable, calls of it are answered so, and one that waits
  for an approval ends its turn, whoever goes on with that;
- a call has one result: the same in every prompt and in what is stored, and it is what the tool answered, or an error;
- an agent that is called as a tool stores its turn once, with the answer that its caller's model was shown.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from tests.faults.history.records import Execution, History, Message, Operation
from tests.faults.history.tool_server import GUARDED, READ

Finding = tuple[str, str]
"""Session (empty where none is known), text."""

CALL = "call-"
"""What ids of calls begin with; the call's mark follows."""
WAITS = ", waits for "
"""What stands in the text of a step between its own words and the calls that wait for an approval."""
NO_TOOL = "There is no tool"
ANSWERED, ASKED = "r", "h"
"""What results of the tool server, and answers of the agent that is called, begin with; a number follows."""


def plain(messages: Sequence[Message]) -> list[Message]:
    """Return the messages without what tools are called with, and answer: users' texts and what they are answered."""
    return [one for one in messages if not one.call_id and not (one.calls and not one.text)]


class Tooling:
    """What a history tells of calls of tools."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._executions: defaultdict[str, list[Execution]] = defaultdict(list)
        for execution in history.executions:
            self._executions[execution.mark].append(execution)
        self._shown: defaultdict[str, dict[str, float]] = defaultdict(dict)
        """By mark: the results that models were shown, and when each was first."""
        for call in history.calls:
            for message in call.full:
                if message.call_id:
                    seen = self._shown[message.call_id.removeprefix(CALL)]
                    seen[message.text] = min(call.at, seen.get(message.text, call.at))

        self._approvals = Counter(
            call_id.removeprefix(CALL)
            for operation in history.operations
            for call_id, approve in operation.approvals
            for _ in operation.attempts
            if approve
        )
        """By mark: how often it was approved. One whose turn fails behind it still waits, and is not made again."""

    def repeated(self) -> Iterator[Finding]:
        """Find calls that were made more than once and must not be."""
        for mark, made in self._executions.items():
            if len(made) > 1 and made[0].tool != READ:
                deciders = [one for one in self._history.operations if mark in _decided(one)]
                by = f", decided on by {[one.id for one in deciders]}" if deciders else ""
                session = deciders[0].session if deciders else ""
                yield session, f"{made[0].tool} {mark} was made {len(made)} times, and is not idempotent{by}"

    def made_again(self) -> Iterator[Finding]:
        """Find calls that were made after a model was shown their result."""
        for mark, made in self._executions.items():
            known = [at for text, at in self._shown[mark].items() if _is_numbered(text, ANSWERED)]
            if known and any(one.at > min(known) for one in made):
                yield "", f"{made[0].tool} {mark} was made again after its result was known"

    def unapproved(self) -> Iterator[Finding]:
        """Find calls that were made and that nobody approved."""
        for mark, made in self._executions.items():
            if made[0].tool == GUARDED and not self._approvals[mark]:
                yield "", f"{GUARDED} {mark} was made, and nobody approved it"

    def orphans(self) -> Iterator[Finding]:
        """Find calls without results and results without calls, stored or in prompts."""
        for session, messages in self._history.stored.items():
            called = Counter(one for message in messages for one in message.calls)
            answered = Counter(message.call_id for message in messages if message.call_id)
            for one in called.keys() | answered.keys():
                undecided = self._history.tools.get(one.removeprefix(CALL)) == GUARDED and not answered[one]
                if called[one] != answered[one] and not undecided:
                    yield session, f"{one} is called {called[one]} times and answered {answered[one]} times"
        for call in self._history.calls:
            yield from (("", f"the prompt of {call.answer!r}: {what}") for what in _unpaired(call.full))

    def other_results(self) -> Iterator[Finding]:
        """Find calls with more than one result, and results that no tool gave."""
        stored = [
            (session, message)
            for session, messages in self._history.stored.items()
            for message in messages
            if message.call_id
        ]
        results = {mark: set(shown) for mark, shown in self._shown.items()}
        where: dict[str, str] = {}
        for session, message in stored:
            mark = message.call_id.removeprefix(CALL)
            where[mark] = session
            results.setdefault(mark, set()).add(message.text)
        for mark, texts in results.items():
            given = {one.result for one in self._executions[mark]}
            if len(texts) > 1 and self._history.tools.get(mark) != GUARDED:
                yield where.get(mark, ""), f"{mark} has the results {sorted(texts)}"
            if odd := [text for text in texts if _is_numbered(text, ANSWERED) and text not in given]:
                yield where.get(mark, ""), f"{mark} has the result {odd}, which no call of it gave"

    def vanished(self) -> Iterator[Finding]:
        """Find results that say that a tool does not exist: models of the run call what they are offered only."""
        for mark, shown in self._shown.items():
            yield from (("", f"{mark} was answered {text!r}") for text in shown if text.startswith(NO_TOOL))

    def children(self) -> Iterator[Finding]:
        """Find turns of called agents that are stored twice, or not as their callers were told."""
        for session, messages in self._history.children.items():
            asked = Counter(message.text for message in messages if message.role == "user")
            yield from ((session, f"{text!r} is stored {n} times") for text, n in asked.items() if n > 1)
        answers = {message.text for messages in self._history.children.values() for message in messages}
        for mark, shown in self._shown.items():
            for text in shown:
                if _is_numbered(text, ASKED) and text not in answers:
                    yield "", f"{mark} was answered {text!r}, which no called agent's session has"


def _decided(operation: Operation) -> list[str]:
    return [call_id.removeprefix(CALL) for call_id, _ in operation.approvals]


def _is_numbered(text: str, letter: str) -> bool:
    return text[:1] == letter and text[1:2].isdigit()


def _unpaired(messages: Sequence[Message]) -> Iterator[str]:
    """Yield what is wrong with calls and results in a prompt, where results stand right behind their calls."""
    owed: set[str] = set()
    for message in messages:
        if message.call_id:
            if message.call_id not in owed:
                yield f"{message.call_id} is no call of the message before, or is answered twice"
            owed.discard(message.call_id)
            continue
        if owed:
            yield f"{sorted(owed)} have no results"
        owed = set(message.calls)
    if owed:
        yield f"{sorted(owed)} have no results"


def counted(history: History) -> Counter[str]:
    """Return how many calls of each tool were made, and how many of them were made again, as they may be."""
    tools = Counter(f"{execution.tool}" for execution in history.executions)
    again = Counter(execution.mark for execution in history.executions if execution.tool == READ)
    return tools + Counter({"of them repeats": sum(number - 1 for number in again.values())})
