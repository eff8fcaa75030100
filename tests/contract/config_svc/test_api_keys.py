"""API keys: on both stores."""

import asyncio
from datetime import timedelta

import pytest

from access.api_key import is_api_key, new_api_key
from access.caller import KEY_SCOPES, USER_SCOPES
from access.errors import ScopeMissing, UserDenied
from config_svc.access.api_keys import ApiKeys
from config_svc.access.key_hashes import KeyHashes
from config_svc.access.key_uses import KeyUses
from config_svc.audit.log import AuditLog
from config_svc.metrics import Metrics
from config_svc.model.api_key import ApiKey
from config_svc.model.audit import AuditQuery
from config_svc.model.errors import ApiKeyNotFound, ProjectNotFound, TooManyApiKeys
from config_svc.ports.store import Store
from servicekit.errors import InvalidArgument
from tests.contract.config_svc.conftest import Clock, calling, refusal, wanted_key

P = "mine"


async def test_a_key_is_shown_once_and_checked_by_its_hash(keys: ApiKeys, store: Store, hashes: KeyHashes) -> None:
    wanted = wanted_key("chat", "agents:read", display_name="CI", requests_per_minute=5, concurrent_turns=2)
    made, text = await keys.create(wanted)
    assert is_api_key(text)
    assert made.id.startswith("key_")
    assert made.id.removeprefix("key_") not in text
    checked = await keys.check(text)
    assert checked == made
    assert (checked.scopes, checked.requests_per_minute, checked.concurrent_turns) == (("chat", "agents:read"), 5, 2)
    page, token = await keys.list(P, size=0, token="")
    assert (list(page), token) == ([made], "")
    assert text not in repr(page)
    stored = await store.key_by_hash([hashes.of(text)])
    assert stored is not None
    assert stored[1] != text.encode()
    assert len(stored[1]) == 32


async def test_every_key_that_is_not_good_is_refused_in_the_same_words(keys: ApiKeys, clock: Clock) -> None:
    _, good = await keys.create(wanted_key())
    revoked, revoked_text = await keys.create(wanted_key())
    await keys.revoke(P, revoked.id)
    _, expired_text = await keys.create(wanted_key(expire_time=clock() + timedelta(seconds=1)))
    assert (await keys.check(expired_text)).expire_time == clock() + timedelta(seconds=1)
    clock.advance(seconds=1)
    typo = good[:-7] + ("a" if good[-7] != "a" else "b") + good[-6:]
    refused = [
        await refusal(keys, text)
        for text in ("", "x", "\0", good[:-1], typo, good + "x", new_api_key(), revoked_text, expired_text)
    ]
    assert len({(error.code, error.reason, error.message, tuple(error.metadata)) for error in refused}) == 1
    assert (await keys.check(good)).scopes == ("chat",)


async def test_a_malformed_key_costs_no_read(keys: ApiKeys, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(store, "key_by_hash", read)
    _, text = await keys.create(wanted_key())
    for place in range(10, len(text)):
        typo = text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]
        await refusal(keys, typo)
    with pytest.raises(AssertionError):
        await keys.check(text)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (wanted_key("operator"), "api_key.scopes[0]"),
        (wanted_key("service"), "api_key.scopes[0]"),
        (wanted_key("chat", "no\0"), "api_key.scopes[1]"),
        (wanted_key("chat", "chat"), "api_key.scopes"),
        (wanted_key("agents:write", user_id="u"), "api_key.scopes[0]"),
        (wanted_key("keys:admin", user_id="u"), "api_key.scopes[0]"),
        (wanted_key(user_id="a b"), "api_key.user_id"),
        (wanted_key(display_name="x" * 201), "api_key.display_name"),
        (wanted_key(requests_per_minute=1_000_001), "api_key.limits.requests_per_minute"),
        (wanted_key(concurrent_turns=-1), "api_key.limits.concurrent_turns"),
        (wanted_key(project="No"), "api_key.project"),
    ],
)
async def test_rules_of_keys(keys: ApiKeys, wrong: ApiKey, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await keys.create(wrong)
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_a_key_needs_scopes_a_future_and_a_project(keys: ApiKeys, clock: Clock) -> None:
    with pytest.raises(InvalidArgument, match="scopes"):
        await keys.create(ApiKey("", P, "", (), clock()))
    with pytest.raises(InvalidArgument, match="future"):
        await keys.create(wanted_key(expire_time=clock()))
    with pytest.raises(ProjectNotFound):
        await keys.create(wanted_key(project="nowhere"))


async def test_nobody_gives_a_scope_that_they_do_not_have(keys: ApiKeys) -> None:
    strong, _ = await keys.create(wanted_key("chat", "agents:write"))
    with calling(scopes=frozenset({"keys:admin", "agents:read"})):
        made, _ = await keys.create(wanted_key("agents:read"))
        for scope in sorted(KEY_SCOPES - {"keys:admin", "agents:read"}):
            with pytest.raises(ScopeMissing):
                await keys.create(wanted_key("agents:read", scope))
        with pytest.raises(ScopeMissing):
            await keys.rotate(P, strong.id, None)
        await keys.rotate(P, made.id, None)
        await keys.revoke(P, strong.id)


async def test_who_is_bound_to_a_user_makes_keys_of_that_user_only(keys: ApiKeys) -> None:
    theirs, _ = await keys.create(wanted_key(user_id="bob"))
    with calling(scopes=USER_SCOPES, user_id="alice"):
        made, text = await keys.create(wanted_key())
        assert made.user_id == (await keys.check(text)).user_id == "alice"
        with pytest.raises(UserDenied):
            await keys.create(wanted_key(user_id="bob"))
        for call in (keys.revoke(P, theirs.id), keys.rotate(P, theirs.id, None)):
            with pytest.raises(ApiKeyNotFound):
                await call
        assert (await keys.revoke(P, made.id)).revoke_time is not None


async def test_a_key_is_read_by_its_id(keys: ApiKeys, clock: Clock) -> None:
    made, _ = await keys.create(wanted_key(user_id="alice"))
    other, _ = await keys.create(wanted_key())
    assert [await keys.get(P, key.id) for key in (made, other)] == [made, other]
    clock.advance(hours=1)
    assert await keys.revoke(P, made.id) == await keys.get(P, made.id)
    with calling(scopes=USER_SCOPES, user_id="alice"):
        assert (await keys.get(P, made.id)).id == made.id
        with pytest.raises(ApiKeyNotFound):
            await keys.get(P, other.id)


async def test_keys_are_of_their_project_only(keys: ApiKeys) -> None:
    made, _ = await keys.create(wanted_key())
    for project, key_id in (("other", made.id), ("nowhere", made.id), (P, "x"), (P, "key_" + "0" * 20)):
        with pytest.raises(ApiKeyNotFound):
            await keys.get(project, key_id)
    assert await keys.list("other", size=0, token="") == ([], "")
    assert await keys.list("nowhere", size=0, token="") == ([], "")
    for project in ("other", "nowhere"):
        for call in (keys.revoke(project, made.id), keys.rotate(project, made.id, None)):
            with pytest.raises(ApiKeyNotFound):
                await call


async def test_without_a_project_a_key_is_had_by_its_id_wherever_it_is(keys: ApiKeys, audit: AuditLog) -> None:
    made, _ = await keys.create(wanted_key())
    assert await keys.get("", made.id) == made
    new, _, old = await keys.rotate("", made.id, None)
    assert (new.project, old.id) == (P, made.id)
    assert (await keys.revoke("", new.id)).revoke_time is not None
    events, _ = await audit.list(AuditQuery(P, resource=f"api_keys/{new.id}"), size=0, token="")
    assert [event.action for event in events] == ["api_keys.revoke", "api_keys.create"]
    for call in (keys.get("", "key_" + "0" * 20), keys.revoke("", "x"), keys.rotate("", "x", None)):
        with pytest.raises(ApiKeyNotFound):
            await call
    for call in (keys.get("", ""), keys.revoke("NO", made.id), keys.rotate("NO", made.id, None)):
        with pytest.raises(InvalidArgument):
            await call
    with calling(scopes=USER_SCOPES, user_id="alice"), pytest.raises(ApiKeyNotFound):
        await keys.get("", made.id)


async def test_keys_are_listed_by_pages_in_the_order_of_their_making(keys: ApiKeys, clock: Clock) -> None:
    made = []
    for number in range(7):
        made.append((await keys.create(wanted_key(display_name=str(number))))[0].id)
        clock.advance(seconds=number % 2)
    found: list[ApiKey] = []
    token = ""
    while True:
        page, token = await keys.list(P, size=3, token=token)
        found += page
        if not token:
            break
        await keys.create(wanted_key(display_name="later"))
        await keys.revoke(P, found[0].id)
    assert {key.id for key in found} >= set(made)
    assert len({key.id for key in found}) == len(found)
    assert [key.create_time for key in found] == sorted(key.create_time for key in found)


async def test_revoking_is_idempotent_and_for_good(keys: ApiKeys, clock: Clock, audit: AuditLog) -> None:
    made, text = await keys.create(wanted_key())
    first = await keys.revoke(P, made.id)
    assert first.revoke_time == clock()
    clock.advance(hours=1)
    assert await keys.revoke(P, made.id) == first
    await refusal(keys, text)
    with pytest.raises(InvalidArgument, match="has not ended"):
        await keys.rotate(P, made.id, None)
    for unknown in ("key_" + "a" * 20, "x", "\0"):
        with pytest.raises(ApiKeyNotFound):
            await keys.revoke(P, unknown)
    page, _ = await audit.list(AuditQuery(P), size=0, token="")
    assert [event.action for event in page] == ["api_keys.revoke", "api_keys.create"]


async def test_the_keys_of_a_user_are_revoked_and_no_others(
    store: Store, clock: Clock, hashes: KeyHashes, uses: KeyUses, metrics: Metrics, audit: AuditLog
) -> None:
    keys = ApiKeys(store, clock=clock, hashes=hashes, uses=uses, metrics=metrics, keys_per_step=2)
    theirs = [await keys.create(wanted_key(user_id="ann")) for _ in range(5)]
    earlier = await keys.revoke(P, theirs[0][0].id)
    others = [await keys.create(wanted_key(user_id=user)) for user in ("bob", "")]
    others.append(await keys.create(wanted_key(user_id="ann", project="other")))
    clock.advance(hours=1)
    async with store.key_tail() as tail:
        before = await tail.newest()
        assert await keys.revoke_user(P, "ann") == 4
        sent = [change.api_key_id for change in await tail.key_changes(before, 100)]
        assert sorted(sent) == sorted(key.id for key, _ in theirs[1:]), "every gateway learns of each, once"
        assert await keys.revoke_user(P, "ann") == 0
        assert await keys.revoke_user("nowhere", "ann") == 0
        assert len(await tail.key_changes(before, 100)) == 4
    for _, text in theirs:
        await refusal(keys, text)
    for key, text in others:
        assert (await keys.check(text)).id == key.id
    page, _ = await keys.list(P, size=0, token="")
    assert earlier in page, "what was revoked keeps its time"
    with calling(id="key_admin"):
        await keys.create(wanted_key(user_id="ann"))
        assert await keys.revoke_user(P, "ann") == 1
    events, _ = await audit.list(AuditQuery(P), size=0, token="")
    assert [event.action for event in events].count("api_keys.revoke") == 6
    assert (events[0].action, events[0].actor) == ("api_keys.revoke", "key_admin")
    assert await audit.erase(P, "ann") > 0
    assert "ann" not in repr((await audit.list(AuditQuery(P), size=0, token=""))[0])
    for user in ("", "a b"):
        with pytest.raises(InvalidArgument, match="user_id"):
            await keys.revoke_user(P, user)


async def test_no_project_has_more_live_keys_than_it_may(
    store: Store, clock: Clock, hashes: KeyHashes, uses: KeyUses, metrics: Metrics
) -> None:
    keys = ApiKeys(store, clock=clock, hashes=hashes, uses=uses, metrics=metrics, limit=3)
    outcomes = await asyncio.gather(*(keys.create(wanted_key()) for _ in range(12)), return_exceptions=True)
    made = [outcome[0] for outcome in outcomes if isinstance(outcome, tuple)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, TooManyApiKeys)]
    assert (len(made), len(refused)) == (3, 9), outcomes
    assert refused[0].metadata == {"project": P, "limit": "3"}
    assert len((await keys.list(P, size=0, token=""))[0]) == 3
    await keys.create(wanted_key(project="other"))
    with pytest.raises(TooManyApiKeys):
        await keys.rotate(P, made[0].id, timedelta(seconds=1))
    replaced, _, _ = await keys.rotate(P, made[0].id, timedelta(0))
    with pytest.raises(TooManyApiKeys):
        await keys.create(wanted_key())
    await keys.revoke(P, replaced.id)
    await keys.create(wanted_key(expire_time=clock() + timedelta(hours=1)))
    with pytest.raises(TooManyApiKeys):
        await keys.create(wanted_key())
    clock.advance(hours=1)
    await keys.create(wanted_key())
    rotations = (keys.rotate(P, made[1].id, timedelta(days=1)), keys.rotate(P, made[2].id, timedelta(days=1)))
    assert all(isinstance(one, TooManyApiKeys) for one in await asyncio.gather(*rotations, return_exceptions=True))
