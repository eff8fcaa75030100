"""Reading the window of a turn from the end of the stored turns, without reading much more than it will hold."""

import functools
from collections.abc import Sequence
from typing import NoReturn

from cachetools import LRUCache

from session_svc.model.errors import LeaseLost, TurnDamaged, TurnInterrupted
from session_svc.model.session import Session, SessionKey
from session_svc.model.turn import BeginTurn, Lease
from session_svc.model.window import fit_window
from session_svc.redis_client.link import Command
from session_svc.redis_store import script_calls as calls
from session_svc.redis_store import script_replies as replies
from session_svc.redis_store.keys import turns_key
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.session_codec import session_of
from session_svc.redis_store.turn_codec import IsTurn, StoredTurn, number_of, stored_turn, token_of

MAX_TURNS_A_READ = 32
MAX_TURNS_TO_HEAD = 256
"""As far back the turn is looked for that a chain of tool calls began with."""
LARGE_TURN_BYTES = 64 * 1024
MAX_LARGE_SESSIONS = 10_000


class Windows:
    """Reads windows.

    The first read goes out with the script that takes the lease, before anything is known of the session. Its size
    fits turns of two messages or more; sessions whose turns turn out to be large are remembered, for a smaller first
    read the next time.
    """

    def __init__(self, scripts: RedisScripts, max_bytes: int, is_turn: IsTurn) -> None:
        self._scripts = scripts
        self._is_turn = is_turn
        self._max_bytes = max_bytes
        self._large: LRUCache[SessionKey, int] = LRUCache(MAX_LARGE_SESSIONS)

    def first_read(self, turn: BeginTurn) -> Command | None:
        """Returns the command that reads the newest turns; None when no window is wanted."""
        count = self._first_count(turn)
        return ("LRANGE", turns_key(turn.key), -count, -1) if count else None

    async def complete(self, turn: BeginTurn, lease: Lease, elements: Sequence[bytes], session: Session) -> list[bytes]:
        """Returns the window, given what the first read found: only what fits is decompressed.

        Raises `LeaseLost`, `TurnInterrupted`, `RedisUnavailable`, `TurnDamaged`, `ToolChainTooLarge`.
        """
        if elements and token_of(elements[-1]) >= lease.token:
            await self._raise_lost(lease)  # the lease was taken away between the script and the read
        if (
            self._first_count(turn)
            and session.turn_count
            and (not elements or number_of(elements[-1]) != session.last_turn)
        ):
            await self._check_there(lease, session)
        turns = [stored_turn(element) for element in reversed(elements)]
        size = _size(turns)
        wanted, max_messages = self._first_count(turn), turn.window_messages
        while elements and len(elements) == wanted and size < self._max_bytes and _wants_more(turn, turns):
            read = len(turns)
            wanted = min(MAX_TURNS_A_READ, (self._max_bytes - size) * read // max(size, 1) + 1)
            [elements] = await self._scripts.run(("LRANGE", turns_key(turn.key), -read - wanted, -read - 1))
            turns += [stored_turn(element) for element in reversed(elements)]
            size = _size(turns)
        self._remember(turn.key, size // len(turns) if turns else 0)
        fit = functools.partial(fit_window, continues=turn.continues, within_chain=turn.within_chain)
        fitting = fit(turns, max_messages, self._max_bytes)
        if turn.within_chain and fitting and fitting[0].continues:
            turns += await self._back_to_head(turn.key, len(turns))
            fitting = fit(turns, max_messages, self._max_bytes)
        return [stored.turn(self._is_turn) for stored in fitting]

    async def _back_to_head(self, key: SessionKey, read: int) -> list[StoredTurn]:
        """Returns the turns before those that were read, newest first, back to one that goes on with no chain."""
        found: list[StoredTurn] = []
        while read + len(found) < MAX_TURNS_TO_HEAD:
            newest = read + len(found) + 1
            [elements] = await self._scripts.run(("LRANGE", turns_key(key), -newest - MAX_TURNS_A_READ + 1, -newest))
            found += [stored_turn(element) for element in reversed(elements)]
            if len(elements) < MAX_TURNS_A_READ or not all(stored.continues for stored in found):
                break
        return found

    async def _raise_lost(self, lease: Lease) -> NoReturn:
        renew = calls.Renew(token=lease.token, turn_id=lease.turn_id, lease_ms=1000, waiter_id="")
        [answer] = await self._scripts.run(self._scripts.command(lease.key, renew))
        if type(replies.reply_of(calls.Renew, answer)) is replies.Interrupted:
            raise TurnInterrupted(lease.key.session_id)
        raise LeaseLost(lease.key.session_id)  # deleted and made again

    async def _check_there(self, lease: Lease, session: Session) -> None:
        """Raises `TurnDamaged` for turns that are gone from beside their session, `LeaseLost` where both are gone."""
        [answer] = await self._scripts.run(self._scripts.command(lease.key, calls.Read()))
        reply = replies.reply_of(calls.Read, answer)
        if type(reply) is replies.SessionOk and session_of(lease.key, reply.session).created_ms == session.created_ms:
            raise TurnDamaged(session.last_turn)
        raise LeaseLost(lease.key.session_id)

    def _first_count(self, turn: BeginTurn) -> int:
        count = min((turn.window_messages + 1) // 2, MAX_TURNS_A_READ)
        if turn.continues:
            count = max(count, 1)
        average = self._large.get(turn.key)
        return count if average is None else min(count, self._max_bytes // average + 1)

    def _remember(self, key: SessionKey, average: int) -> None:
        if average >= LARGE_TURN_BYTES:
            self._large[key] = average
        elif self._large:
            self._large.pop(key, None)


def _wants_more(turn: BeginTurn, turns: Sequence[StoredTurn]) -> bool:
    """Returns whether the window of a turn may hold more turns than these, as far as their number goes."""
    if turn.continues and all(stored.continues for stored in turns):
        return True
    return sum([stored.message_count for stored in turns]) < turn.window_messages


def _size(turns: Sequence[StoredTurn]) -> int:
    return sum([turn.size for turn in turns])  # of a generator every step would be a call
