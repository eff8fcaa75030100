"""Create, update, delete, undelete, rollback: on both stores."""

import asyncio
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import FrameType
from typing import Any

import pytest

from config_svc.agents.configs import AgentConfigs
from config_svc.model.agent import AgentLimits, AgentSpec, MemoryPolicy, ModelConfig, SessionPolicy
from config_svc.model.errors import (
    AgentAlreadyExists,
    AgentNotFound,
    EtagMismatch,
    IdempotencyKeyReused,
    RevisionNotFound,
)
from config_svc.model.note import Note
from config_svc.model.rules import canonical
from config_svc.model.spec_json import encode_spec
from config_svc.model.template import Template
from config_svc.ports.store import Store
from config_svc.sweep import purge
from tests.contract.config_svc.conftest import RETENTION, Clock, publish, spec

P = "default"


async def test_everything_that_can_be_written_comes_back_as_it_was(agents: AgentConfigs) -> None:
    full = AgentSpec(
        display_name="Süpport 🙂",
        template_id="assistant",
        template_version="1.0.0",
        parameters={"company": "A", "n": [1, 1.5, True, None, {"deep": -0.25}, 1e300, 5e-324, 2**53], "1": {}},
        instructions="You answer for {{company}}.\n\t\\u0000 \ud7ff",
        model=ModelConfig("p", "m", 0.0, 1.0, 1, ("a", "b"), -(2**63), -2.0, 2.0),
        memory=MemoryPolicy(0),
        session=SessionPolicy(timedelta(seconds=1, microseconds=5), timedelta(days=90)),
        limits=AgentLimits(1, timedelta(hours=1)),
        labels={"a": "", "b.c/d": "x" * 256},
    )
    created = await agents.create(P, "full", full)
    assert created.spec == full
    got = await agents.get(P, "full")
    assert got == created
    assert canonical(got.spec.parameters) == canonical(full.parameters), "True must not come back as 1"
    assert (await agents.get(P, "full", revision=1)) == created


async def test_an_id_that_is_left_out_is_made(agents: AgentConfigs) -> None:
    first, second = await agents.create(P, "", spec()), await agents.create(P, "", spec())
    assert first.id != second.id
    assert await agents.get(P, first.id) == first


async def test_an_id_is_taken_within_its_project_only(agents: AgentConfigs) -> None:
    await agents.create(P, "a", spec())
    with pytest.raises(AgentAlreadyExists):
        await agents.create(P, "a", spec())
    other = await agents.create("other", "a", spec(display_name="other"))
    assert (await agents.get("other", "a")) == other
    assert (await agents.get(P, "a")).spec.display_name == ""
    with pytest.raises(AgentNotFound):
        await agents.delete("third", "a")
    with pytest.raises(AgentNotFound):
        await agents.undelete("other", (await agents.get(P, "a")).uid)


async def test_updates_number_revisions_and_keep_each(agents: AgentConfigs, clock: Clock) -> None:
    first = await agents.create(P, "a", spec(), note=Note("", "made"))
    clock.advance(seconds=1)
    change = spec(display_name="A", labels={"x": "1"}, model=ModelConfig("local", "small", temperature=0.5))
    second = await agents.update(P, "a", change, ["display_name", "labels", "model"], note=Note("", "why"))
    assert (second.revision, second.create_time, second.update_time) == (2, first.create_time, clock())
    assert second.etag != first.etag
    assert await agents.get(P, "a", revision=1) == first
    _, revisions, token = await agents.revisions(P, "a", size=0, token="")
    assert token == ""
    assert [(one.number, one.comment) for one in revisions] == [(2, "why"), (1, "made")]
    assert revisions[0].changed_fields == ("display_name", "model.temperature", "labels")
    assert revisions[1].changed_fields == ()
    with pytest.raises(RevisionNotFound):
        await agents.get(P, "a", revision=3)


async def test_changing_nothing_makes_no_revision(agents: AgentConfigs) -> None:
    created = await agents.create(P, "a", spec(parameters={"company": "A"}))
    assert await agents.update(P, "a", spec(parameters={"company": "A"}), ["parameters", "model"]) == created
    assert await agents.update(P, "a", spec(), ["revision", "uid", "id"]) == created
    assert await agents.rollback(P, "a", 1) == created


async def test_true_is_another_value_than_one(agents: AgentConfigs) -> None:
    await agents.create(P, "a", spec(parameters={"flag": 1}))
    changed = await agents.update(P, "a", spec(parameters={"flag": True}), ["parameters"])
    assert changed.revision == 2


async def test_a_stale_etag_is_refused_by_every_write(agents: AgentConfigs) -> None:
    first = await agents.create(P, "a", spec())
    second = await agents.update(P, "a", spec(display_name="A"), ["display_name"], etag=first.etag)
    for write in (
        agents.update(P, "a", spec(display_name="B"), ["display_name"], etag=first.etag),
        agents.rollback(P, "a", 1, etag=first.etag),
        agents.delete(P, "a", etag=first.etag),
    ):
        with pytest.raises(EtagMismatch):
            await write
    assert await agents.get(P, "a") == second
    assert await agents.delete(P, "a", etag=second.etag)


async def test_concurrent_updates_without_etag_all_happen(agents: AgentConfigs) -> None:
    await agents.create(P, "a", spec())
    labels = [f"l{number}" for number in range(10)]
    await asyncio.gather(*(agents.update(P, "a", spec(labels={one: "x"}), [f"labels.{one}"]) for one in labels))
    after = await agents.get(P, "a")
    assert after.revision == 11
    assert set(after.spec.labels) == set(labels)


async def test_of_concurrent_updates_with_one_etag_one_wins(agents: AgentConfigs) -> None:
    etag = (await agents.create(P, "a", spec())).etag
    outcomes = await asyncio.gather(
        *(agents.update(P, "a", spec(display_name=f"n{n}"), ["display_name"], etag=etag) for n in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, EtagMismatch) for outcome in outcomes) == 7
    assert (await agents.get(P, "a")).revision == 2


async def test_of_concurrent_creates_of_one_id_one_wins(agents: AgentConfigs) -> None:
    outcomes = await asyncio.gather(*(agents.create(P, "a", spec()) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(outcome, AgentAlreadyExists) for outcome in outcomes) == 7


async def test_validate_only_stores_nothing(agents: AgentConfigs, store: Store) -> None:
    would = await agents.create(P, "a", spec(), validate_only=True)
    assert (would.uid, would.revision, would.spec.template_version) == ("", 1, "1.0.0")
    with pytest.raises(AgentNotFound):
        await agents.get(P, "a")
    created = await agents.create(P, "a", spec())
    with pytest.raises(AgentAlreadyExists):
        await agents.create(P, "a", spec(), validate_only=True)
    would = await agents.update(P, "a", spec(display_name="A"), ["display_name"], validate_only=True)
    assert (would.revision, would.spec.display_name) == (2, "A")
    assert await agents.get(P, "a") == created
    assert len(await store.changes(0, 10)) == 1


async def test_a_request_id_replays_the_first_outcome(agents: AgentConfigs, clock: Clock, store: Store) -> None:
    request_id = str(uuid.uuid4())
    first = await agents.create(P, "", spec(), request_id=request_id)
    await agents.update(P, first.id, spec(display_name="later"), ["display_name"])
    assert await agents.create(P, "", spec(), request_id=request_id.upper()) == first
    await agents.delete(P, first.id)
    assert await agents.create(P, "", spec(), request_id=request_id) == first
    with pytest.raises(IdempotencyKeyReused):
        await agents.create(P, "", spec(display_name="other"), request_id=request_id)
    elsewhere = await agents.create("other", "", spec(display_name="other"), request_id=request_id)
    assert elsewhere.uid != first.uid
    clock.advance(hours=24, seconds=1)
    assert (await agents.create(P, "", spec(), request_id=request_id)).uid != first.uid
    clock.advance(hours=25)
    assert await store.forget_claims(clock() - timedelta(hours=24)) == 2


async def test_a_failed_create_does_not_use_up_its_request_id(agents: AgentConfigs) -> None:
    request_id = str(uuid.uuid4())
    taken = await agents.create(P, "a", spec())
    with pytest.raises(AgentAlreadyExists):
        await agents.create(P, "a", spec(), request_id=request_id)
    await agents.delete(P, "a", etag=taken.etag)
    assert (await agents.create(P, "a", spec(), request_id=request_id)).uid != taken.uid


async def test_concurrent_creates_with_one_request_id_make_one(agents: AgentConfigs, store: Store) -> None:
    request_id = str(uuid.uuid4())
    made = await asyncio.gather(*(agents.create(P, "", spec(), request_id=request_id) for _ in range(6)))
    assert len({one.uid for one in made}) == 1
    assert len(await store.changes(0, 10)) == 1


async def test_delete_frees_the_id_at_once(agents: AgentConfigs, clock: Clock) -> None:
    first = await agents.create(P, "a", spec())
    deleted = await agents.delete(P, "a")
    assert deleted is not None
    assert (deleted.delete_time, deleted.purge_time) == (clock(), clock() + RETENTION)
    with pytest.raises(AgentNotFound):
        await agents.get(P, "a")
    with pytest.raises(AgentNotFound):
        await agents.get(P, "a", uid=first.uid)
    with pytest.raises(AgentNotFound):
        await agents.update(P, "a", spec(display_name="x"), ["display_name"])
    second = await agents.create(P, "a", spec())
    assert second.uid != first.uid
    assert second.revision == 1
    with pytest.raises(AgentNotFound):
        await agents.get(P, "a", uid=first.uid)
    assert await agents.get(P, "a", uid=second.uid.upper()) == second


async def test_delete_with_allow_missing_answers_the_newest_deleted(agents: AgentConfigs, clock: Clock) -> None:
    assert await agents.delete(P, "a", allow_missing=True) is None
    assert await agents.delete(P, "NO\0ID", allow_missing=True) is None
    for _ in range(2):
        await agents.create(P, "a", spec())
        last = await agents.delete(P, "a", allow_missing=True)
        clock.advance(seconds=1)
    assert await agents.delete(P, "a", allow_missing=True, etag="stale") == last
    with pytest.raises(AgentNotFound):
        await agents.delete(P, "a")
    clock.advance(days=31)
    assert await agents.delete(P, "a", allow_missing=True) is None


async def test_undelete_brings_back_id_uid_and_revisions(agents: AgentConfigs) -> None:
    first = await agents.create(P, "a", spec())
    second = await agents.update(P, "a", spec(display_name="A"), ["display_name"])
    await agents.delete(P, "a")
    back = await agents.undelete(P, first.uid)
    assert back == second
    assert await agents.undelete(P, first.uid) == second, "safe to retry"
    assert await agents.get(P, "a", revision=1) == first
    with pytest.raises(AgentAlreadyExists):
        await agents.undelete(P, first.uid, "b")


async def test_undelete_needs_another_id_where_its_own_is_taken(agents: AgentConfigs) -> None:
    old = await agents.create(P, "a", spec())
    await agents.delete(P, "a")
    new = await agents.create(P, "a", spec())
    with pytest.raises(AgentAlreadyExists):
        await agents.undelete(P, old.uid)
    back = await agents.undelete(P, old.uid, "b")
    assert (back.uid, back.id) == (old.uid, "b")
    assert await agents.get(P, "b") == back
    assert await agents.get(P, "a") == new


async def test_what_is_past_its_retention_is_gone(agents: AgentConfigs, clock: Clock, store: Store) -> None:
    old = await agents.create(P, "a", spec(), request_id=str(uuid.uuid4()))
    kept = await agents.create(P, "b", spec())
    await agents.delete(P, "a")
    assert await purge(store, clock(), 10) == 0
    clock.advance(days=30)
    with pytest.raises(AgentNotFound):
        await agents.undelete(P, old.uid)
    assert await purge(store, clock(), 10) == 1
    assert await purge(store, clock(), 10) == 0
    assert await store.revisions(old.uid, None, 10) == []
    assert await agents.get(P, "b") == kept


async def test_rollback_makes_a_new_revision_of_an_old_content(agents: AgentConfigs) -> None:
    await agents.create(P, "a", spec(display_name="one"))
    await agents.update(P, "a", spec(display_name="two"), ["display_name"])
    back = await agents.rollback(P, "a", 1, note=Note("", "back"))
    assert (back.revision, back.spec.display_name) == (3, "one")
    with pytest.raises(RevisionNotFound):
        await agents.rollback(P, "a", 9)
    with pytest.raises(AgentNotFound):
        await agents.rollback(P, "b", 1)


async def test_a_template_version_is_kept_until_it_is_asked_to_change(
    agents: AgentConfigs, store: Store, clock: Clock
) -> None:
    await agents.create(P, "a", spec())
    schema: dict[str, Any] = {"type": "object", "required": ["company"]}
    await publish(store, Template("assistant", "1.10.0", "", schema, clock()))
    await publish(store, Template("assistant", "1.9.0", "", schema, clock()))
    await publish(store, Template("other", "2.0.0", "", {"type": "object"}, clock()))
    updated = await agents.update(P, "a", spec(display_name="A"), ["display_name"])
    assert updated.spec.template_version == "1.0.0"
    other = await agents.update(P, "a", spec(template_id="other"), ["template_id"])
    assert other.spec.template_version == "2.0.0"
    newest = await agents.update(P, "a", spec(parameters={"company": "A"}), ["*"])
    assert (newest.spec.template_id, newest.spec.template_version) == ("assistant", "1.10.0")


async def test_publishing_keeps_what_is_there(store: Store, clock: Clock) -> None:
    first = Template("t", "1.0.0", "d", {"type": "object", "n": [1, 1.5, True]}, clock())
    assert await publish(store, first) == first
    assert await publish(store, replace(first, description="other", create_time=clock.advance(hours=1))) == first
    assert await store.template("t", "") == first
    assert await store.template("t", "1.0.1") is None
    assert await store.template("u", "") is None
    await publish(store, replace(first, version="1.0.10"))
    await publish(store, replace(first, version="1.0.9"))
    newest = await store.template("t", "")
    assert newest is not None
    assert newest.version == "1.0.10"
    assert [(one.id, one.version) for one in await store.templates("", 10)] == [
        ("assistant", "1.0.0"),
        ("t", "1.0.10"),
    ]
    assert [one.id for one in await store.templates("assistant", 1)] == ["t"]


@contextmanager
def counting_encodings() -> Iterator[list[int]]:
    """Counts how often content is encoded within the block, by whomever."""
    counted = [0]

    def count(frame: FrameType, event: str, argument: object) -> None:
        counted[0] += event == "call" and frame.f_code is encode_spec.__code__

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield counted
    finally:
        sys.setprofile(before)


async def test_a_write_encodes_its_content_once(agents: AgentConfigs) -> None:
    with counting_encodings() as counted:
        await agents.create(P, "a", spec(), request_id=str(uuid.uuid4()))
    assert counted == [1]
    with counting_encodings() as counted:
        await agents.update(P, "a", spec(display_name="b"), ["display_name"])
    assert counted == [2], "before and after, which the audit log shows"
    with counting_encodings() as counted:
        deleted = await agents.delete(P, "a")
    assert counted == [1]
    assert deleted is not None
    with counting_encodings() as counted:
        await agents.undelete(P, deleted.uid)
    assert counted == [1]
