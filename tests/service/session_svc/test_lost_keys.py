"""Each key of a session gone, of a wrong type, cut short or full of garbage: answered by name, and no other is hurt."""

from collections.abc import Iterator

import pytest
import redis

from parley.session.v1 import session_service_pb2 as pb
from tests.service.session_svc.damage import DAMAGES, outcome
from tests.service.session_svc.replica import Replica

PARTS = ("meta", "turns", "replay", "queue", "journal")
REQUEST = {"request_id": "r1", "request_digest": b"d", "user_id": "ann"}


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", PARTS)
async def test_damage_is_named_and_stays_with_its_session(
    svc: Replica, client: "redis.Redis", part: str, damage: str
) -> None:
    for session in ("s1", "s2"):
        await svc.turn(session, text="one", user_id="ann")
        begun = await svc.begin(session, **REQUEST)
        await svc.commit(begun, request_id="r1", request_digest=b"d")
    DAMAGES[damage](client, f"{{default:s1}}:{part}")
    allowed = {"OK", "TURN_DAMAGED", "SESSION_NOT_FOUND"}
    repeated = await outcome(svc.begin("s1", **REQUEST))
    assert repeated in allowed | {"SESSION_BUSY"}
    if part == "meta" and damage == "deleted":  # gone whole: whoever comes begins anew
        assert repeated == "OK"
    for call in (
        svc.sessions.GetSession(pb.GetSessionRequest(id="s1")),
        svc.said("s1"),
        svc.sessions.ForkSession(pb.ForkSessionRequest(session_id="s1", new_session_id="s9")),
    ):
        assert await outcome(call) in allowed
    for fields in ({}, {"user_id": "ann"}, {"agent_id": "hello"}):
        page = await svc.sessions.ListSessions(pb.ListSessionsRequest(**fields))
        assert "s2" in {session.id for session in page.sessions}
    await svc.turn("s2", text="two", user_id="ann")
    assert (await svc.said("s2"))[-1] == "two"
    await svc.sessions.EraseUser(pb.EraseUserRequest(user_id="ann"))
    await svc.sessions.DeleteSession(pb.DeleteSessionRequest(id="s1", allow_missing=True))
    await svc.turn("s1", text="anew", user_id="ann")
    assert await svc.said("s1") == ["anew"]


async def test_a_repeat_whose_stored_outcome_was_evicted_is_damage_and_no_second_turn(
    svc: Replica, client: "redis.Redis"
) -> None:
    begun = await svc.begin("s1", **REQUEST)
    await svc.commit(begun, request_id="r1", request_digest=b"d")
    client.delete("{default:s1}:replay")
    repeated = await outcome(svc.begin("s1", **REQUEST))
    assert repeated == "TURN_DAMAGED", "nobody knows whether it ran: a second run would be told as the first"
