"""Counts the turns of a run that the checker could decide on: those that must be stored, must not be, or are. Pure."""

from collections import Counter

from tests.faults.history.lifetimes import Lifetimes
from tests.faults.history.records import Ending, History, Operation

DECIDED = ("acknowledged, must be stored", "refused, must not be stored", "found stored", "seen by a later turn")
UNDECIDED = ("of unknown outcome, not stored", "gone with its session")
UNASKED = "of unknown outcome, the model never asked"
"""How many there are says how long parts were down and how fast callers came back, not how much the checker judges. One
that is stored all the same is an anomaly: it has no answer of the model's."""


def decisions(history: History) -> Counter[str]:
    """Return how many turns there are of each of `DECIDED` and `UNDECIDED`, and of `UNASKED`."""
    asked = {text for call in history.calls for text in call.saw}
    stored = {message.text for messages in history.stored.values() for message in messages}
    sender = {text: operation.id for operation in history.operations for text in operation.texts}
    seen = {
        text
        for call in history.calls
        for text in call.saw[:-1]
        if call.saw and call.saw[-1] in sender and sender.get(text) != sender[call.saw[-1]]
    }
    lifetimes = Lifetimes(history)

    def of(operation: Operation) -> str:
        texts, acknowledgement = set(operation.texts), operation.acknowledgement
        if operation.ending is Ending.REFUSED:
            return DECIDED[1]
        if acknowledgement is not None and not lifetimes.may_be_gone(operation, acknowledgement):
            return DECIDED[0]
        if texts & stored:
            return DECIDED[2]
        if texts & seen:
            return DECIDED[3]
        if acknowledgement is not None:
            return UNDECIDED[1]
        return UNDECIDED[0] if texts & asked else UNASKED

    return Counter(of(operation) for operation in history.operations)
