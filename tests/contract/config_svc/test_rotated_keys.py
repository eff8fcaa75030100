"""API keys: rotation, last use, secrets of their hashes, retention."""

import asyncio
import itertools
from datetime import timedelta

import pytest

from config_svc.access.api_keys import ApiKeys
from config_svc.access.key_hashes import KeyHashes, same
from config_svc.access.key_uses import KeyUses
from config_svc.metrics import Metrics
from config_svc.model.api_key import Use
from config_svc.ports.store import Store
from config_svc.sweep import Sweep
from servicekit.errors import InvalidArgument
from tests.contract.config_svc.conftest import Clock, refusal, wanted_key

P = "mine"


async def test_a_rotated_key_works_on_for_its_overlap(keys: ApiKeys, clock: Clock) -> None:
    made, old_text = await keys.create(wanted_key("chat", display_name="CI", user_id="u", concurrent_turns=1))
    new, new_text, old = await keys.rotate(P, made.id, timedelta(hours=1))
    assert new.id != made.id
    assert old.expire_time == clock() + timedelta(hours=1)
    assert (new.scopes, new.display_name, new.user_id, new.concurrent_turns) == (("chat",), "CI", "u", 1)
    assert new.expire_time is None
    assert (await keys.check(old_text)).id == made.id
    assert (await keys.check(new_text)).id == new.id
    later, _, again = await keys.rotate(P, made.id, timedelta(days=30))
    assert again.expire_time == old.expire_time, "an end comes no later by another rotation"
    assert later.id != new.id
    clock.advance(hours=1)
    await refusal(keys, old_text)
    assert (await keys.check(new_text)).id == new.id
    _, _, at_once = await keys.rotate(P, new.id, timedelta(0))
    assert at_once.expire_time == clock()
    await refusal(keys, new_text)


async def test_rotation_begins_a_life_of_the_same_length(keys: ApiKeys, clock: Clock) -> None:
    made, _ = await keys.create(wanted_key(expire_time=clock() + timedelta(days=90)))
    clock.advance(days=89, hours=12)
    new, _, old = await keys.rotate(P, made.id, None)
    assert new.expire_time == clock() + timedelta(days=90)
    assert old.expire_time == made.expire_time, "the default overlap of a day would be longer"
    for wrong in (timedelta(seconds=-1), timedelta(days=30, seconds=1)):
        with pytest.raises(InvalidArgument):
            await keys.rotate(P, new.id, wrong)


async def test_the_last_use_is_written_to_the_minute_and_not_by_the_check(
    keys: ApiKeys, uses: KeyUses, clock: Clock, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[str]] = []
    note_uses = store.note_uses

    async def counted(batch: list[Use]) -> None:
        written.append([use.key_id for use in batch])
        await note_uses(batch)

    monkeypatch.setattr(store, "note_uses", counted)
    made, text = await keys.create(wanted_key())
    idle, _ = await keys.create(wanted_key())
    for _ in range(5):
        await keys.check(text)
    assert not written
    assert (await keys.check(text)).last_used_time is None
    await uses.write()
    minute = clock().replace(second=0, microsecond=0)
    page, _ = await keys.list(P, size=0, token="")
    assert {key.id: key.last_used_time for key in page} == {made.id: minute, idle.id: None}
    clock.advance(seconds=30)
    await keys.check(text)
    await uses.write()
    assert written == [[made.id]], "at most once a minute"
    clock.advance(minutes=2)
    await keys.check(text)
    await uses.write()
    assert written == [[made.id], [made.id]]
    assert (await keys.check(text)).last_used_time == clock().replace(second=0, microsecond=0)


async def test_uses_are_written_at_the_end_of_the_process(store: Store, clock: Clock, keys: ApiKeys) -> None:
    made, _ = await keys.create(wanted_key())
    uses = KeyUses(store, clock=clock)
    running = asyncio.create_task(uses.run())
    await asyncio.sleep(0)
    uses.record(made.id, None)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    page, _ = await keys.list(P, size=0, token="")
    assert page[0].last_used_time is not None


async def test_recorded_uses_are_bounded(store: Store, clock: Clock) -> None:
    uses = KeyUses(store, clock=clock, limit=3)
    for number in range(9):
        uses.record(f"key_{number}", None)
    assert len(uses._recorded) == 3


async def test_secrets_are_rotated_without_a_key_noticing(
    store: Store, clock: Clock, uses: KeyUses, metrics: Metrics
) -> None:
    first, second = b"1" * 32, b"2" * 32

    def keys_under(*secrets: bytes) -> ApiKeys:
        return ApiKeys(store, clock=clock, hashes=KeyHashes(secrets), uses=uses, metrics=metrics)

    used, used_text = await keys_under(first).create(wanted_key())
    _, idle_text = await keys_under(first).create(wanted_key())
    assert (await keys_under(first, second).check(used_text)).id == used.id
    assert (await keys_under(second, first).check(used_text)).id == used.id
    await uses.write()
    assert (await keys_under(second).check(used_text)).id == used.id, "its hash is under the new secret now"
    await refusal(keys_under(second), idle_text)
    assert (await keys_under(second, first).check(idle_text)).scopes == ("chat",)
    await refusal(keys_under(b"3" * 32), used_text)


def test_hashes_are_compared_whatever_their_order() -> None:
    a, b, c = b"a" * 32, b"b" * 32, b"c" * 32
    for candidates in itertools.permutations([a, b]):
        assert same(candidates, a)
        assert not same(candidates, c)


async def test_a_secret_that_is_kept_is_made_once(store: Store) -> None:
    made = await asyncio.gather(*(store.secret("x", bytes([number]) * 32) for number in range(5)))
    assert len(set(made)) == 1
    assert await store.secret("y", b"y" * 32) == b"y" * 32


async def test_ended_keys_are_kept_for_their_retention(keys: ApiKeys, clock: Clock, sweep: Sweep) -> None:
    revoked, _ = await keys.create(wanted_key())
    expired, _ = await keys.create(wanted_key(expire_time=clock() + timedelta(days=1)))
    live, _ = await keys.create(wanted_key())
    await keys.revoke(P, revoked.id)

    async def left() -> set[str]:
        await sweep.once()
        return {key.id for key in (await keys.list(P, size=0, token=""))[0]}

    clock.advance(days=90)
    assert await left() == {revoked.id, expired.id, live.id}
    clock.advance(seconds=1)
    assert await left() == {expired.id, live.id}
    clock.advance(days=1)
    assert await left() == {live.id}
