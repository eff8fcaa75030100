"""The audit log: on both stores."""

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from access.caller import KEY_SCOPES
from config_svc.access.api_keys import ApiKeys
from config_svc.access.projects import Projects
from config_svc.agents.configs import AgentConfigs
from config_svc.agents.templates import Templates
from config_svc.audit.log import AuditLog
from config_svc.model.agent import AgentLimits
from config_svc.model.audit import AuditEvent, AuditQuery
from config_svc.model.errors import AgentAlreadyExists, AgentNotFound, EtagMismatch, TemplateConflict
from config_svc.model.note import Note
from config_svc.model.template import Template
from config_svc.ports.store import Store, Transaction
from config_svc.sweep import Sweep
from servicekit.errors import InvalidArgument, Unavailable
from tests.contract.config_svc.conftest import Clock, calling, spec, wanted_key

P = "mine"


async def events(audit: AuditLog, project: str = P, *, size: int = 0, **query: Any) -> list[AuditEvent]:
    """All events, newest first, by pages."""
    found: list[AuditEvent] = []
    token = ""
    while True:
        page, token = await audit.list(AuditQuery(project, **query), size=size, token=token)
        found += page
        if not token:
            return found


def audited(clock: Clock, **fields: Any) -> AuditEvent:
    """An event of another service."""
    given = {
        "project": P,
        "actor": "key_1",
        "action": "sessions.delete",
        "resource": "sessions/s1",
        "time": clock(),
        "event_id": str(uuid.uuid4()),
        **fields,
    }
    return AuditEvent(**given)


async def test_every_write_says_who_what_and_when_from_what_to_what(
    agents: AgentConfigs, audit: AuditLog, clock: Clock
) -> None:
    with calling(id="token:ann", user_id="ann", request_id="r-1", source="http", scopes=KEY_SCOPES):
        made = await agents.create(P, "a", spec(limits=AgentLimits(turn_timeout=timedelta(seconds=90))))
        clock.advance(seconds=1)
        changed = await agents.update(P, "a", spec(display_name="A"), ["display_name"])
        await agents.rollback(P, "a", 1)
        await agents.delete(P, "a")
        await agents.undelete(P, made.uid, "b")
    found = await events(audit)
    assert [event.action for event in found] == [
        f"agent_configs.{verb}" for verb in ("undelete", "delete", "rollback", "update", "create")
    ]
    assert {(one.actor, one.user_id, one.request_id, one.source) for one in found} == {
        ("token:ann", "ann", "r-1", "http")
    }
    assert [one.resource for one in found] == ["agent_configs/b", *["agent_configs/a"] * 4]
    create, update = found[4], found[3]
    assert create.before is None
    assert create.after is not None
    assert create.after["limits"] == {"turn_timeout": "90s"}
    assert create.after["uid"] == made.uid
    assert update.time == changed.update_time == create.time + timedelta(seconds=1)
    assert update.before == create.after
    assert update.after == {**create.after, "display_name": "A", "revision": 2}
    assert found[1].after is None


async def test_what_was_not_written_is_not_in_the_log(agents: AgentConfigs, audit: AuditLog) -> None:
    made = await agents.create(P, "a", spec())
    await agents.create(P, "b", spec(), validate_only=True)
    await agents.update(P, "a", spec(), ["model"])
    await agents.update(P, "a", spec(display_name="A"), ["display_name"], validate_only=True)
    with pytest.raises(AgentAlreadyExists):
        await agents.create(P, "a", spec())
    with pytest.raises(EtagMismatch):
        await agents.delete(P, "a", etag="stale")
    await agents.undelete(P, made.uid)
    assert [event.action for event in await events(audit)] == ["agent_configs.create"]


@pytest.mark.parametrize("failing", ["record", "announce"])
async def test_an_event_and_its_write_stand_or_fall_together(
    agents: AgentConfigs, audit: AuditLog, store: Store, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    async def kind(transaction: Transaction) -> type[Transaction]:
        return type(transaction)

    async def fail(*_: object) -> None:
        raise Unavailable("db")

    with monkeypatch.context() as broken:
        broken.setattr(await store.transact(kind), failing, fail)
        with pytest.raises(Unavailable):
            await agents.create(P, "a", spec())
    assert await events(audit) == []
    with pytest.raises(AgentNotFound):
        await agents.get(P, "a")


async def test_projects_keys_and_templates_are_in_the_log(
    projects: Projects, keys: ApiKeys, store: Store, audit: AuditLog, clock: Clock
) -> None:
    await projects.create("new", "New")
    made, text = await keys.create(wanted_key(project="new", expire_time=clock() + timedelta(days=1)))
    new, second, _ = await keys.rotate("new", made.id, timedelta(hours=1))
    await keys.revoke("new", new.id)
    await projects.delete("new")
    found = await events(audit, "new")
    assert [event.action for event in found] == [
        "api_keys.revoke",
        "projects.delete",
        "api_keys.revoke",
        "api_keys.rotate",
        "api_keys.create",
        "api_keys.create",
        "projects.create",
    ]
    assert [found[0].resource, found[2].resource] == [f"api_keys/{made.id}", f"api_keys/{new.id}"]
    assert text not in repr(found)
    assert second not in repr(found)
    rotated = found[3]
    assert rotated.before is not None
    assert rotated.after is not None
    assert rotated.before["expire_time"] != rotated.after["expire_time"]
    templates = Templates(store, clock=clock)
    template = Template("shop", "1.0.0", "", {"type": "object"}, clock())
    await templates.publish(template)
    await templates.publish(template)
    with pytest.raises(TemplateConflict):
        await templates.publish(replace(template, description="other"))
    assert [event.resource for event in await events(audit, "default")] == ["templates/shop/versions/1.0.0"]


async def test_what_nobody_asked_for_is_of_the_service_itself(
    agents: AgentConfigs, audit: AuditLog, sweep: Sweep, clock: Clock
) -> None:
    await agents.create(P, "a", spec())
    await agents.delete(P, "a")
    clock.advance(days=31)
    await sweep.once()
    purged = (await events(audit))[0]
    assert (purged.action, purged.actor, purged.source) == (
        "agent_configs.purge",
        "service:config_svc",
        "config_svc",
    )


async def test_authors_of_revisions_are_the_callers(agents: AgentConfigs) -> None:
    await agents.create(P, "a", spec(), note=Note("key_1", "why"))
    _, revisions, _ = await agents.revisions(P, "a", size=0, token="")
    assert [(one.author, one.comment) for one in revisions] == [("key_1", "why")]


async def test_states_are_bounded_and_say_what_is_left_out(
    agents: AgentConfigs, audit: AuditLog, store: Store, clock: Clock
) -> None:
    large = {f"p{number}": "x" * 1000 for number in range(60)}
    await agents.create(P, "a", spec(instructions="i" * 65_000, parameters=large, labels={"a": "b"}))
    (event,) = await events(audit)
    assert event.after is not None
    assert event.after["instructions"] == {"left_out_bytes": 65_002}
    assert event.after["labels"] == {"a": "b"}
    assert event.after["parameters"] == large
    many = {f"k{number}": "x" * 100 for number in range(2000)}
    await audit.record(audited(clock, before=many))
    assert 200_000 < (await events(audit))[0].before["left_out_bytes"] < 250_000  # type: ignore[index, operator]


async def test_ids_grow_and_pages_stay_while_events_are_added(audit: AuditLog, clock: Clock) -> None:
    for number in range(9):
        await audit.record(audited(clock, resource=f"sessions/{number}"))
        clock.advance(milliseconds=number % 2)
    first, token = await audit.list(AuditQuery(P), size=4, token="")
    await audit.record(audited(clock, resource="sessions/later"))
    second, token = await audit.list(AuditQuery(P), size=4, token=token)
    third, end = await audit.list(AuditQuery(P), size=4, token=token)
    whole = [*first, *second, *third]
    assert end == ""
    assert [event.resource for event in whole] == [f"sessions/{number}" for number in range(8, -1, -1)]
    ids = [event.id for event in whole]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 9


async def test_the_log_is_filtered(audit: AuditLog, clock: Clock) -> None:
    start = clock()
    for number in range(6):
        await audit.record(audited(clock, actor=f"key_{number % 2}", resource=f"sessions/{number % 3}"))
        clock.advance(seconds=1)

    async def found(**query: Any) -> list[str]:
        return [f"{event.actor} {event.resource}" for event in await events(audit, size=2, **query)]

    assert await found(actor="key_1") == ["key_1 sessions/2", "key_1 sessions/0", "key_1 sessions/1"]
    assert await found(resource="sessions/0") == ["key_1 sessions/0", "key_0 sessions/0"]
    assert await found(actor="key_0", resource="sessions/1") == ["key_0 sessions/1"]
    assert await found(start=start + timedelta(seconds=1), end=start + timedelta(seconds=3)) == [
        "key_0 sessions/2",
        "key_1 sessions/1",
    ]
    assert await found(actor="nobody") == []
    assert await events(audit, "other") == []


async def test_another_services_event_is_added_once(audit: AuditLog, clock: Clock) -> None:
    event = audited(clock, before={"user_id": "ann", "n": [1, 0.5, None]}, source="http", user_id="ann", request_id="r")
    await audit.record(event)
    clock.advance(hours=1)
    await audit.record(event)
    await audit.record(replace(event, event_id=str(event.event_id).upper(), actor="somebody else"))
    (found,) = await events(audit)
    assert (found.actor, found.before, found.after, found.user_id) == ("key_1", event.before, None, "ann")
    assert found.time == clock() - timedelta(hours=1), "it is the time of the telling"
    await audit.record(audited(clock, project="nowhere"))
    assert len(await events(audit, "nowhere")) == 1, "what is done to the rest of a project that is gone is told too"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"event_id": "1"}, "id"),
        ({"project": "No"}, "project"),
        ({"actor": ""}, "actor"),
        ({"action": "delete"}, "action"),
        ({"action": "a.b\0"}, "action"),
        ({"resource": "x" * 513}, "resource"),
        ({"request_id": "\0"}, "request_id"),
        ({"source": "x" * 65}, "source"),
        ({"user_id": "a b"}, "user_id"),
        ({"before": {"a": float("nan")}}, "before"),
        ({"after": {"a": "\0"}}, "after"),
    ],
)
async def test_rules_of_events(audit: AuditLog, clock: Clock, wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await audit.record(audited(clock, **wrong))
    assert {violation.field for violation in caught.value.violations} == {f"audit_event.{field}"}


async def test_a_user_is_taken_out_wherever_it_stands(
    store: Store, agents: AgentConfigs, keys: ApiKeys, clock: Clock
) -> None:
    audit = AuditLog(store, clock=clock, events_per_step=2)
    await audit.record(audited(clock, actor="token:ann", user_id="ann", resource="sessions/s1"))
    await audit.record(
        audited(clock, resource="users/ann", before={"sessions": [{"user_id": "ann"}, {"user_id": "bob"}]})
    )
    await audit.record(audited(clock, resource="users/ann/sessions", after={"deep": {"user_id": "ann", "n": 1}}))
    await audit.record(audited(clock, resource="users/annette", user_id="annette", before={"user_id": "annette"}))
    await audit.record(audited(clock, resource="agent_configs/ann", after={"id": "ann", "name": "ann"}))
    await audit.record(audited(clock, project="other", user_id="ann"))
    await keys.create(wanted_key(user_id="ann"))
    with calling(id="token:ann"):
        await agents.create(P, "a", spec(), note=Note("token:ann"))
    before = await events(audit)
    assert await audit.erase(P, "ann") == 5
    after = await events(audit)
    assert [(one.id, one.time, one.action) for one in after] == [(one.id, one.time, one.action) for one in before]
    agent, key, _, annette, sessions, user, turn = after
    pseudonym = turn.user_id
    assert pseudonym.startswith("erased-")
    assert len(pseudonym) == 39
    assert (turn.actor, agent.actor) == (f"token:{pseudonym}", f"token:{pseudonym}")
    assert (user.resource, sessions.resource) == (f"users/{pseudonym}", f"users/{pseudonym}/sessions")
    assert user.before == {"sessions": [{"user_id": pseudonym}, {"user_id": "bob"}]}
    assert sessions.after == {"deep": {"user_id": pseudonym, "n": 1}}
    assert key.after is not None
    assert key.after["user_id"] == pseudonym
    assert annette.user_id == "annette"
    others = {"agent_configs/ann"}
    assert not [one for one in after if one.resource not in others and "ann" in repr(one).replace("annette", "")]
    _, revisions, _ = await agents.revisions(P, "a", size=0, token="")
    assert revisions[0].author == f"token:{pseudonym}"
    assert [one.user_id for one in await events(audit, "other")] == ["ann"]
    assert await audit.erase(P, "ann") == 0
    await audit.record(audited(clock, user_id="ann"))
    assert await audit.erase(P, "ann") == 1
    again = (await events(audit))[0].user_id
    assert again != pseudonym, "nobody, with whatever secret, can make it from the user's id"
    for wrong in ("", "a b"):
        with pytest.raises(InvalidArgument):
            await audit.erase(P, wrong)


async def test_the_id_of_a_user_can_hold_a_slash(audit: AuditLog, clock: Clock) -> None:
    await audit.record(audited(clock, resource="users/a/b"))
    await audit.record(audited(clock, resource="users/a/bc"))
    assert await audit.erase(P, "a/b") == 1
    assert (await events(audit))[0].resource == "users/a/bc"


async def test_events_are_kept_for_their_retention(audit: AuditLog, sweep: Sweep, clock: Clock) -> None:
    await audit.record(audited(clock, resource="sessions/old"))
    clock.advance(days=300)
    await audit.record(audited(clock, resource="sessions/new"))
    clock.advance(days=100)
    await sweep.once()
    assert len(await events(audit)) == 2
    clock.advance(seconds=1)
    await sweep.once()
    assert [one.resource for one in await events(audit)] == ["sessions/new"]
