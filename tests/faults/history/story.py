"""Tells what a run was: counts, and the whole story of every session that something is wrong with."""

from collections import Counter
from collections.abc import Iterator, Mapping

from tests.faults.history.checker import Anomaly
from tests.faults.history.decisions import DECIDED, UNASKED, UNDECIDED, decisions
from tests.faults.history.records import CANCELLED, MISMATCH, Ending, History, Operation
from tests.faults.history.run import Result
from tests.faults.history.tooling import counted

MAX_STORIES = 5


def report(result: Result) -> str:
    """Return the run's report, many lines."""
    return "\n".join(_lines(result))


def _lines(result: Result) -> Iterator[str]:
    scenario, history = result.scenario, result.history
    yield f"history: seed {scenario.seed}, {scenario.seconds:g} s, {scenario.clients} clients, window {history.window}"
    attempts = [attempt for operation in history.operations for attempt in operation.attempts]
    yield _counted("turns", Counter(str(operation.ending) for operation in history.operations))
    decided = decisions(history)
    yield _counted("decided on", {what: decided[what] for what in DECIDED})
    yield _counted("not decided on", {what: decided[what] for what in (*UNDECIDED, UNASKED)})
    yield _counted("turns sent with their whole history", Counter(map(_resent, _with_transcripts(history))))
    yield _counted("requests", Counter(str(attempt.ending) for attempt in attempts))
    yield _counted("  refused", Counter(a.detail for a in attempts if a.ending is Ending.REFUSED))
    yield _counted("  unknown", Counter(a.detail for a in attempts if a.ending is Ending.UNKNOWN))
    yield f"replays: {sum(attempt.replayed for attempt in attempts)} (unary ones and those over gRPC)"
    yield f"sessions: {len(history.stored)}, stored messages: {sum(map(len, history.stored.values()))}"
    ends = Counter(
        ("agent " if not removal.session else "session ") + ("deleted" if removal.acknowledged else "maybe deleted")
        for removal in history.removals
    )
    yield _counted("removals", ends)
    yield f"listings: {len(history.listings)}"
    yield _counted("forks", Counter(str(fork.ending) for fork in history.forks))
    forks = {fork.id for fork in history.forks}
    yield f"turns on forks: {sum(operation.session in forks for operation in history.operations)}"
    yield _counted("turns by agent", Counter(operation.agent for operation in history.operations))
    yield _counted("turns by edge", Counter(operation.edge for operation in history.operations))
    yield f"turns to be finished without their caller: {sum(o.finish for o in history.operations)}"
    submitted = [operation for operation in history.operations if operation.background]
    yield _counted("turns in the background", Counter(str(operation.ending) for operation in submitted))
    cancelled = [operation for operation in submitted if operation.cancel_after is not None]
    yield _counted("  of them to be cancelled", Counter(_ends(operation) for operation in cancelled))
    yield _counted("turns taken over", history.taken_over)
    yield f"model calls: {len(history.calls)}"
    yield _counted("calls of tools asked for", Counter(history.tools.values()))
    yield _counted("calls of tools made", counted(history))
    decided = Counter(approve for operation in history.operations for _, approve in operation.approvals)
    yield f"calls approved: {decided[True]}, rejected: {decided[False]}"
    yield f"messages of called agents: {sum(map(len, history.children.values()))}"
    yield _counted("faults", Counter(f"{_kind(fault.target)} {fault.kind}" for fault in history.faults))
    replicas = Counter(
        f"{fault.kind} of {fault.target}" for fault in history.faults if _kind(fault.target) == "session"
    )
    yield _counted("  session_svc replicas", replicas)
    yield _counted("faults of the model", result.model_faults)
    yield _counted("faults of the tool server", result.tool_faults)
    yield _counted("anomalies", Counter(str(anomaly.kind) for anomaly in result.anomalies))
    for anomaly in result.anomalies[:40]:
        yield f"  {anomaly.session}: {anomaly.kind}: {anomaly.text}"
    for session in list(dict.fromkeys(anomaly.session for anomaly in result.anomalies if anomaly.session))[
        :MAX_STORIES
    ]:
        yield from story(history, session, result.anomalies)


def _with_transcripts(history: History) -> list[Operation]:
    return [operation for operation in history.operations if operation.transcript]


def _resent(operation: Operation) -> str:
    mismatch = any(attempt.detail == MISMATCH for attempt in operation.attempts)
    return MISMATCH if mismatch else str(operation.ending)


def _ends(operation: Operation) -> str:
    cancelled = any(attempt.detail == CANCELLED for attempt in operation.attempts)
    return CANCELLED if cancelled else str(operation.ending)


def _kind(target: str) -> str:
    return "link" if ">" in target else target.rstrip("0123456789")


def _counted(what: str, counts: Mapping[str, int]) -> str:
    each = ", ".join(f"{number} {name}" for name, number in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{what}: {sum(counts.values())}{f' ({each})' if each else ''}"


def story(history: History, session: str, anomalies: list[Anomaly]) -> Iterator[str]:
    """Yield all that happened to one session, in time: requests, model calls, faults, what is stored in the end."""
    yield f"the story of session {session}:"
    for anomaly in anomalies:
        if anomaly.session == session:
            yield f"  !! {anomaly.kind}: {anomaly.text}"
    texts = {text for operation in history.operations if operation.session == session for text in operation.texts}
    events: list[tuple[float, str]] = []
    for operation in history.operations:
        if operation.session != session:
            continue
        sent = f" behind {len(operation.transcript)}" if operation.transcript else ""
        what = f"{operation.id} {operation.edge}{sent}{' stream' if operation.streamed else ''} {operation.busy}"
        for attempt in operation.attempts:
            where = f"at gateway{attempt.gateway}{' with ' + operation.key if operation.key else ''}"
            events.append((attempt.began, f"{what} asks {where}: {operation.texts}"))
            events.append(
                (attempt.ended, f"{what} is told {attempt.ending} {attempt.detail}{attempt.answer} {attempt.said}")
            )
    events += [
        (call.at, f"model: {call.answer!r} to {call.saw[-1]!r}, after {call.saw[-6:-1]}")
        for call in history.calls
        if call.saw and call.saw[-1] in texts
    ]
    concerned = [operation for operation in history.operations if operation.session == session]
    for removal in history.removals:
        if any(removal.concerns(operation) for operation in concerned):
            sure = "and it is gone" if removal.acknowledged else "unheard"
            events.append((removal.began, f"** {removal.session or removal.agent} is deleted, {sure}"))
            events += [(removal.ended, f"** {removal.session or removal.agent} is gone")] * removal.acknowledged
    events += [
        (listing.began, f"** is listed, until {listing.ended - listing.began:.3f} s later")
        for listing in history.listings
        if session in listing.sessions
    ]
    for fork in history.forks:
        if session in (fork.id, fork.source):
            what = f"** fork {fork.id} of {fork.source} up to {fork.up_to or 'its end'}"
            events += [(fork.began, f"{what} begins")]
            events += [(fork.ended, f"{what}: {fork.ending}, {fork.turns} turns")] * (fork.ending is not Ending.UNKNOWN)
    first = min((time for time, _ in events), default=0.0)
    last = max((time for time, _ in events), default=0.0)
    events += [
        (fault.began, f"-- {fault.kind} {fault.target} for {fault.ended - fault.began:.2f} s")
        for fault in history.faults
        if first - 1 <= fault.began <= last + 1
    ]
    yield from (f"  {time - first:8.3f} {text}" for time, text in sorted(events))
    yield "  stored:"
    yield from (f"    {message.role}: {message.text}" for message in history.stored.get(session, []))
