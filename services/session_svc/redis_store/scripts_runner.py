"""What all of session_svc's Redis adapters share: keys, scripts, and how stored values are read.

All keys of one session share a hash tag, so they live in one slot and one script sees them together. Indexes, fences
and the feed's cursor live in other slots. Indexes are written before a session exists, may hold members that do not
exist (any more), and never decide whether one does.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import resources

import hiredis
from cachetools import LRUCache

from servicekit import traces
from session_svc.model.session import Session, SessionKey, Usage
from session_svc.redis_client.link import Argument, Command, Link, RedisFault, RedisUnavailable, Reply

SCRIPTS = (
    "begin",
    "renew",
    "commit",
    "abort",
    "leave",
    "create",
    "read",
    "update",
    "delete",
    "append",
    "confirm",
    "replayed",
)
INDEX_SCRIPTS = ("sweep",)
LIMIT_SCRIPTS = ("limit_take", "limit_keep", "limit_free")

# Redis is there but can't do its work now: it loads its data, has been demoted (perhaps before a WAIT, or during one),
# or has no memory or disk left.
_PASSING_FAULTS = (
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "OOM",
    "MISCONF",
    "BUSY",
    "NOREPLICAS",
)
_DEMOTED = ("READONLY", "UNBLOCKED", "ERR WAIT cannot be used with replica")
_TEACH_TRIES = 3

AGENTS_KEY = "agents"
REMEMBER_AGENT_SECONDS = 3600.0
MAX_AGENTS = 10_000
MAX_INDEXES = 10_000


class RedisScripts:
    """Runs commands, scripts among them. A Redis that does not know a script (it was restarted) is taught it."""

    def __init__(self, link: Link, measure: Callable[[float], None] | None = None) -> None:
        self.link = link
        self.under_way = 0
        """Calls that wait for Redis now."""
        self._measure = measure or (lambda seconds: None)
        folder = resources.files("session_svc.redis_store") / "scripts"
        prelude = (folder / "prelude.lua").read_text("utf-8")
        sources = {name: prelude + (folder / f"{name}.lua").read_text("utf-8") for name in SCRIPTS}
        sources |= {name: (folder / f"{name}.lua").read_text("utf-8") for name in (*INDEX_SCRIPTS, *LIMIT_SCRIPTS)}
        self._hashes = {
            name: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest() for name, source in sources.items()
        }
        self._names: dict[Argument, str] = {digest: name for name, digest in self._hashes.items()}
        self._sources = {self._hashes[name]: source for name, source in sources.items()}

    def command(self, name: str, key: SessionKey, *arguments: Argument) -> Command:
        """Returns the call of a script on one session."""
        tag = f"{{{key.project}:{key.session_id}}}"
        keys = (f"{tag}:meta", f"{tag}:turns", f"{tag}:replay", f"{tag}:queue")
        return ("EVALSHA", self._hashes[name], 4, *keys, *arguments)

    def index_command(self, name: str, index: str, *arguments: Argument) -> Command:
        """Returns the call of a script on one index."""
        return ("EVALSHA", self._hashes[name], 1, index, *arguments)

    def limit_command(self, name: str, project: str, subject: str, *arguments: Argument) -> Command:
        """Returns the call of a script on one limit."""
        tag = f"{{limit:{project}:{subject}}}"
        keys = (f"{tag}:begun", f"{tag}:held", f"{tag}:since", f"{tag}:till", f"{tag}:calls")
        return ("EVALSHA", self._hashes[name], len(keys), *keys, *arguments)

    async def run(self, *commands: Command) -> list[Reply]:
        """Returns the replies of one stage: see `Link.send_in_order`. Raises `RedisUnavailable`, `RedisFault`."""
        return await self.run_in_order(commands)

    async def run_in_order(self, *stages: Sequence[Command]) -> list[Reply]:
        """Returns the replies of all stages: see `Link.send_in_order`. Raises `RedisUnavailable`, `RedisFault`."""
        start = time.perf_counter()
        self.under_way += 1
        try:
            if traces.on():
                with self._span([command for stage in stages for command in stage]):
                    replies = await self.link.send_in_order(*stages)
            else:
                replies = await self.link.send_in_order(*stages)
        finally:
            self.under_way -= 1
        self._measure(time.perf_counter() - start)
        for _ in range(_TEACH_TRIES):
            refused = _first_error(replies)
            if refused is None:
                return replies
            if not _is_unknown_script(replies[refused]):
                break
            await self._teach(stages, replies, refused)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise self._error_of(reply)
        return replies

    def _span(self, commands: Sequence[Command]) -> traces.Span:
        names = [
            self._names.get(command[1], "EVALSHA") if command[0] == "EVALSHA" else str(command[0])
            for command in commands
        ]
        attributes: dict[str, traces.Attribute] = {
            "db.system.name": "redis",
            "db.operation.name": names,
            "db.operation.batch.size": len(commands),
        }
        script = next((name for name in names if name in self._hashes), names[0])
        return traces.span(f"redis {script}", "client", attributes)

    async def _teach(self, stages: Sequence[Sequence[Command]], replies: list[Reply], first: int) -> None:
        """Sends scripts that were not known with their source, and what is no script and stands behind the first again.

        A script that another server knew has run, and its reply stands: not every script answers a repeat the same.
        """
        places: list[int] = []
        again: list[list[Command]] = []
        index = 0
        for stage in stages:
            again.append([])
            for command in stage:
                if _is_unknown_script(replies[index]):
                    places.append(index)
                    again[-1].append(("EVAL", self._sources[str(command[1])], *command[2:]))
                elif index > first and command[0] != "EVALSHA":
                    places.append(index)
                    again[-1].append(command)
                index += 1
        for place, reply in zip(places, await self.link.send_in_order(*again), strict=True):
            replies[place] = reply

    def _error_of(self, reply: hiredis.ReplyError) -> Exception:
        text = str(reply)
        if text.startswith(_DEMOTED):
            self.link.demoted()
            return RedisUnavailable()
        return RedisUnavailable() if text.partition(" ")[0] in _PASSING_FAULTS else RedisFault(text)


class KnownAgents:
    """Which agents this replica has put into Redis' set of agents lately, so that not every turn writes it again."""

    def __init__(self, scripts: RedisScripts) -> None:
        self._link = scripts.link
        self._seen: LRUCache[str, tuple[int, float]] = LRUCache(MAX_AGENTS)

    def command(self, project: str, agent_id: str, agent_uid: str) -> Command | None:
        """Returns what puts an agent there; None when it is there."""
        member = f"{project}:{agent_id}:{agent_uid}"
        now = time.monotonic()
        generation, until = self._seen.get(member, (0, 0.0))
        if until > now and generation == self._link.generation:
            return None
        self._seen[member] = (self._link.generation, now + REMEMBER_AGENT_SECONDS)
        return ("ZADD", AGENTS_KEY, now_ms(), member)

    def forget(self, project: str, agent_id: str, agent_uid: str) -> None:
        """Notes that the agent may not have got there: Redis refused, or was away."""
        self._seen.pop(f"{project}:{agent_id}:{agent_uid}", None)


class IndexAdditions:
    """Counts sessions made or refused, by project and index; of too many indexes the least recent are forgotten."""

    def __init__(self) -> None:
        self._counts: LRUCache[tuple[str, str], int] = LRUCache(MAX_INDEXES)

    def note(self, project: str, indexes: list[str], count: int = 1) -> None:
        """Counts a session, or several."""
        for index in indexes:
            self._counts[project, index] = self._counts.get((project, index), 0) + count

    def take(self) -> list[tuple[str, str, int]]:
        """Returns project, index and count of all, and begins anew."""
        taken = [(project, index, count) for (project, index), count in self._counts.items()]
        self._counts.clear()
        return taken


def _first_error(replies: Sequence[Reply]) -> int | None:
    for index, reply in enumerate(replies):
        if isinstance(reply, hiredis.ReplyError):
            return index
    return None


def _is_unknown_script(reply: Reply) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")


def now_ms() -> int:
    """Returns this machine's time, which only orders lists: whatever is decided, scripts decide by Redis' own."""
    return int(time.time() * 1000)


def turns_key(key: SessionKey) -> str:
    """Returns where a session's turns are."""
    return f"{{{key.project}:{key.session_id}}}:turns"


def fence_key(project: str, agent_uid: str) -> str:
    """Returns where the fence of one life of an agent is."""
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


def narrowest_index(project: str, agent_id: str, user_id: str) -> str:
    """Returns the smallest index that holds every session of this agent (where given) and user (where given)."""
    if user_id:
        return f"idx:user:{{{project}:{user_id}}}"
    if agent_id:
        return f"idx:agent:{{{project}:{agent_id}}}"
    return f"idx:project:{{{project}}}"


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
