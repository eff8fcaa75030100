"""The admin API of sessions over a real socket, with a scripted session_svc."""

import pytest

from parley.session.v1 import message_pb2 as message_pb
from parley.session.v1 import session_service_pb2 as session_pb
from servicekit.errors import Code, RemoteError
from tests.service.chat_gateway.http_edge.edge import Edge
from tests.service.chat_gateway.http_edge.samples import TIME, session

SESSION = {
    "object": "session",
    "running_completion_id": None,
    "id": "s:1",
    "agent_id": "support",
    "agent_uid": "u1",
    "user_id": "ann",
    "agent_revision": 2,
    "pinned_revision": 0,
    "turn_count": 1,
    "message_count": 2,
    "usage": {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "cached_tokens": 1,
        "reasoning_tokens": 2,
        "cache_write_tokens": 0,
    },
    "metadata": {"lang": "en"},
    "create_time": "2026-05-04T03:02:01Z",
    "last_activity_time": "2026-05-04T03:02:01Z",
    "expire_time": "2026-05-04T03:02:01Z",
    "idle_ttl": "1800s",
    "max_lifetime": "86400s",
}


async def test_sessions_are_listed_and_read(edge: Edge) -> None:
    edge.peers.answers["ListSessions"] = session_pb.ListSessionsResponse(sessions=[session()], next_page_token="n")
    edge.peers.answers["GetSession"] = session_pb.GetSessionResponse(session=session())
    listed = await edge.client.get("/v1/sessions", params={"agent_id": "support", "user_id": "ann", "page_size": 5})
    assert listed.json() == {"object": "list", "data": [SESSION], "next_page_token": "n"}
    request = edge.peers.asked("ListSessions")
    assert (request.agent_id, request.user_id, request.page_size) == ("support", "ann", 5)
    assert (await edge.client.get("/v1/sessions/s:1", headers={"X-User-ID": "ann"})).json() == SESSION
    assert edge.peers.asked("GetSession").user_id == "ann"
    assert edge.peers.asked("GetSession").id == "s:1"


async def test_a_session_id_may_look_like_a_verb(edge: Edge) -> None:
    edge.peers.answers["GetSession"] = session_pb.GetSessionResponse(session=session())
    edge.peers.answers["ForkSession"] = session_pb.ForkSessionResponse(session=session())
    await edge.client.get("/v1/sessions/a:fork")
    assert edge.peers.asked("GetSession").id == "a:fork"
    await edge.client.post("/v1/sessions/a:fork:fork", json={})
    assert edge.peers.asked("ForkSession").session_id == "a:fork"


async def test_two_users_in_one_request_are_refused(edge: Edge) -> None:
    answer = await edge.client.get("/v1/sessions", params={"user_id": "ann"}, headers={"X-User-ID": "bob"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "user_id")


@pytest.mark.parametrize(("order", "roles"), [("asc", ["user", "assistant"]), ("desc", ["assistant", "user"])])
async def test_messages_are_listed_in_either_order(edge: Edge, order: str, roles: list[str]) -> None:
    turn = message_pb.Turn(
        id="t1", number=1, agent_revision=2, begin_time=TIME, finish_reason=message_pb.FINISH_REASON_TOOL_CALLS
    )
    asked = turn.messages.add(role=message_pb.ROLE_USER, name="Ann")
    asked.parts.add(text="What is this?")
    asked.parts.add(image_url={"url": "https://x/y.png", "detail": "low"})
    turn.messages.add(role=message_pb.ROLE_ASSISTANT).tool_calls.add(id="c1", name="look", arguments="{}")
    edge.peers.answers["ListMessages"] = session_pb.ListMessagesResponse(turns=[turn])
    answer = await edge.client.get("/v1/sessions/s1/messages", params={"order": order, "page_size": 3})
    data = answer.json()["data"]
    assert [message["role"] for message in data] == roles
    shared = {
        "object": "session.message",
        "turn_number": 1,
        "turn_id": "t1",
        "create_time": "2026-05-04T03:02:01Z",
        "agent_revision": 2,
    }
    by_role = {message["role"]: message for message in data}
    assert by_role["user"] == shared | {
        "role": "user",
        "name": "Ann",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
        ],
    }
    assert by_role["assistant"] == shared | {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        "finish_reason": "tool_calls",
    }
    assert edge.peers.asked("ListMessages").page_size == 3


async def test_deleting_a_session_answers_204(edge: Edge) -> None:
    edge.peers.answers["DeleteSession"] = session_pb.DeleteSessionResponse()
    answer = await edge.client.delete("/v1/sessions/s1", headers={"X-User-ID": "ann"})
    assert (answer.status_code, answer.content) == (204, b"")
    request = edge.peers.asked("DeleteSession")
    assert (request.id, request.user_id, request.allow_missing) == ("s1", "ann", False)


async def test_patching_a_session_merges_its_metadata(edge: Edge) -> None:
    edge.peers.answers["GetSession"] = session_pb.GetSessionResponse(session=session())
    edge.peers.answers["UpdateSession"] = session_pb.UpdateSessionResponse(session=session())
    patch = {"metadata": {"lang": None, "tone": "kind"}, "idle_ttl": "60s", "pinned_revision": 1}
    answer = await edge.client.patch("/v1/sessions/s1", json=patch)
    assert answer.json() == SESSION
    request = edge.peers.asked("UpdateSession")
    assert request.update_mask.paths == ["metadata", "idle_ttl", "pinned_revision"]
    assert dict(request.session.metadata) == {"tone": "kind"}
    assert request.session.idle_ttl.seconds == 60
    assert request.session.pinned_revision == 1


async def test_forking_answers_201_with_the_new_session(edge: Edge) -> None:
    edge.peers.answers["ForkSession"] = session_pb.ForkSessionResponse(session=session(id="s2"))
    answer = await edge.client.post("/v1/sessions/s1:fork", json={"id": "s2", "up_to_turn": 4})
    assert (answer.status_code, answer.json()["id"]) == (201, "s2")
    assert answer.headers["location"] == "/v1/sessions/s2"
    request = edge.peers.asked("ForkSession")
    assert (request.session_id, request.new_session_id, request.up_to_turn) == ("s1", "s2", 4)


async def test_a_purge_goes_on_until_nothing_is_left(edge: Edge) -> None:
    late = RemoteError("late", code=Code.DEADLINE_EXCEEDED, reason="DEADLINE_EXCEEDED")
    deleted = [session_pb.DeleteSessionsResponse(deleted_count=count) for count in (500, 7, 0)]
    edge.peers.answers["DeleteSessions"] = [deleted[0], late, deleted[1], deleted[2]]
    answer = await edge.client.post("/v1/sessions:purge", json={"agent_id": "support", "idle_longer_than": "3600s"})
    assert answer.json() == {"deleted": 507}
    request = edge.peers.asked("DeleteSessions")
    assert (request.agent_id, request.idle_longer_than.seconds, request.fence_agent) == ("support", 3600, False)


async def test_a_purge_of_everything_is_refused(edge: Edge) -> None:
    answer = await edge.client.post("/v1/sessions:purge", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_field")
