"""SessionService over real gRPC and real Redis."""

from typing import Any

import pytest

from parley.session.v1 import session_service_pb2 as pb
from servicekit.errors import Code
from tests.service.session_svc.replica import UID, Replica, refused, seconds


def session(**fields: Any) -> pb.Session:
    return pb.Session(**({"id": "s1", "agent_id": "hello", "agent_uid": UID} | fields))


async def create(svc: Replica, **fields: Any) -> Any:
    return (await svc.sessions.CreateSession(pb.CreateSessionRequest(session=session(**fields)))).session


async def test_create_get_update_delete(svc: Replica) -> None:
    created = await create(svc, user_id="ann", metadata={"a": "b"}, idle_ttl=seconds(60))
    assert created.project == "default"
    assert created.expire_time.ToMilliseconds() - created.create_time.ToMilliseconds() == 60_000
    assert created.max_lifetime == seconds(86400)
    found = (await svc.sessions.GetSession(pb.GetSessionRequest(id="s1", user_id="ann"))).session
    assert found == created
    request = pb.UpdateSessionRequest(session=session(metadata={"c": "d"}, pinned_revision=3, idle_ttl=seconds(90)))
    request.update_mask.paths.extend(["metadata", "pinned_revision"])
    updated = (await svc.sessions.UpdateSession(request)).session
    assert (dict(updated.metadata), updated.pinned_revision, updated.idle_ttl) == ({"c": "d"}, 3, seconds(60))
    await svc.sessions.DeleteSession(pb.DeleteSessionRequest(id="s1"))
    with refused("SESSION_NOT_FOUND") as outcome:
        await svc.sessions.DeleteSession(pb.DeleteSessionRequest(id="s1"))
    assert outcome.error.code is Code.NOT_FOUND
    assert outcome.error.metadata == {"session_id": "s1"}
    await svc.sessions.DeleteSession(pb.DeleteSessionRequest(id="s1", allow_missing=True))


async def test_create_twice(svc: Replica) -> None:
    await create(svc)
    with refused("SESSION_ALREADY_EXISTS"):
        await create(svc)
    assert (await create(svc, id="")).id


async def test_another_user_gets_nothing(svc: Replica) -> None:
    await create(svc, user_id="ann")
    with refused("SESSION_NOT_FOUND"):
        await svc.sessions.GetSession(pb.GetSessionRequest(id="s1", user_id="bob"))
    with refused("SESSION_NOT_FOUND"):
        await svc.sessions.ListMessages(pb.ListMessagesRequest(session_id="s1", user_id="bob"))
    with refused("SESSION_NOT_FOUND"):
        await svc.sessions.DeleteSession(pb.DeleteSessionRequest(id="s1", user_id="bob"))
    await svc.sessions.DeleteSession(pb.DeleteSessionRequest(id="s1", user_id="bob", allow_missing=True))
    await svc.sessions.GetSession(pb.GetSessionRequest(id="s1", user_id="ann"))
    with refused("SESSION_NOT_FOUND"):
        await svc.sessions.GetSession(pb.GetSessionRequest(id="s1", project="other"))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": "a b"}, "session.id"),
        ({"agent_id": ""}, "session.agent_id"),
        ({"agent_uid": ""}, "session.agent_uid"),
        ({"user_id": "a b"}, "session.user_id"),
        ({"idle_ttl": seconds(0.1)}, "session.idle_ttl"),
        ({"max_lifetime": seconds(91 * 86400)}, "session.max_lifetime"),
        ({"pinned_revision": -1}, "session.pinned_revision"),
        ({"metadata": {f"k{n}": "v" for n in range(65)}}, "session.metadata"),
        ({"metadata": {"k": "v" * 513}}, "session.metadata[k]"),
    ],
)
async def test_create_names_the_broken_field(svc: Replica, fields: dict[str, Any], named: str) -> None:
    with refused("INVALID_FIELD") as outcome:
        await create(svc, **fields)
    assert [violation.field for violation in outcome.error.violations] == [named]


@pytest.mark.parametrize("paths", [[], ["agent_id"], ["metadata", "user_id"]])
async def test_update_of_what_can_not_be_changed(svc: Replica, paths: list[str]) -> None:
    await create(svc)
    request = pb.UpdateSessionRequest(session=session())
    request.update_mask.paths.extend(paths)
    with refused("INVALID_FIELD") as outcome:
        await svc.sessions.UpdateSession(request)
    assert {violation.field for violation in outcome.error.violations} == {"update_mask"}


async def test_list_by_pages(svc: Replica) -> None:
    for n in range(5):
        await create(svc, id=f"s{n}", user_id="ann" if n % 2 else "bob")
    found: list[str] = []
    request = pb.ListSessionsRequest(agent_id="hello", page_size=2)
    while True:
        page = await svc.sessions.ListSessions(request)
        assert len(page.sessions) <= 2
        found += [listed.id for listed in page.sessions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert sorted(found) == [f"s{n}" for n in range(5)]
    by_user = await svc.sessions.ListSessions(pb.ListSessionsRequest(user_id="ann"))
    assert sorted(listed.id for listed in by_user.sessions) == ["s1", "s3"]


async def test_a_page_token_belongs_to_its_query(svc: Replica) -> None:
    for n in range(3):
        await create(svc, id=f"s{n}")
    token = (await svc.sessions.ListSessions(pb.ListSessionsRequest(page_size=1))).next_page_token
    for request in (
        pb.ListSessionsRequest(agent_id="hello", page_token=token),
        pb.ListSessionsRequest(project="other", page_token=token),
        pb.ListSessionsRequest(page_token="garbage"),
        pb.ListSessionsRequest(page_token=token + "x"),
    ):
        with refused("INVALID_PAGE_TOKEN"):
            await svc.sessions.ListSessions(request)
    with refused("INVALID_PAGE_TOKEN"):
        await svc.sessions.ListMessages(pb.ListMessagesRequest(session_id="s0", page_token=token))


@pytest.mark.parametrize("order", [pb.ORDER_UNSPECIFIED, pb.ORDER_OLDEST_FIRST, pb.ORDER_NEWEST_FIRST])
async def test_messages_by_pages(svc: Replica, order: Any) -> None:
    for n in range(7):
        await svc.turn(text=str(n))
    numbers: list[int] = []
    request = pb.ListMessagesRequest(session_id="s1", page_size=3, order=order)
    while True:
        page = await svc.sessions.ListMessages(request)
        numbers += [turn.number for turn in page.turns]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    ascending = list(range(1, 8))
    assert numbers == (ascending[::-1] if order == pb.ORDER_NEWEST_FIRST else ascending)


async def test_a_page_of_large_turns_stays_below_the_message_limit(svc: Replica) -> None:
    for n in range(9):
        await svc.turn(text=str(n) + "x" * 1000 * 1024)
    found: list[str] = []
    request = pb.ListMessagesRequest(session_id="s1", page_size=100)
    while True:
        page = await svc.sessions.ListMessages(request)
        assert page.ByteSize() < 5 * 1024 * 1024
        found += [turn.messages[0].content[0] for turn in page.turns]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == [str(n) for n in range(9)]


async def test_bulk_deletion(svc: Replica) -> None:
    for n in range(3):
        await create(svc, id=f"s{n}", user_id="ann" if n else "")
    await create(svc, id="other", agent_id="other", agent_uid="uid-2")
    request = pb.DeleteSessionsRequest(agent_id="hello", user_id="ann")
    assert (await svc.sessions.DeleteSessions(request)).deleted_count == 2
    assert (await svc.sessions.DeleteSessions(request)).deleted_count == 0
    idle = pb.DeleteSessionsRequest(idle_longer_than=seconds(0))
    assert (await svc.sessions.DeleteSessions(idle)).deleted_count == 2


@pytest.mark.parametrize(
    "fields",
    [{}, {"agent_uid": UID}, {"agent_id": "hello", "fence_agent": True}, {"idle_longer_than": seconds(-1)}],
)
async def test_bulk_deletion_must_name_what(svc: Replica, fields: dict[str, Any]) -> None:
    with refused("INVALID_FIELD"):
        await svc.sessions.DeleteSessions(pb.DeleteSessionsRequest(**fields))


async def test_fork(svc: Replica) -> None:
    for n in range(3):
        await svc.turn(text=str(n))
    request = pb.ForkSessionRequest(session_id="s1", new_session_id="s2", up_to_turn=2)
    forked = (await svc.sessions.ForkSession(request)).session
    assert (forked.id, forked.turn_count) == ("s2", 2)
    await svc.turn("s2", "other way")
    page = await svc.sessions.ListMessages(pb.ListMessagesRequest(session_id="s2"))
    assert [(turn.number, turn.messages[0].content) for turn in page.turns] == [(1, "0"), (2, "1"), (3, "other way")]
    with refused("SESSION_ALREADY_EXISTS"):
        await svc.sessions.ForkSession(request)
    assert (await svc.sessions.ForkSession(pb.ForkSessionRequest(session_id="s1"))).session.turn_count == 3


async def test_export_and_erase_of_a_user(svc: Replica) -> None:
    for name in ("s1", "s2"):
        for n in range(60):
            await svc.turn(name, f"{name} {n}", user_id="ann")
    await svc.turn("bobs", user_id="bob")
    exported: dict[str, list[str]] = {}
    async for item in svc.sessions.ExportUser(pb.ExportUserRequest(user_id="ann")):
        if item.HasField("session"):
            current = exported.setdefault(item.session.id, [])
        else:
            current.append(item.turn.messages[0].content)
    assert exported == {name: [f"{name} {n}" for n in range(60)] for name in ("s1", "s2")}
    receipt = await svc.sessions.EraseUser(pb.EraseUserRequest(user_id="ann"))
    assert (receipt.session_count, receipt.turn_count) == (2, 120)
    assert receipt.erase_time.seconds
    assert [item async for item in svc.sessions.ExportUser(pb.ExportUserRequest(user_id="ann"))] == []
    left = await svc.sessions.ListSessions(pb.ListSessionsRequest())
    assert [listed.id for listed in left.sessions] == ["bobs"]
    with refused("INVALID_FIELD"):
        await svc.sessions.EraseUser(pb.EraseUserRequest())
