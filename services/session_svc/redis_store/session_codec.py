"""Sessions as scripts reply with them."""

import json
from collections.abc import Mapping, Sequence

from session_svc.model.errors import SessionDamaged
from session_svc.model.session import Session, SessionKey, Usage
from session_svc.redis_store.script_replies import SessionFields


def metadata_text(metadata: Mapping[str, str]) -> str:
    """Returns metadata as it is stored; empty when there is none."""
    return json.dumps(metadata, separators=(",", ":"), ensure_ascii=False) if metadata else ""


def session_of(key: SessionKey, reply: Sequence[bytes | None]) -> Session:
    """Returns the session whose fields a script replied with. Raises `SessionDamaged`."""
    try:
        return _session_of(key, SessionFields._make(reply))
    except (ValueError, TypeError, AttributeError) as error:
        raise SessionDamaged from error


def _session_of(key: SessionKey, fields: SessionFields) -> Session:
    created_ms = int(fields.created)
    return Session(
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
        json.loads(fields.metadata) if fields.metadata else {},
        _history_digest(fields),
        int(fields.parts or 0),
        fields.turn.decode() if fields.turn else "",
        fields.cancelled.decode() if fields.cancelled else "",
        tuple(json.loads(fields.calls)) if fields.calls else (),
    )


def _history_digest(fields: SessionFields) -> bytes:
    """Returns the digest that came with the newest turn: a replica of the previous release stores turns without one."""
    number, _, digest = (fields.history or b"").partition(b":")
    return digest if number == fields.last else b""
