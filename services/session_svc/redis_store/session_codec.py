"""Sessions as scripts reply with them."""

import json
from collections.abc import Mapping, Sequence

from session_svc.model.errors import SessionDamaged
from session_svc.model.session import Session, SessionKey, Usage
from session_svc.redis_store.script_replies import SessionFields

_MAX_COUNT = 2**63 - 1
_MAX_TIME_MS = 253_402_300_799_999
"""The end of the year 9999, the last that a reply can hold."""


def metadata_text(metadata: Mapping[str, str]) -> str:
    """Returns metadata as it is stored; empty when there is none."""
    return json.dumps(metadata, separators=(",", ":"), ensure_ascii=False) if metadata else ""


def session_of(key: SessionKey, reply: Sequence[bytes | None]) -> Session:
    """Returns the session whose fields a script replied with. Raises `SessionDamaged`."""
    try:
        return _session_of(key, SessionFields._make(reply))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SessionDamaged from error


def _session_of(key: SessionKey, fields: SessionFields) -> Session:
    created_ms = int(fields.created)
    session = Session(
        key,
        fields.agent_id.decode(),
        fields.agent_uid.decode(),
        fields.user_id.decode() if fields.user_id else "",
        created_ms,
        int(fields.activity),
        int(fields.idle),
        int(fields.cap) - created_ms,
        int(fields.expire),
        int(fields.first or 1),
        int(fields.last or 0),
        int(fields.messages or 0),
        Usage(
            int(fields.prompt or 0),
            int(fields.completion or 0),
            int(fields.cached or 0),
            int(fields.reasoning or 0),
            int(fields.cache_write or 0),
        ),
        int(fields.revision or 0),
        int(fields.pinned or 0),
        _metadata(fields.metadata) if fields.metadata else {},
        _history_digest(fields),
        int(fields.parts or 0),
        fields.turn.decode() if fields.turn else "",
        fields.cancelled.decode() if fields.cancelled else "",
        _call_ids(fields.calls) if fields.calls else (),
    )
    _check_numbers(session)
    return session


def _check_numbers(session: Session) -> None:
    """Raises `ValueError` for numbers that no reply can hold, so that no list fails for one session in it."""
    used = session.usage
    times = (session.created_ms, session.activity_ms, session.idle_ms, session.expire_ms)
    counts = (
        *(session.turn_count, session.message_count, session.agent_revision, session.pinned_revision),
        *(session.first_turn, session.last_turn, session.part_bytes, used.prompt_tokens, used.completion_tokens),
        *(used.cached_tokens, used.reasoning_tokens, used.cache_write_tokens),
    )
    lifetime_ms = session.lifetime_ms
    if min(times) < 0 or max(times) > _MAX_TIME_MS or not -_MAX_TIME_MS <= lifetime_ms <= _MAX_TIME_MS:
        raise ValueError("a time of the session")
    if min(counts) < 0 or max(counts) > _MAX_COUNT:
        raise ValueError("a number of the session")


def _metadata(text: bytes) -> dict[str, str]:
    found: dict[str, str] = json.loads(text)
    _check_texts(*found, *found.values())
    return found


def _call_ids(text: bytes) -> tuple[str, ...]:
    found: tuple[str, ...] = tuple(json.loads(text))
    _check_texts(*found)
    return found


def _check_texts(*texts: str) -> None:
    for text in texts:
        text.encode()  # AttributeError for what is no text, ValueError for what is none in UTF-8


def _history_digest(fields: SessionFields) -> bytes:
    """Returns the digest that came with the newest turn: a replica of the previous release stores turns without one."""
    number, _, digest = (fields.history or b"").partition(b":")
    return digest if number == fields.last else b""
