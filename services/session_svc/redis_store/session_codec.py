"""Sessions as scripts reply with them."""

import json
from collections.abc import Mapping, Sequence

from session_svc.model.session import Session, SessionKey, Usage


def metadata_text(metadata: Mapping[str, str]) -> str:
    """Returns metadata as it is stored; empty when there is none."""
    return json.dumps(metadata, separators=(",", ":"), ensure_ascii=False) if metadata else ""


def session_of(key: SessionKey, fields: Sequence[bytes | None]) -> Session:
    """Returns the session whose public fields a script replied with."""
    (agent_id, agent_uid, user_id, created, activity, idle, cap, expire, first, last) = fields[:10]
    (messages, prompt, completion, cached, revision, pinned, metadata) = fields[10:17]
    created_ms = int(created or 0)
    return Session(
        key,
        _text(agent_id),
        _text(agent_uid),
        _text(user_id),
        created_ms,
        int(activity or 0),
        int(idle or 0),
        int(cap or 0) - created_ms,
        int(expire or 0),
        int(first or 1),
        int(last or 0),
        int(messages or 0),
        Usage(int(prompt or 0), int(completion or 0), int(cached or 0)),
        int(revision or 0),
        int(pinned or 0),
        json.loads(metadata) if metadata else {},
    )


def _text(value: bytes | None) -> str:
    return value.decode() if value else ""
