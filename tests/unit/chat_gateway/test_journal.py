"""What a turn writes into its journal, and that nothing else pays for it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from chat_gateway.convert.journal import committed_to_proto, entry_to_proto, event_from_proto, failed_to_proto
from chat_gateway.convert.resumption import resumable_from_bytes
from chat_gateway.journal import merged
from chat_gateway.model.errors import TurnTimeout
from chat_gateway.model.journal import CallRecorded, JournalEntry, StepCalled, TurnBegun
from chat_gateway.model.stored_turn import Lease, Turn
from chat_gateway.model.tools import CallFinished, CallStarted, ServerTools, StepFinished, ToolOutcome
from chat_gateway.model.turn import (
    Delta,
    FinishReason,
    Message,
    OnDelta,
    ProviderData,
    ToolCall,
    ToolCallDelta,
    TurnOutcome,
    TurnStarted,
    Usage,
)
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from contract.enums import Role
from servicekit.errors import Code, ServiceError
from tests.doubles.chat_gateway.sessions import remote
from tests.doubles.chat_gateway.toolboxes import FakeToolboxes, says
from tests.unit.chat_gateway.stepping_provider import SteppingProvider, calling, text
from tests.unit.chat_gateway.world import FakeConfigs, FakeProvider, World, asks, make_config

TIME = datetime(2026, 1, 1, tzinfo=UTC)
BEGUN = TurnBegun("support", 3, True, TIME, b"request")


class Caller:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.started: list[TurnStarted] = []
        self.deltas: list[Delta] = []

    async def on_started(self, started: TurnStarted) -> None:
        self.started.append(started)

    async def on_delta(self, delta: Delta) -> None:
        self.deltas.append(delta)


def with_tools(*steps: Message) -> World:
    config = make_config(template_version="2.0.0", tools=(ServerTools("files"),))
    toolboxes = FakeToolboxes({"read": says("42")})
    return World(provider=SteppingProvider(*steps), configs=FakeConfigs(config), toolboxes=toolboxes)


async def test_a_plain_turn_has_none() -> None:
    world = World()
    await world.runner.run(asks(session_id="s"))
    assert not world.sessions.journals
    assert not world.sessions.ended


async def test_a_turn_whose_tools_are_not_called_has_none() -> None:
    world = with_tools(text("fine"))
    await world.runner.run(asks(session_id="s"))
    assert not world.sessions.journals


async def test_a_resumable_turn_writes_each_piece_before_its_caller_gets_it() -> None:
    world, caller = World(provider=FakeProvider("a", "b", "c")), Caller()
    outcome = await world.runner.run(asks(session_id="s", resumable=True), caller.on_started, caller.on_delta)
    [journal] = world.sessions.journals.values()
    assert isinstance(journal[0], TurnBegun)
    assert replace(journal[0], request=b"") == TurnBegun("support", 1, True, outcome.begin_time)
    asked = resumable_from_bytes(journal[0].request)
    assert asked is not None
    assert asked.request == asks(session_id="s", resumable=True)
    assert caller.started[0].event_id == "1-1"
    assert [replace(delta, event_id="") for delta in caller.deltas] == journal[1:]
    assert [delta.event_id for delta in caller.deltas] == [f"1-{n}" for n in range(2, len(journal) + 1)]
    assert "".join(delta.content for delta in caller.deltas) == "abc"
    ended = world.sessions.ended[outcome.turn_id]
    assert isinstance(ended, Turn)
    assert ended.messages[-1].content == "abc"


async def test_an_answer_that_comes_at_once_is_written_with_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    world, caller = World(provider=FakeProvider("a", "b", "c")), Caller()
    sessions = world.sessions
    append, commit, calls = sessions.append, sessions.commit, []

    async def appending(lease: Lease, first: int, entries: Sequence[JournalEntry]) -> str:
        calls.append("append")
        return await append(lease, first, entries)

    async def committing(*rest: Any) -> Any:
        calls.append("commit")
        assert not caller.deltas
        return await commit(*rest)

    monkeypatch.setattr(sessions, "append", appending)
    monkeypatch.setattr(sessions, "commit", committing)
    await world.runner.run(asks(session_id="s", resumable=True), caller.on_started, caller.on_delta)
    assert calls == [
        "append",
        "commit",
        "append",
    ]  # the last is how the double commits
    assert [(delta.content, delta.event_id) for delta in caller.deltas] == [("abc", "1-2")]


async def test_an_answer_whose_commit_fails_is_not_passed_on() -> None:
    world, caller = World(provider=FakeProvider("a", "b")), Caller()
    world.sessions.commit_errors = [remote("LEASE_LOST", Code.ABORTED)]
    with pytest.raises(ServiceError):
        await world.runner.run(asks(session_id="s", resumable=True), caller.on_started, caller.on_delta)
    assert not caller.deltas


class BreakingProvider(FakeProvider):
    """Fails behind its pieces."""

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        await super().complete(call, on_delta)
        raise remote("PROVIDER_FAILED", Code.UNAVAILABLE)


async def test_what_came_before_a_failure_is_written_and_passed_on() -> None:
    world, caller = World(provider=BreakingProvider("a", "b")), Caller()
    with pytest.raises(ServiceError):
        await world.runner.run(asks(session_id="s", resumable=True), caller.on_started, caller.on_delta)
    assert [(delta.content, delta.event_id) for delta in caller.deltas] == [("ab", "1-2")]
    [journal] = world.sessions.journals.values()
    assert journal[1] == Delta("ab")


async def test_a_turn_with_tools_writes_its_steps() -> None:
    world, caller = with_tools(calling(("c1", "read", '{"x":1}')), text("done")), Caller()
    outcome = await world.runner.run(asks(session_id="s", resumable=True), caller.on_started, caller.on_delta)
    [journal] = world.sessions.journals.values()
    kinds = [type(entry) for entry in journal if not isinstance(entry, Delta)]
    assert kinds == [TurnBegun, StepCalled, CallStarted, CallRecorded, StepFinished]
    [recorded] = [entry for entry in journal if isinstance(entry, CallRecorded)]
    assert (recorded.content, recorded.event.outcome) == ("42", ToolOutcome.OK)
    assert isinstance(world.sessions.ended[outcome.turn_id], Turn)


async def test_steps_are_written_for_a_turn_that_is_not_resumable() -> None:
    world = with_tools(calling(("c1", "read", "{}")), text("done"))
    await world.runner.run(asks(session_id="s"))
    [journal] = world.sessions.journals.values()
    assert [type(entry) for entry in journal] == [TurnBegun, StepCalled, CallStarted, CallRecorded, StepFinished]


async def test_a_step_is_written_before_its_call_and_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world, written = with_tools(calling(("c1", "read", "{}")), text("done")), []
    append = world.sessions.append

    async def seen(lease: Lease, first: int, entries: Sequence[JournalEntry]) -> str:
        written.append(([type(entry) for entry in entries], len(world.toolboxes.calls)))
        return await append(lease, first, entries)

    monkeypatch.setattr(world.sessions, "append", seen)
    await world.runner.run(asks(session_id="s"))
    assert written == [([TurnBegun, StepCalled, CallStarted], 0), ([CallRecorded, StepFinished], 1)]


async def test_a_call_that_can_not_be_written_is_not_made() -> None:
    world = with_tools(calling(("c1", "read", "{}")), text("done"))
    world.sessions.append_errors.append(remote("LEASE_LOST", Code.ABORTED))
    with pytest.raises(ServiceError, match="lease_lost"):
        await world.runner.run(asks(session_id="s"))
    assert not world.toolboxes.calls


async def test_a_turn_that_fails_says_so() -> None:
    async def hangs() -> None:
        await asyncio.sleep(60)

    world, caller = World(provider=FakeProvider(before=hangs), turn_timeout=1.0), Caller()
    with pytest.raises(TurnTimeout):
        await world.runner.run(asks(session_id="s", resumable=True), caller.on_started, caller.on_delta)
    async with asyncio.timeout(60):
        while not world.sessions.ended:
            await asyncio.sleep(0.01)
    [ended] = world.sessions.ended.values()
    assert isinstance(ended, TurnTimeout)


async def test_resumable_needs_a_session() -> None:
    with pytest.raises(ServiceError) as raised:
        await World().runner.run(asks(stateless=True, resumable=True))
    assert [one.field for one in raised.value.violations] == ["resumable"]


DATA = ProviderData("openai", "p", b"{}")


@pytest.mark.parametrize(
    "entry",
    [
        BEGUN,
        Delta("a", (ToolCallDelta(0, "c", "f", "{", DATA),), "no", "hm", DATA),
        CallStarted(1, "c", "f", "{}", "files"),
        CallRecorded(CallFinished(1, "c", "f", "files", ToolOutcome.TIMEOUT, 0.25), "late"),
        StepCalled(2, Message(Role.ASSISTANT, "x", tool_calls=(ToolCall("c", "f", "{}"),)), Usage(1, 2, 3)),
        StepFinished(2, Usage(1, 2, 3)),
    ],
    ids=lambda entry: type(entry).__name__,
)
def test_an_entry_is_read_as_it_was_written(entry: object) -> None:
    written = entry_to_proto(entry)  # type: ignore[arg-type]
    written.id = "7-1"
    read = event_from_proto(written, None, "t", "s")
    assert read is not None
    assert (read.id, read.entry) == ("7-1", entry)


def test_an_end_is_read_as_it_was_written() -> None:
    stored = Turn(
        id="t",
        messages=(Message(Role.USER, "q"), Message(Role.ASSISTANT, "a")),
        agent_revision=3,
        usage=Usage(5, 6),
        finish_reason=FinishReason.LENGTH,
        begin_time=TIME,
        model="m",
    )
    written = committed_to_proto(stored)
    written.ended.committed.turn_number = 4
    read = event_from_proto(written, BEGUN, "t", "s")
    assert read is not None
    outcome = read.entry
    assert isinstance(outcome, TurnOutcome)
    assert (outcome.turn_id, outcome.session_id, outcome.turn_number) == ("t", "s", 4)
    assert (outcome.message.content, outcome.finish_reason, outcome.usage) == ("a", FinishReason.LENGTH, Usage(5, 6))
    assert (outcome.agent_revision, outcome.session_created, outcome.begin_time) == (3, True, TIME)


def test_a_failure_is_read_as_it_was_written() -> None:
    read = event_from_proto(failed_to_proto(TurnTimeout("turn")), BEGUN, "t", "s")
    assert read is not None
    assert isinstance(read.entry, ServiceError)
    assert (read.entry.reason, read.entry.code) == (TurnTimeout("turn").reason, Code.DEADLINE_EXCEEDED)


def test_pieces_that_came_together_are_one() -> None:
    pieces = [Delta("a", provider="p"), Delta("b", refusal="r"), Delta(reasoning="h", provider_data=DATA)]
    assert merged(pieces) == Delta("ab", refusal="r", reasoning="h", provider_data=DATA, provider="p")


@pytest.mark.parametrize(("full_at", "made"), [(CallStarted, 0), (CallRecorded, 1)])
async def test_a_journal_that_is_full_ends_its_turn_by_name_and_the_session_goes_on(full_at: type, made: int) -> None:
    world = with_tools(calling(("c1", "read", "{}")), calling(("c2", "read", "{}")), text("done"), text("next"))
    append = world.sessions.append

    async def append_until_full(lease: Lease, first: int, entries: Sequence[JournalEntry]) -> str:
        if any(isinstance(one, full_at) for one in entries):
            raise remote("MESSAGE_TOO_LARGE", Code.RESOURCE_EXHAUSTED)
        return await append(lease, first, entries)

    world.sessions.append = append_until_full  # type: ignore[method-assign]
    with pytest.raises(ServiceError) as caught:
        await world.runner.run(asks(session_id="s"))
    assert caught.value.reason == "MESSAGE_TOO_LARGE"
    await world.aborts.close(60)
    assert len(world.toolboxes.calls) == made
    assert "s" not in world.sessions.turns
    world.sessions.append = append  # type: ignore[method-assign]
    assert (await world.runner.run(asks(session_id="s"))).turn_number == 1
