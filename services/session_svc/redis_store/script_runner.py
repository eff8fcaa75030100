"""Runs Redis commands, the scripts of sessions, limits and indexes among them."""

import hashlib
import time
from collections.abc import Callable, Sequence
from importlib import resources

import hiredis

from servicekit import traces
from session_svc.model.session import SessionKey
from session_svc.redis_client.link import Argument, Command, Link, RedisFault, RedisUnavailable, Reply
from session_svc.redis_store.keys import limit_keys, session_keys

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
        return ("EVALSHA", self._hashes[name], 4, *session_keys(key), *arguments)

    def index_command(self, name: str, index: str, *arguments: Argument) -> Command:
        """Returns the call of a script on one index."""
        return ("EVALSHA", self._hashes[name], 1, index, *arguments)

    def limit_command(self, name: str, project: str, subject: str, *arguments: Argument) -> Command:
        """Returns the call of a script on one limit."""
        return ("EVALSHA", self._hashes[name], 5, *limit_keys(project, subject), *arguments)

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


def _first_error(replies: Sequence[Reply]) -> int | None:
    for index, reply in enumerate(replies):
        if isinstance(reply, hiredis.ReplyError):
            return index
    return None


def _is_unknown_script(reply: Reply) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")
