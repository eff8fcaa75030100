"""Forks of sessions: a history is copied into a new session under a lease, which is there whole or not at all."""

import contextlib
import secrets
from collections.abc import Sequence
from typing import Protocol

from contract.enums import BusyPolicy
from contract.reasons import Reason
from servicekit.errors import ServiceError
from session_svc.model.errors import LeaseLost, SessionAlreadyExists, SessionBusy, SessionFull, SessionNotFound
from session_svc.model.session import Fork, Session, SessionBounds, SessionKey
from session_svc.model.turn import BeginTurn, Begun, KeptContent, Lease
from session_svc.model.window import fit_window
from session_svc.redis_client.link import RedisUnavailable
from session_svc.redis_store import script_calls as calls
from session_svc.redis_store import script_replies as replies
from session_svc.redis_store.parts import RedisParts
from session_svc.redis_store.script_replies import reply_of
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.session_codec import session_of
from session_svc.redis_store.turn_codec import (
    IsTurn,
    StoredTurn,
    message_count_of,
    number_of,
    plain_element,
    stored_turn,
)
from session_svc.redis_store.turns import RedisTurns

TURNS_A_READ = 16
PAGE_BYTES = 4 * 1024 * 1024


class SessionReads(Protocol):
    """What a fork reads of its source."""

    async def get(self, key: SessionKey, user_id: str = "") -> Session:
        """As `SessionStore.get`."""

    async def read_turns(self, session: Session, low: int, high: int) -> list[bytes]:
        """Returns the elements of these turns, oldest first, fewer where the oldest have been dropped meanwhile."""


class Forks:
    """Makes forks. Without `compressing`, what a fork copies is stored as it is."""

    def __init__(
        self,
        scripts: RedisScripts,
        turns: RedisTurns,
        parts: RedisParts,
        limits: SessionBounds,
        reads: SessionReads,
        *,
        compressing: bool,
        is_turn: IsTurn,
    ) -> None:
        self._scripts = scripts
        self._turns = turns
        self._parts = parts
        self._limits = limits
        self._reads = reads
        self._compressing = compressing
        self._is_turn = is_turn

    async def fork(self, fork: Fork, source: Session, last: int) -> Session:
        """Copies the source up to a turn. Raises `SessionAlreadyExists`, or `SessionBusy` during another fork."""
        lease = await self._begin(fork, source)
        try:
            first = await self._first_of_window(fork, source, last) if fork.window_messages else source.first_turn
            own = not fork.agent_uid or fork.agent_uid == source.agent_uid
            return await self._copy(source, first, last, lease, pinned=source.pinned_revision if own else 0)
        except BaseException:
            await self._turns.abort(lease)
            raise

    async def _begin(self, fork: Fork, source: Session) -> Lease:
        key = SessionKey(fork.source.project, fork.new_id)
        begin = BeginTurn(
            key=key,
            agent_id=fork.agent_id or source.agent_id,
            agent_uid=fork.agent_uid or source.agent_uid,
            turn_id=f"fork-{secrets.token_hex(8)}",
            user_id=source.user_id,
            idle_ms=source.idle_ms,
            lifetime_ms=source.lifetime_ms,
            busy=BusyPolicy.REJECT,
            metadata=source.metadata,
        )
        try:
            outcome = await self._turns.begin(begin, self._turns.new_waiter_id(), 0)
        except SessionBusy as error:
            # Who makes the session may be an earlier try of this call, or fail: nothing is there yet.
            with contextlib.suppress(SessionNotFound):
                if (await self._reads.get(key, source.user_id)).turn_count == 0:
                    raise
            raise SessionAlreadyExists(fork.new_id) from error
        except (SessionFull, SessionNotFound) as error:
            raise SessionAlreadyExists(fork.new_id) from error
        except ServiceError as error:
            if error.reason == Reason.SESSION_AGENT_MISMATCH:
                raise SessionAlreadyExists(fork.new_id) from error
            raise
        if not isinstance(outcome, Begun):
            raise SessionAlreadyExists(fork.new_id)
        if not outcome.created:
            await self._turns.abort(outcome.lease)
            raise SessionAlreadyExists(fork.new_id)
        return outcome.lease

    async def _first_of_window(self, fork: Fork, source: Session, last: int) -> int:
        """Returns the number of the first turn of the window that ends with a turn."""
        found: list[StoredTurn] = []
        while (high := last - len(found)) >= source.first_turn and (
            fork.continues or sum(turn.message_count for turn in found) < fork.window_messages
        ):
            low = max(high - TURNS_A_READ + 1, source.first_turn)
            elements = await self._reads.read_turns(source, low, high)
            if not elements:
                break
            found += [stored_turn(element) for element in reversed(elements)]
            if fork.continues and not all(turn.continues for turn in found):
                break
        window = fit_window(
            found, fork.window_messages, self._limits.window_bytes, continues=fork.continues, within_chain=True
        )
        return window[0].number if window else last

    async def _copy(self, source: Session, first: int, last: int, lease: Lease, *, pinned: int) -> Session:
        number = first
        messages, copied = 0, False
        while True:
            elements = await self._reads.read_turns(source, number, min(number + TURNS_A_READ - 1, last))
            if elements:
                found = number_of(elements[0])
                if copied and found != number:
                    raise RedisUnavailable  # a hole, for the source drops its oldest turns meanwhile: try again
                first = first if copied else found
                number, copied = number_of(elements[-1]) + 1, True
            messages += sum(message_count_of(element) for element in elements)
            complete = number > last
            if not elements and not complete:
                raise RedisUnavailable
            if source.part_bytes and elements:
                await self._copy_parts(source, elements, lease)
            append = calls.Append(
                token=lease.token,
                turn_id=lease.turn_id,
                lease_ms=self._limits.lease_ms,
                first=first,
                last=last,
                messages=messages,
                revision=source.agent_revision,
                pinned=pinned,
                complete=int(complete),
            )
            copies = elements if self._compressing else map(plain_element, elements)
            [answer] = await self._scripts.run(self._scripts.command(lease.key, append, *copies))
            reply = reply_of(calls.Append, answer)
            if type(reply) is not replies.SessionOk:
                raise LeaseLost(lease.key.session_id)
            if complete:
                return session_of(lease.key, reply.session)

    async def _copy_parts(self, source: Session, elements: Sequence[bytes], lease: Lease) -> None:
        """Copies the contents that the turns name, some at a time."""
        wanted: list[tuple[int, KeptContent]] = []
        for element in elements:
            stored = stored_turn(element)
            named = self._parts.form.named(stored.turn(self._is_turn))
            wanted += [(stored.number, one) for one in {one.digest: one for one in named}.values()]
        while wanted:
            batch, size = [wanted.pop(0)], 0
            while wanted and size + batch[-1][1].size + wanted[0][1].size <= PAGE_BYTES:
                size += batch[-1][1].size
                batch.append(wanted.pop(0))
            contents = await self._parts.read(source.key, [one for _, one in batch])
            by_digest = {part.digest: part.content for part in contents}
            call = calls.AppendParts(token=lease.token, turn_id=lease.turn_id, lease_ms=self._limits.lease_ms)
            more = [
                argument
                for number, one in batch
                if one.digest in by_digest
                for argument in (number, one.digest, by_digest[one.digest])
            ]
            if not more:
                continue
            scripts = self._parts.scripts
            [answer] = await scripts.run(scripts.command(lease.key, call, *more))
            if type(reply_of(calls.AppendParts, answer)) is not replies.SessionOk:
                raise LeaseLost(lease.key.session_id)
