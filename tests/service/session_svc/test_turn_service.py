"""TurnService over real gRPC and real Redis."""

import asyncio
import uuid
from typing import Any

import pytest

from parley.session.v1 import message_pb2, session_service_pb2, turn_service_pb2
from servicekit.errors import Code
from session_svc.model.rules import MAX_MESSAGES
from tests.contract.session_svc.bench import pass_time
from tests.service.session_svc.replica import (
    ASSISTANT,
    LEASE_SECONDS,
    REJECT,
    TOOL,
    UID,
    USER,
    Replica,
    refused,
    replica,
    say,
    seconds,
    texts,
)


async def test_history_carries_over(svc: Replica) -> None:
    first = await svc.begin(user_id="ann", metadata={"company": "Acme"})
    assert first.created
    assert first.session.metadata == {"company": "Acme"}
    committed = await svc.commit(first, "one")
    assert committed.turn_number == 1
    assert committed.expire_time.ToMilliseconds() > first.session.create_time.ToMilliseconds()
    second = await svc.begin(user_id="ann")
    assert not second.created
    assert texts(second) == ["one"]
    assert [message.content for message in second.window[0].messages] == ["one", "yes"]
    assert (second.window[0].number, second.window[0].id) == (1, first.lease.turn_id)
    assert second.lease.token > first.lease.token


async def test_what_was_sent_comes_back_unchanged(svc: Replica) -> None:
    begun = await svc.begin()
    turn = message_pb2.Turn(
        messages=[
            message_pb2.Message(
                role=USER,
                name="ann",
                parts=[
                    message_pb2.ContentPart(text="look"),
                    message_pb2.ContentPart(image_url=message_pb2.ImageUrl(url="https://x/y.png", detail="low")),
                ],
            ),
            message_pb2.Message(
                role=ASSISTANT, tool_calls=[message_pb2.ToolCall(id="c1", name="f", arguments='{"broken')]
            ),
            message_pb2.Message(role=TOOL, tool_call_id="c1", content="42"),
            message_pb2.Message(role=ASSISTANT, content="done 😀", refusal=""),
        ],
        agent_revision=7,
        usage=message_pb2.Usage(prompt_tokens=5, completion_tokens=6, cached_tokens=1),
        finish_reason=message_pb2.FINISH_REASON_STOP,
        model="smollm2",
    )
    turn.metadata.update({"trace": "t", "n": 3})
    await svc.commit(begun, turn=turn)
    again = await svc.begin()
    turn.id, turn.number = begun.lease.turn_id, 1
    assert list(again.window) == [turn]
    assert again.session.agent_revision == 7
    assert again.session.usage == turn.usage
    assert again.session.message_count == 4


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"project": "Not A Project"}, ["project"]),
        ({"session": "a/b"}, ["session_id"]),
        ({"session": "x" * 129}, ["session_id"]),
        ({"session": "", "session_must_exist": True}, ["session_id"]),
        ({"agent_id": "Hello", "agent_uid": ""}, ["agent_id", "agent_uid"]),
        ({"turn_id": ""}, ["turn_id"]),
        ({"user_id": "two words"}, ["user_id"]),
        ({"window_messages": 1001}, ["window_messages"]),
        ({"window_messages": -1}, ["window_messages"]),
        ({"idle_ttl": seconds(0.5)}, ["idle_ttl"]),
        ({"idle_ttl": seconds(31 * 86400)}, ["idle_ttl"]),
        ({"max_lifetime": seconds(91 * 86400)}, ["max_lifetime"]),
        ({"request_id": "r"}, ["request_digest"]),
        ({"request_id": "ü", "request_digest": b"d"}, ["request_id"]),
        ({"metadata": {"k" * 65: "v"}}, ["metadata"]),
        ({"busy": 9}, ["busy"]),
    ],
)
async def test_begin_names_every_broken_field(svc: Replica, fields: dict[str, Any], named: list[str]) -> None:
    with refused("INVALID_FIELD") as outcome:
        await svc.begin(**fields)
    assert outcome.error.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in outcome.error.violations] == named


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "turn.messages"),
        (say("x") * (MAX_MESSAGES // 2 + 1), "turn.messages"),
        ([message_pb2.Message(content="x")], "turn.messages[0].role"),
        ([message_pb2.Message(role=TOOL, content="x")], "turn.messages[0].tool_call_id"),
        ([*say("x"), message_pb2.Message(role=TOOL, tool_call_id="c9")], "turn.messages[2].tool_call_id"),
        ([message_pb2.Message(role=USER, name="n" * 65, content="x")], "turn.messages[0].name"),
        ([message_pb2.Message(role=USER, parts=[message_pb2.ContentPart()])], "turn.messages[0].parts[0]"),
        (
            [message_pb2.Message(role=ASSISTANT, tool_calls=[message_pb2.ToolCall(name="f")])],
            "turn.messages[0].tool_calls[0].id",
        ),
        (
            [message_pb2.Message(role=USER, tool_calls=[message_pb2.ToolCall(id="c", name="f")])],
            "turn.messages[0].tool_calls",
        ),
    ],
)
async def test_a_turn_that_breaks_the_rules_is_not_stored(
    svc: Replica, messages: list[message_pb2.Message], named: str
) -> None:
    begun = await svc.begin()
    with refused("INVALID_FIELD") as outcome:
        await svc.commit(begun, turn=message_pb2.Turn(messages=messages))
    assert named in [violation.field for violation in outcome.error.violations]
    assert (await svc.commit(begun)).turn_number == 1, "the lease is still held"


async def test_a_turn_that_is_too_large_is_not_stored(svc: Replica) -> None:
    begun = await svc.begin()
    with refused("MESSAGE_TOO_LARGE") as outcome:
        await svc.commit(begun, "x" * 1024 * 1024)
    assert outcome.error.metadata == {"limit_bytes": str(1024 * 1024)}
    await svc.commit(begun, "x" * 1000 * 1024)


async def test_reject(svc: Replica) -> None:
    await svc.begin()
    with refused("SESSION_BUSY") as outcome:
        await svc.begin(busy=REJECT)
    assert outcome.error.code is Code.ABORTED
    assert 0 < outcome.error.retry_after <= LEASE_SECONDS


async def test_the_reasons_of_the_store_reach_the_caller(svc: Replica) -> None:
    begun = await svc.begin(user_id="ann")
    await svc.commit(begun)
    with refused("SESSION_NOT_FOUND"):
        await svc.begin(user_id="bob")
    with refused("SESSION_NOT_FOUND"):
        await svc.begin("nowhere", session_must_exist=True)
    with refused("SESSION_AGENT_MISMATCH"):
        await svc.begin(user_id="ann", agent_uid="another")
    with refused("LEASE_LOST"):
        await svc.renew(begun)
    await svc.sessions.DeleteSessions(
        session_service_pb2.DeleteSessionsRequest(agent_id="hello", agent_uid=UID, fence_agent=True)
    )
    with refused("AGENT_DELETED") as outcome:
        await svc.begin("s3")
    assert outcome.error.metadata == {"agent_id": "hello"}


async def test_an_expired_lease_is_fenced_off(svc: Replica, redis_url: str) -> None:
    await svc.turn()
    paused = await svc.begin()
    await pass_time(redis_url, LEASE_SECONDS * 1000)
    with refused("LEASE_LOST"):
        await svc.commit(paused, "too late")
    following = await svc.begin()
    with refused("LEASE_LOST"):
        await svc.commit(paused, "too late")
    await svc.commit(following, "in time")
    assert texts(await svc.begin()) == ["hi", "in time"]


async def test_a_renewed_lease_lives_on(svc: Replica, redis_url: str) -> None:
    begun = await svc.begin()
    for _ in range(6):
        await pass_time(redis_url, LEASE_SECONDS * 500)
        await svc.renew(begun)
    await svc.commit(begun)


async def test_commit_is_idempotent(svc: Replica) -> None:
    begun = await svc.begin()
    first = await svc.commit(begun, "one")
    await svc.turn(text="two")
    assert (await svc.commit(begun, "one")).turn_number == first.turn_number
    assert texts(await svc.begin()) == ["one", "two"]


async def test_replay(svc: Replica) -> None:
    mark: dict[str, Any] = {"request_id": "r1", "request_digest": b"digest"}
    begun = await svc.begin(**mark)
    await svc.commit(begun, "one", **mark)
    repeated = await svc.begin(**mark)
    assert not repeated.HasField("lease")
    assert repeated.replayed_turn.id == begun.lease.turn_id
    assert repeated.replayed_turn.messages[0].content == "one"
    with refused("IDEMPOTENCY_KEY_REUSED") as outcome:
        await svc.begin(request_id="r1", request_digest=b"other")
    assert outcome.error.metadata == {"request_id": "r1"}


async def test_a_repeat_without_a_session_id_finds_the_session_of_the_first_try(svc: Replica) -> None:
    mark: dict[str, Any] = {"request_id": "r1", "request_digest": b"digest", "user_id": "ann"}
    begun = await svc.begin("", **mark)
    waiting = asyncio.create_task(svc.begin("", **mark))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await svc.commit(begun, "one", request_id="r1", request_digest=b"digest")
    repeated = await waiting
    assert repeated.session.id == begun.session.id
    assert repeated.replayed_turn.messages[0].content == "one"
    assert (await svc.begin("", user_id="ann")).session.id != begun.session.id


async def test_a_full_session(redis_url: str) -> None:
    async with replica(redis_url, turns_per_session=3, when_full="refuse") as svc:
        for _ in range(3):
            await svc.turn()
        with refused("SESSION_FULL") as outcome:
            await svc.begin()
        assert outcome.error.metadata == {"session_id": "s1", "limit": "3"}


async def test_the_window_is_bounded_in_bytes(redis_url: str) -> None:
    async with replica(redis_url, window_bytes=100_000) as svc:
        for n in range(5):
            await svc.turn(text=str(n) + "x" * 30_000)
        assert [text[0] for text in texts(await svc.begin())] == ["2", "3", "4"]


async def test_a_session_expires_whole(svc: Replica, redis_url: str) -> None:
    begun = await svc.begin(idle_ttl=seconds(20))
    await svc.commit(begun, idle_ttl=seconds(20))
    await pass_time(redis_url, 20_000)
    listed = await svc.sessions.ListSessions(session_service_pb2.ListSessionsRequest())
    assert not listed.sessions
    with refused("SESSION_NOT_FOUND"):
        await svc.sessions.GetSession(session_service_pb2.GetSessionRequest(id="s1"))
    again = await svc.begin()
    assert again.created
    assert not again.window


async def test_a_session_does_not_expire_in_the_middle_of_a_turn(svc: Replica, redis_url: str) -> None:
    begun = await svc.begin(idle_ttl=seconds(20), max_lifetime=seconds(20))
    await svc.commit(begun, idle_ttl=seconds(20))
    running = await svc.begin(idle_ttl=seconds(20), max_lifetime=seconds(20))
    await pass_time(redis_url, 20_000)
    listed = await svc.sessions.ListSessions(session_service_pb2.ListSessionsRequest())
    assert [session.id for session in listed.sessions] == ["s1"]
    assert (await svc.commit(running)).turn_number == 2
    with refused("SESSION_NOT_FOUND"):
        await svc.sessions.GetSession(session_service_pb2.GetSessionRequest(id="s1"))


async def test_a_malformed_lease_is_refused(svc: Replica) -> None:
    with refused("INVALID_FIELD") as outcome:
        await svc.turns.RenewTurn(turn_service_pb2.RenewTurnRequest())
    fields = [violation.field for violation in outcome.error.violations]
    assert fields == ["lease.session_id", "lease.turn_id", "lease.token"]


async def test_retry_of_begin_gets_the_same_lease(svc: Replica) -> None:
    turn_id = uuid.uuid4().hex
    first, again = await svc.begin(turn_id=turn_id), await svc.begin(turn_id=turn_id)
    assert min(first.lease.lasts_ms, again.lease.lasts_ms) > 0
    again.lease.lasts_ms = first.lease.lasts_ms
    assert first.lease == again.lease
