"""The names of Redis keys.

All keys of one session share a hash tag, so they live in one slot and one script sees them together; so do those of one
limit, and those of the turns that wait for a gateway. Indexes, fences and the feed's cursor live in other slots.
"""

from session_svc.model.session import SessionKey

AGENTS_KEY = "agents"
CURSOR_KEY = "follower:cursor"
SESSION_KEYS = 6
"""The keys of one session."""


WAITING_KEYS = ("{turns}:running", "{turns}:queued", "{turns}:shares")
"""The keys of the turns that may wait for a gateway, in the order in which their scripts take them."""


def session_keys(key: SessionKey) -> tuple[str, ...]:
    """Returns the keys of a session, in the order in which its scripts take them."""
    tag = f"{{{key.project}:{key.session_id}}}"
    return (f"{tag}:meta", f"{tag}:turns", f"{tag}:replay", f"{tag}:queue", f"{tag}:journal", f"{tag}:parts")


def limit_keys(project: str, subject: str) -> tuple[str, ...]:
    """Returns the keys of a limit, in the order in which its scripts take them."""
    tag = f"{{limit:{project}:{subject}}}"
    return (f"{tag}:begun", f"{tag}:held", f"{tag}:since", f"{tag}:till", f"{tag}:calls")


def rebuilt_as(key: str) -> tuple[str, str] | None:
    """Returns what a key is and the type that it must have, where its content comes again by itself; None elsewhere.

    Indexes and the set of agents are written by every session that is made, queues by those who wait; a journal ends
    with its turn, a limit forgets within a minute, and a follower without a cursor compares everything.
    """
    if key.startswith("idx:"):
        return "index", "zset"
    if key == AGENTS_KEY:
        return "agents", "zset"
    if key == CURSOR_KEY:
        return "cursor", "string"
    return _REBUILT_PARTS.get(key.rpartition(":")[2]) if key.startswith("{") else None


_REBUILT_PARTS = dict.fromkeys(("begun", "held", "since", "till"), ("limit", "zset")) | {
    "calls": ("limit", "hash"),
    "queue": ("queue", "list"),
    "journal": ("journal", "stream"),
    "running": ("running turns", "zset"),
    "queued": ("queued turns", "zset"),
    "shares": ("queued turns", "hash"),
}


def aside_key(key: str) -> str:
    """Returns where a key of a wrong type is put, in the same slot."""
    return f"damaged:{key}" if "{" in key else f"damaged:{{{key}}}"


def turns_key(key: SessionKey) -> str:
    """Returns where a session's turns are."""
    return f"{{{key.project}:{key.session_id}}}:turns"


def parts_key(key: SessionKey) -> str:
    """Returns where the contents are that a session keeps beside its turns."""
    return f"{{{key.project}:{key.session_id}}}:parts"


def fence_key(project: str, agent_uid: str) -> str:
    """Returns where the fence of an incarnation of an agent is."""
    return f"fence:{{{project}:{agent_uid}}}"


def project_index(project: str) -> str:
    """Returns the index that every session of a project is in."""
    return f"idx:project:{{{project}}}"


def index_keys(project: str, agent_id: str, user_id: str) -> list[str]:
    """Returns the indexes that a session of this agent and user is in."""
    keys = [project_index(project), f"idx:agent:{{{project}:{agent_id}}}"]
    if user_id:
        keys.append(f"idx:user:{{{project}:{user_id}}}")
    return keys


def children_index(project: str, session_id: str) -> str:
    """Returns the index of the sessions that hang on this one."""
    return f"idx:children:{{{project}:{session_id}}}"


def narrowest_index(project: str, agent_id: str, user_id: str) -> str:
    """Returns the smallest index that holds every session of this agent (where given) and user (where given)."""
    if user_id:
        return f"idx:user:{{{project}:{user_id}}}"
    if agent_id:
        return f"idx:agent:{{{project}:{agent_id}}}"
    return f"idx:project:{{{project}}}"
