"""Contents that turns name and do not hold, in Redis: one hash beside the session, in its slot."""

import asyncio
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from session_svc.model.errors import SessionNotFound, TurnDamaged
from session_svc.model.session import Session, SessionKey
from session_svc.model.turn import KeptContent, PartContent
from session_svc.redis_store import script_calls as calls
from session_svc.redis_store import script_replies as replies
from session_svc.redis_store.keys import parts_key
from session_svc.redis_store.script_replies import reply_of
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.session_codec import session_of

_ENTRY = struct.Struct(">16sIII")


@dataclass(frozen=True, slots=True)
class TurnParts:
    """How serialized turns name contents: which they name, and a turn with those that are given in their places."""

    named: Callable[[bytes], Sequence[KeptContent]]
    filled: Callable[[bytes, Mapping[bytes, bytes]], bytes]


NO_PARTS = TurnParts(lambda turn: (), lambda turn, contents: turn)


class IndexEntry(NamedTuple):
    """What the scripts keep of a content (scripts/prelude.lua, `parts`)."""

    digest: bytes
    size: int
    first_turn: int
    last_turn: int


class RedisParts:
    """Reads contents. `scripts` is for them alone: what is large would hold up what is small on the same connection."""

    def __init__(self, scripts: RedisScripts, form: TurnParts = NO_PARTS) -> None:
        self.scripts = scripts
        self.form = form

    async def read(self, key: SessionKey, wanted: Sequence[KeptContent]) -> list[PartContent]:
        answer, found = await self.scripts.run(
            self.scripts.command(key, calls.Read()),
            ("HMGET", parts_key(key), *(b"c" + one.digest for one in wanted)),
        )
        reply = reply_of(calls.Read, answer)
        if type(reply) is not replies.SessionOk:
            raise SessionNotFound(key.session_id)
        missing = {
            one.digest
            for one, content in zip(wanted, found, strict=True)
            if content is None or len(content) != one.size
        }
        if missing:
            await self._check_gone(session_of(key, reply.session), missing)
        return [
            PartContent(one.digest, content)
            for one, content in zip(wanted, found, strict=True)
            if one.digest not in missing
        ]

    async def filled(self, key: SessionKey, turns: Sequence[bytes]) -> list[bytes]:
        """Returns the turns with the contents that they name, as far as the session keeps them."""
        wanted = {one.digest: one for turn in turns for one in self.form.named(turn)}
        if not wanted:
            return list(turns)
        contents = {part.digest: part.content for part in await self.read(key, list(wanted.values()))}
        return await asyncio.to_thread(lambda: [self.form.filled(turn, contents) for turn in turns])

    async def _check_gone(self, session: Session, missing: set[bytes]) -> None:
        """Raises `TurnDamaged` for contents that are missing though the index has them."""
        [packed] = await self.scripts.run(("HGET", parts_key(session.key), "index"))
        if packed is None and session.part_bytes:
            raise TurnDamaged(session.last_turn)
        for entry in index_entries(packed or b""):
            if entry.digest in missing:
                raise TurnDamaged(entry.last_turn)


def index_entries(packed: bytes) -> Iterator[IndexEntry]:
    """Yields the entries of an index, those that were named last behind the others. Raises `TurnDamaged`."""
    if len(packed) % _ENTRY.size:
        raise TurnDamaged(0)
    return map(IndexEntry._make, _ENTRY.iter_unpack(packed))
