"""What one gateway writes of a turn, as another one reads it: everything, whatever it is."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from access.caller import ANONYMOUS, Caller, CallerLimits, CallerRequests, note_user_token
from chat_gateway.convert.journal import entry_to_proto, event_from_proto
from chat_gateway.convert.resumption import MAX_REQUEST_BYTES, resumable_from_bytes, resumable_to_bytes
from chat_gateway.model.background import ResumableTurn
from chat_gateway.model.journal import CallRecorded, JournalEntry, StepCalled
from chat_gateway.model.tools import (
    Approval,
    CallFinished,
    CallStarted,
    ServerTools,
    StepFinished,
    ToolOutcome,
    TurnResumed,
)
from chat_gateway.model.turn import (
    Delta,
    FilePart,
    ImagePart,
    Message,
    OnDisconnect,
    ProviderData,
    Sampling,
    TextPart,
    Tool,
    ToolCall,
    TurnRequest,
)
from chat_gateway.model.usage import Usage
from chat_gateway.resumption import resumption_of, steps_of, time_left, with_session
from contract.enums import BusyPolicy, HistoryPolicy, Role
from servicekit.errors import MessageTooLarge
from tests.unit.chat_gateway.world import asks, make_config

FULL = TurnRequest(
    agent_id="support",
    messages=(
        Message(Role.USER, parts=(TextPart("look"), ImagePart("https://x/y.png", "high"), FilePart(id="f1", name="n"))),
        Message(
            Role.ASSISTANT,
            tool_calls=(ToolCall("c1", "read", '{"x": 1}', ProviderData("anthropic", "p", b"{}")),),
            reasoning="hm",
        ),
        Message(Role.TOOL, "42", tool_call_id="c1"),
    ),
    project="p1",
    session_id="s1",
    user_id="ann",
    session_must_exist=True,
    store=True,
    busy=BusyPolicy.REJECT,
    request_id="r1",
    agent_revision=3,
    sampling=Sampling(temperature=0.5, stop=("x",), seed=7),
    tools=(Tool("t", "d", {"type": "object"}, strict=True),),
    allowed_tools=frozenset({"t", "u"}),
    tool_choice="auto",
    response_format={"type": "json_object"},
    extra={"top_k": b"4"},
    metadata={"a": "b"},
    on_disconnect=OnDisconnect.FINISH,
    resumable=True,
    background=True,
    history=HistoryPolicy.REPLACE,
    timeout=12.5,
    instructions="Be brief.",
    notes=b"notes",
    lists_tools=True,
    after_turn="t7",
    task="t-first",
    approvals=(Approval("c9", True, "fine"),),
)
CALLER = Caller(
    "key-1",
    "p1",
    frozenset({"chat"}),
    "ann",
    CallerLimits(10, 2),
    CallerRequests(store=True, history=HistoryPolicy.APPEND),
    "req",
    "http",
)
BEGIN = datetime(2026, 11, 27, 12, 0, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "turn",
    [ResumableTurn(FULL, CALLER, 3, b"\x00digest", BEGIN), ResumableTurn(asks(), ANONYMOUS, 1, b"", BEGIN)],
    ids=["full", "plain"],
)
def test_a_turn_is_read_as_it_was_written(turn: ResumableTurn) -> None:
    assert resumable_from_bytes(resumable_to_bytes(turn)) == turn


async def test_a_turn_that_passes_its_user_s_token_on_is_not_taken_over_and_the_token_never_written() -> None:
    forwards = make_config(tools=(ServerTools("crm", forward_user_token=True),))
    by_token, by_key = replace(CALLER, id="token:ann"), replace(CALLER, id="key-1")
    note_user_token(by_token, "token-of-the-user")
    assert resumption_of(asks(), forwards, b"", BEGIN) == b""
    written = resumption_of(asks(), make_config(tools=(ServerTools("crm"),)), b"", BEGIN)
    assert written
    assert b"token-of-the-user" not in written
    note_user_token(by_key, "pk_an-api-key")
    written = resumption_of(asks(), forwards, b"", BEGIN)
    assert written
    assert b"pk_an-api-key" not in written


def test_every_field_of_a_request_is_tried() -> None:
    same = {one.name for one in fields(TurnRequest) if getattr(FULL, one.name) == getattr(asks(), one.name)}  # type: ignore[arg-type]
    assert same <= {"agent_id", "stateless", "choices", "parent_session_id"}, "give FULL another value"


def test_a_form_of_a_later_release_is_left_to_it() -> None:
    import msgspec

    assert resumable_from_bytes(msgspec.msgpack.encode({"form": 3, "whatever": 1})) is None


def test_what_an_earlier_release_would_get_wrong_is_not_left_to_it() -> None:
    import msgspec

    forms = [
        msgspec.msgpack.decode(resumable_to_bytes(ResumableTurn(one, ANONYMOUS, 1, b"", BEGIN)))["form"]
        for one in (asks(), asks(tools=(Tool("t"),), allowed_tools=frozenset({"t"})))
    ]
    assert forms == [1, 2]


def test_what_is_too_large_is_not_taken_over_and_not_queued() -> None:
    large = asks("x" * MAX_REQUEST_BYTES)
    assert resumable_to_bytes(ResumableTurn(large, ANONYMOUS, 1, b"", BEGIN)) == b""
    with pytest.raises(MessageTooLarge):
        resumable_to_bytes(ResumableTurn(replace(large, background=True), ANONYMOUS, 1, b"", BEGIN))


def test_a_request_without_a_session_brings_no_transcript_of_the_one_that_it_got() -> None:
    assert with_session(asks(), "s9").history is HistoryPolicy.APPEND
    assert with_session(asks(session_id="s9"), "s9").history is None


def test_the_time_of_a_turn_counts_from_its_begin_but_for_one_in_the_background() -> None:
    turn = ResumableTurn(asks(timeout=5.0), ANONYMOUS, 1, b"", BEGIN)
    assert time_left(turn, 600) == 0
    assert time_left(replace(turn, begin_time=datetime.now(UTC)), 600) <= 5
    ahead = replace(turn, begin_time=datetime.now(UTC) + timedelta(hours=3))
    assert time_left(ahead, 600) == 5, "begun where the clock is ahead"
    assert time_left(replace(turn, request=asks(background=True)), 600) == 600


def called(step: int, *call_ids: str) -> StepCalled:
    calls = tuple(ToolCall(one, "read", "{}") for one in call_ids)
    return StepCalled(step, Message(Role.ASSISTANT, tool_calls=calls), Usage(step, step))


def started(step: int, call_id: str) -> CallStarted:
    return CallStarted(step, call_id, "read", "{}", "files")


def recorded(step: int, call_id: str) -> CallRecorded:
    return CallRecorded(CallFinished(step, call_id, "read", "files", ToolOutcome.OK, 0.1), f"result of {call_id}")


def ids(entries: list[JournalEntry]) -> list[str]:
    return [one.tool_call_id or one.role.value for one in steps_of(entries).messages]


def test_steps_are_read_from_a_journal() -> None:
    first = [called(1, "a", "b"), started(1, "a"), started(1, "b"), recorded(1, "b"), recorded(1, "a")]
    done: list[JournalEntry] = [*first, StepFinished(1, Usage(5, 5))]
    assert ids(done) == ["assistant", "a", "b"], "in the order of the calls"
    assert (steps_of(done).count, steps_of(done).usage, steps_of(done).unrecorded) == (1, Usage(5, 5), frozenset())
    # The ids of calls are unique in a step only.
    half: list[JournalEntry] = [*done, Delta("never mind"), called(2, "a", "b"), started(2, "a"), TurnResumed(3, 2)]
    assert ids(half) == ["assistant", "a", "b", "assistant"]
    assert (steps_of(half).count, steps_of(half).unrecorded) == (2, frozenset({"a"}))
    assert steps_of([*half, recorded(2, "a")]).unrecorded == frozenset()


def test_tokens_of_called_agents_count_once_whether_or_not_their_step_has_ended() -> None:
    used = Usage(70, 7)
    entry = CallRecorded(CallFinished(1, "a", "helper", "helper", ToolOutcome.OK, 0.1, usage=used), "result")
    written = event_from_proto(entry_to_proto(entry), None, "t", "s")
    assert written is not None
    assert written.entry == entry
    half: list[JournalEntry] = [called(1, "a", "b"), started(1, "a"), entry, started(1, "b")]
    assert steps_of(half).usage == Usage(71, 8)
    done = [*half, recorded(1, "b"), StepFinished(1, Usage(71, 8)), replace(called(2, "c"), usage=Usage(80, 9))]
    assert steps_of(done[:-1]).usage == Usage(71, 8)
    assert steps_of(done).usage == Usage(80, 9)


def test_calls_that_an_approval_let_run_come_first() -> None:
    approved: list[JournalEntry] = [started(0, "x"), recorded(0, "x"), started(0, "y")]
    assert ids(approved) == ["x"]
    assert (steps_of(approved).count, steps_of(approved).unrecorded) == (0, frozenset({"y"}))
    assert ids([*approved, recorded(0, "y"), called(1, "a")]) == ["x", "y", "assistant"]
