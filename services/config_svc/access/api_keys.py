"""Use cases of API keys."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from access.api_key import is_api_key, new_api_key
from access.binding import bound_user, require
from access.caller import KEY_SCOPES, USER_SCOPES, Caller, current
from access.errors import Unauthenticated
from config_svc import paging
from config_svc.access.key_hashes import KeyHashes, same
from config_svc.access.key_uses import KeyUses
from config_svc.audit.events import key_event
from config_svc.metrics import Metrics
from config_svc.model import rules
from config_svc.model.api_key import DEFAULT_OVERLAP, MAX_OVERLAP, ApiKey, is_key_id, new_key_id
from config_svc.model.errors import ApiKeyNotFound, ProjectNotFound, TooManyApiKeys
from config_svc.model.project import Project
from config_svc.ports.store import Store, Transaction
from contract.fields import check_resource_id
from servicekit.errors import InvalidArgument, Violation, Violations

KEYS_PER_STEP = 100
"""The default number of keys that one transaction revokes."""

_KEY_WEIGHT = 1024


class ApiKeys:
    """The use cases. Who creates or rotates a key must have its scopes, and be its user if it is bound to one. A
    project never has more than `limit` active keys, even with concurrent creations. One transaction revokes
    `keys_per_step` keys. New keys carry a mark under `mark_secret`, by which services know keys of this installation.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime],
        hashes: KeyHashes,
        uses: KeyUses,
        metrics: Metrics,
        limit: int = 1000,
        mark_secret: bytes | None = None,
        keys_per_step: int = KEYS_PER_STEP,
    ) -> None:
        self._limit = limit
        self._mark_secret = mark_secret
        self._keys_per_step = keys_per_step
        self._store = store
        self._clock = clock
        self._hashes = hashes
        self._uses = uses
        self._metrics = metrics

    async def create(self, wanted: ApiKey) -> tuple[ApiKey, str]:
        """Creates a key; returns its stored form and the key itself, which can't be retrieved again.

        Raises ProjectNotFound, ScopeMissing, UserDenied, TooManyApiKeys.
        """
        caller = current()
        now = self._clock()
        made = replace(
            wanted, id=new_key_id(), user_id=bound_user(caller, wanted.user_id), create_time=now, revoke_time=None
        )
        found = Violations()
        made.check(found, "api_key", scopes=sorted(KEY_SCOPES), user_scopes=sorted(USER_SCOPES))
        found.check()
        _require_all(caller, made)
        text = new_api_key(self._mark_secret)

        async def work(transaction: Transaction) -> ApiKey:
            project = await transaction.hold_keys_of(made.project)
            if project is None:
                raise ProjectNotFound(made.project)
            await self._check_room(transaction, project, now)
            key = replace(made, project_uid=project.uid)
            await transaction.insert_key(key, self._hashes.of(text))
            await transaction.record([key_event("create", None, key, now)])
            return key

        with self._metrics.access_write("create_api_key"):
            return await self._store.transact(work), text

    async def get(self, project: str, key_id: str) -> ApiKey:
        """Reads the stored form of a key. Raises ApiKeyNotFound. Here and below, `project` "" means the project that
        the key is in, for callers who may name any.
        """
        _check_name(project, key_id)
        return _allowed(await self._store.key(project, key_id) if is_key_id(key_id) else None, key_id)

    async def list(self, project: str, *, size: int, token: str) -> tuple[Sequence[ApiKey], str]:
        """Reads one page, oldest first, and the token of the next, which is empty on the last."""
        found = Violations()
        check_resource_id(found, "project", project)
        found.check()

        async def fetch(place: paging.Place | None, count: int) -> Sequence[ApiKey]:
            return await self._store.keys(project, (place[0], place[1]) if place else None, count)

        return await paging.read_page(
            fetch,
            ("api_keys", project),
            size=size,
            token=token,
            types=[datetime, str],
            place_of=lambda key: (key.create_time, key.id),
            weigh=lambda _: _KEY_WEIGHT,
        )

    async def revoke(self, project: str, key_id: str) -> ApiKey:
        """Revokes a key; a revoked key stays unchanged. Raises ApiKeyNotFound."""
        project = await self._project_of(project, key_id)

        async def work(transaction: Transaction) -> ApiKey:
            key = await _own(transaction, project, key_id)
            if key.revoke_time is not None:
                return key
            now = self._clock()
            revoked = replace(key, revoke_time=now)
            await transaction.record([key_event("revoke", key, revoked, now)])
            await transaction.end_keys([revoked], now)
            return revoked

        with self._metrics.access_write("revoke_api_key"):
            return await self._store.transact(work)

    async def revoke_user(self, project: str, user_id: str) -> int:
        """Ends every key of the project that is bound to the user; returns how many were ended by this call.

        After an interruption, the next call completes it.
        """
        rules.check_user_of(project, user_id)

        async def some(transaction: Transaction) -> int:
            held = await transaction.hold_project(project)
            if held is None:
                return 0
            return await revoke_some(transaction, held.uid, self._clock(), limit=self._keys_per_step, user_id=user_id)

        revoked = 0
        with self._metrics.access_write("revoke_user_api_keys"):
            while count := await self._store.transact(some):
                revoked += count
        return revoked

    async def rotate(self, project: str, key_id: str, overlap: timedelta | None) -> tuple[ApiKey, str, ApiKey]:
        """Creates a key with the rights of another, which ends after `overlap`, or earlier if it would have ended
        anyway. A key with a limited lifetime is replaced by one with the same lifetime from now. Returns the new one,
        the new key itself, and the old one. Raises ApiKeyNotFound, ScopeMissing, InvalidArgument for an ended key, and
        TooManyApiKeys with an overlap: without one, the number of keys does not change.
        """
        _check_name(project, key_id)
        remaining = overlap if overlap is not None else DEFAULT_OVERLAP
        if not timedelta(0) <= remaining <= MAX_OVERLAP:
            raise InvalidArgument([Violation("overlap", "must be from 0s to 2592000s")])
        project = await self._project_of(project, key_id)
        text = new_api_key(self._mark_secret)

        async def work(transaction: Transaction) -> tuple[ApiKey, ApiKey]:
            held = await transaction.hold_keys_of(project)
            if held is None:
                raise ApiKeyNotFound(key_id)
            old = await _own(transaction, project, key_id)
            now = self._clock()
            if old.ended(now):
                raise InvalidArgument([Violation("id", "must be of a key that has not ended")])
            _require_all(current(), old)
            if remaining:
                await self._check_room(transaction, held, now)
            life = old.expire_time - old.create_time if old.expire_time is not None else None
            new = replace(
                old,
                id=new_key_id(),
                create_time=now,
                expire_time=now + life if life is not None else None,
                last_used_time=None,
            )
            ends = now + remaining
            ending = replace(old, expire_time=min(ends, old.expire_time or ends))
            await transaction.insert_key(new, self._hashes.of(text))
            await transaction.record([key_event("create", None, new, now), key_event("rotate", old, ending, now)])
            await transaction.end_keys([ending], now)
            return new, ending

        with self._metrics.access_write("rotate_api_key"):
            new, ending = await self._store.transact(work)
            return new, text, ending

    async def check(self, text: str) -> ApiKey:
        """Returns the rights of a presented key. Raises Unauthenticated; the reason is counted, not disclosed."""
        if not is_api_key(text):
            raise self._refused("malformed")
        candidates = self._hashes.candidates(text)
        found = await self._store.key_by_hash(candidates)
        if found is None or not same(candidates, found[1]):
            raise self._refused("unknown")
        key, stored = found
        if key.ended(self._clock()):
            raise self._refused("ended")
        self._uses.record(key.id, key.last_used_time, self._hashes.outdated(stored, text))
        self._metrics.key_checks.labels("ok").inc()
        return key

    async def _project_of(self, named: str, key_id: str) -> str:
        _check_name(named, key_id)
        return named or (await self.get("", key_id)).project

    async def _check_room(self, transaction: Transaction, project: Project, now: datetime) -> None:
        if await transaction.live_keys(project.uid, now) >= self._limit:
            raise TooManyApiKeys(project.id, self._limit)

    def _refused(self, outcome: str) -> Unauthenticated:
        self._metrics.key_checks.labels(outcome).inc()
        return Unauthenticated("the API key is not valid", of_the_call=False)


async def revoke_some(
    transaction: Transaction,
    project_uid: str,
    now: datetime,
    *,
    limit: int,
    user_id: str = "",
    caller: Caller | None = None,
) -> int:
    """Ends the `limit` oldest keys of a project, or of a user in it, with an audit event each; returns how many."""
    keys = await transaction.unrevoked_keys(project_uid, limit, user_id)
    revoked = [replace(key, revoke_time=now) for key in keys]
    if revoked:
        events = [key_event("revoke", *pair, now, caller=caller) for pair in zip(keys, revoked, strict=True)]
        await transaction.record(events)
        await transaction.end_keys(revoked, now)
    return len(revoked)


async def _own(transaction: Transaction, project: str, key_id: str) -> ApiKey:
    """Reads and locks a key that the caller may act on."""
    return _allowed(await transaction.lock_key(project, key_id) if is_key_id(key_id) else None, key_id)


def _allowed(key: ApiKey | None, key_id: str) -> ApiKey:
    caller = current()
    if key is None or (bound_user(caller, "") and key.user_id != caller.user_id):
        raise ApiKeyNotFound(key_id)
    return key


def _require_all(caller: Caller, key: ApiKey) -> None:
    for scope in key.scopes:
        require(caller, scope)


def _check_name(project: str, key_id: str) -> None:
    found = Violations()
    if project:
        check_resource_id(found, "project", project)
    if not key_id:
        found.add("id", "is required")
    found.check()
