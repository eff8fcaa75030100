"""Large images, audio and files: stored once beside the turns that name them, and with the life of their session."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis

from parley.session.v1 import message_pb2 as pb
from parley.session.v1 import session_service_pb2, turn_service_pb2
from tests.service.session_svc.replica import ASSISTANT, USER, Replica, refused, replica, seconds

KEY = "{default:s1}:parts"
A, B, C = (f"data:image/png;base64,{letter * 20_000}".encode() for letter in "abc")


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as made:
        yield made


def kept(content: bytes) -> pb.KeptContent:
    return pb.KeptContent(digest=hashlib.sha256(content).digest()[:16], size=len(content))


def given(content: bytes) -> pb.PartContent:
    return pb.PartContent(digest=kept(content).digest, content=content)


def turn_with(*contents: bytes, text: str = "look") -> pb.Turn:
    parts = [pb.ContentPart(text=text)]
    parts += [pb.ContentPart(image_url=pb.ImageUrl(detail="low"), kept=kept(content)) for content in contents]
    return pb.Turn(messages=[pb.Message(role=USER, parts=parts), pb.Message(role=ASSISTANT, content="yes")])


async def look(svc: Replica, *contents: bytes, session: str = "s1", **fields: Any) -> Any:
    """One turn with these pictures."""
    begun = await svc.begin(session)
    parts = [given(content) for content in dict.fromkeys(contents)]
    return await svc.commit(begun, turn=turn_with(*contents), parts=parts, **fields)


async def read(svc: Replica, *contents: bytes, session: str = "s1") -> list[bytes]:
    request = turn_service_pb2.ReadPartsRequest(session_id=session, kept=[kept(content) for content in contents])
    return [part.content for part in (await svc.turns.ReadParts(request, timeout=60)).parts]


async def listed(svc: Replica, session: str = "s1", **fields: Any) -> Sequence[pb.Turn]:
    request = session_service_pb2.ListMessagesRequest(session_id=session, **fields)
    turns: Sequence[pb.Turn] = (await svc.sessions.ListMessages(request)).turns
    return turns


async def part_bytes(svc: Replica, session: str = "s1") -> int:
    found = await svc.sessions.GetSession(session_service_pb2.GetSessionRequest(id=session))
    return int(found.session.part_bytes)


async def test_a_content_is_stored_once_and_only_its_name_stands_in_the_turns(
    svc: Replica, client: "redis.Redis"
) -> None:
    await look(svc, A, A)
    await look(svc, A, B)
    assert await part_bytes(svc) == len(A) + len(B)
    begun = await svc.begin()
    assert [part.kept.size for turn in begun.window for part in turn.messages[0].parts[1:]] == [len(A)] * 3 + [len(B)]
    assert begun.ByteSize() < 2000
    assert begun.session.part_bytes == len(A) + len(B)
    assert await read(svc, B, A) == [B, A]
    assert client.memory_usage(KEY) < 2 * (len(A) + len(B))


async def test_a_turn_without_parts_makes_no_key(svc: Replica, client: "redis.Redis") -> None:
    await svc.turn()
    assert not client.exists(KEY)
    assert not client.hexists("{default:s1}:meta", "parts")


@pytest.mark.parametrize(
    ("turn", "parts"),
    [
        (turn_with(A), []),
        (turn_with(), [given(A)]),
        (turn_with(A), [given(A), given(A)]),
        (turn_with(A), [pb.PartContent(digest=kept(A).digest, content=A[1:])]),
        (turn_with(A, B), [given(A)]),
    ],
)
async def test_what_comes_with_a_turn_is_what_it_names(
    svc: Replica, client: "redis.Redis", turn: pb.Turn, parts: list[pb.PartContent]
) -> None:
    begun = await svc.begin()
    with refused("INVALID_FIELD") as outcome:
        await svc.commit(begun, turn=turn, parts=parts)
    assert [one.field for one in outcome.error.violations] == ["parts"]
    assert not client.exists(KEY)


async def test_they_expire_with_their_session_and_every_turn_prolongs_both(svc: Replica, client: "redis.Redis") -> None:
    await look(svc, A, idle_ttl=seconds(100))
    for step in (
        svc.turn(idle_ttl=seconds(2000)),
        svc.sessions.UpdateSession(
            session_service_pb2.UpdateSessionRequest(
                session=session_service_pb2.Session(id="s1", idle_ttl=seconds(50)), update_mask={"paths": ["idle_ttl"]}
            )
        ),
        svc.begin(idle_ttl=seconds(9)),
    ):
        await step
        assert client.pexpiretime(KEY) == client.pexpiretime("{default:s1}:meta") > 0


async def test_they_are_deleted_and_erased_with_their_session(svc: Replica, client: "redis.Redis") -> None:
    await look(svc, A)
    await svc.sessions.DeleteSession(session_service_pb2.DeleteSessionRequest(id="s1"))
    assert not client.exists(KEY)
    begun = await svc.begin(user_id="ann")
    await svc.commit(begun, turn=turn_with(A), parts=[given(A)])
    await svc.sessions.EraseUser(session_service_pb2.EraseUserRequest(user_id="ann"))
    assert client.keys("{default:s1}*") == []


async def test_a_turn_that_is_not_committed_leaves_none(svc: Replica, client: "redis.Redis") -> None:
    begun = await svc.begin()
    await svc.abort(begun)
    with refused("LEASE_LOST"):
        await svc.commit(begun, turn=turn_with(A), parts=[given(A)])
    assert not client.exists(KEY)


async def test_a_repeated_commit_stores_nothing_twice(svc: Replica, client: "redis.Redis") -> None:
    begun = await svc.begin()
    first = await svc.commit(begun, turn=turn_with(A), parts=[given(A)])
    assert await svc.commit(begun, turn=turn_with(A), parts=[given(A)]) == first
    assert client.hlen(KEY) == 2


async def test_a_fork_has_its_own(svc: Replica, client: "redis.Redis") -> None:
    await look(svc, A)
    await look(svc, A, B)
    await look(svc, C)
    request = session_service_pb2.ForkSessionRequest(session_id="s1", new_session_id="s2", up_to_turn=2)
    forked = (await svc.sessions.ForkSession(request)).session
    assert forked.part_bytes == len(A) + len(B)
    await svc.sessions.DeleteSession(session_service_pb2.DeleteSessionRequest(id="s1"))
    assert await read(svc, A, B, session="s2") == [A, B]
    assert client.pexpiretime("{default:s2}:parts") == client.pexpiretime("{default:s2}:meta")
    shown = await listed(svc, "s2")
    assert [part.image_url.url.encode() for turn in shown for part in turn.messages[0].parts[1:]] == [A, A, B]


async def test_pages_and_exports_show_them_and_may_leave_them_out(svc: Replica) -> None:
    begun = await svc.begin(user_id="ann")
    await svc.commit(begun, turn=turn_with(A), parts=[given(A)])
    [shown] = await listed(svc)
    assert shown.messages[0].parts[1] == pb.ContentPart(image_url=pb.ImageUrl(url=A.decode(), detail="low"))
    [left_out] = await listed(svc, omit_parts=True)
    assert left_out.messages[0].parts[1].kept == kept(A)
    exported = [item async for item in svc.sessions.ExportUser(session_service_pb2.ExportUserRequest(user_id="ann"))]
    assert exported[0].session.part_bytes == len(A)
    assert exported[1].turn == shown


async def test_a_page_ends_before_it_is_too_large_with_them(svc: Replica) -> None:
    large = [f"data:image/png;base64,{letter * 2_000_000}".encode() for letter in "xyz"]
    for content in large:
        await look(svc, content)
    assert [turn.number for turn in await listed(svc)] == [1, 2]
    assert [turn.number for turn in await listed(svc, omit_parts=True)] == [1, 2, 3]


async def test_what_a_cut_or_a_full_session_takes_away_goes_with_its_turns(
    redis_url: str, client: "redis.Redis"
) -> None:
    async with replica(redis_url, turns_per_session=2) as svc:
        await look(svc, A)
        await look(svc, A, B)
        await look(svc, C, cut_after_turn=1)
        assert await part_bytes(svc) == len(A) + len(C)
        await look(svc, B)
        assert await part_bytes(svc) == len(B) + len(C), "turn 1 was dropped"
        await svc.turn()
        await svc.turn()
        assert await part_bytes(svc) == 0
        assert not client.exists(KEY)


async def test_their_bytes_are_bounded_and_the_oldest_make_room(redis_url: str) -> None:
    large = [f"data:image/png;base64,{letter * 400_000}".encode() for letter in "xyz"]
    async with replica(redis_url, part_bytes_per_session=1024 * 1024) as svc:
        for content in large:
            await look(svc, content)
        assert await read(svc, *large) == large[1:], "what made room is not there, and is not damage"
        shown = await listed(svc)
        assert [part.HasField("kept") for turn in shown for part in turn.messages[0].parts[1:]] == [True, False, False]
    async with replica(redis_url, part_bytes_per_session=1024 * 1024, when_full="refuse") as svc:
        begun = await svc.begin()
        with refused("SESSION_FULL") as outcome:
            await svc.commit(begun, turn=turn_with(large[0]), parts=[given(large[0])])
        assert outcome.error.metadata["limit"] == str(1024 * 1024)
        assert (await svc.commit(begun)).turn_number == 4


async def test_one_that_vanished_is_damage_by_its_name(svc: Replica, client: "redis.Redis") -> None:
    await look(svc, A)
    await look(svc, B)
    client.hset(KEY, b"c" + kept(B).digest, B[:-1])
    assert await read(svc, A) == [A]
    with refused("TURN_DAMAGED") as outcome:
        await read(svc, A, B)
    assert outcome.error.metadata == {"turn_number": "2"}
    await look(svc, B)
    assert await read(svc, A, B) == [A, B], "the same picture again mends it"
    client.delete(KEY)
    with refused("TURN_DAMAGED"):
        await listed(svc)
    await svc.turn()
    client.set(KEY, "x")
    begun = await svc.begin()
    with refused("TURN_DAMAGED"):
        await svc.commit(begun, turn=turn_with(A), parts=[given(A)])
    assert len((await svc.begin("s1", turn_id=begun.lease.turn_id)).window) == 4, "nothing of it is stored"


@pytest.mark.parametrize(
    ("kept_", "field"),
    [
        ([], "kept"),
        ([pb.KeptContent(digest=b"x", size=1)], "kept[0].digest"),
        ([pb.KeptContent(digest=b"x" * 16, size=2**40)], "kept"),
        ([pb.KeptContent(digest=b"x" * 16, size=1)] * 501, "kept"),
    ],
)
async def test_a_wrong_request_names_its_field(svc: Replica, kept_: list[pb.KeptContent], field: str) -> None:
    with refused("INVALID_FIELD") as outcome:
        await svc.turns.ReadParts(turn_service_pb2.ReadPartsRequest(session_id="s1", kept=kept_), timeout=60)
    assert [one.field for one in outcome.error.violations] == [field]


async def test_contents_of_a_session_that_is_not_there(svc: Replica) -> None:
    with refused("SESSION_NOT_FOUND"):
        await read(svc, A)


async def test_a_large_one_holds_up_no_turn_of_others(svc: Replica) -> None:
    large = b"data:image/png;base64," + b"A" * (16 * 1024 * 1024)
    begun = await svc.begin()
    commit = asyncio.create_task(svc.commit(begun, turn=turn_with(large), parts=[given(large)]))
    for _ in range(5):
        await svc.turn("other")
    await commit
    assert await part_bytes(svc) == len(large)


async def test_the_last_turn_that_is_deleted_takes_what_only_it_names(svc: Replica, client: "redis.Redis") -> None:
    await look(svc, A)
    await look(svc, A, B)
    for left in (len(A), 0):
        [*_, last] = await listed(svc, omit_parts=True)
        request = session_service_pb2.GetTurnRequest(session_id="s1", turn_id=last.id)
        found = (await svc.sessions.GetTurn(request)).turn
        assert not any(part.HasField("kept") for part in found.messages[0].parts), "it is shown whole"
        await svc.sessions.DeleteTurn(session_service_pb2.DeleteTurnRequest(session_id="s1", turn_id=last.id))
        assert await part_bytes(svc) == left
    assert not client.exists(KEY)
