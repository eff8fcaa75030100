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
from session_svc.redis_store.script_calls import (
    OTHER_CALLS,
    SESSION_CALLS,
    IndexCall,
    LimitCall,
    SessionCall,
    script_of,
)

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
        sources = {
            call: (folder / f"{script_of(call)}.lua").read_text("utf-8") for call in (*SESSION_CALLS, *OTHER_CALLS)
        }
        sources |= {call: prelude + sources[call] for call in SESSION_CALLS}
        self._hashes = {
            call: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest() for call, source in sources.items()
        }
        self._names: dict[Argument, str] = {digest: script_of(call) for call, digest in self._hashes.items()}
        self._sources = {self._hashes[call]: source for call, source in sources.items()}

    def command(self, key: SessionKey, call: SessionCall, *more: Argument) -> Command:
        """Returns the call of a script on one session; `more` comes behind the arguments that have names."""
        return ("EVALSHA", self._hashes[type(call)], 4, *session_keys(key), *call, *more)

    def index_command(self, index: str, call: IndexCall, *more: Argument) -> Command:
        """Returns the call of a script on one index; `more` comes behind the arguments that have names."""
        return ("EVALSHA", self._hashes[type(call)], 1, index, *call, *more)

    def limit_command(self, project: str, subject: str, call: LimitCall) -> Command:
        """Returns the call of a script on one limit."""
        return ("EVALSHA", self._hashes[type(call)], 5, *limit_keys(project, subject), *call)

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
        scripts = [self._names[command[1]] if command[0] == "EVALSHA" else "" for command in commands]
        names = [script or str(command[0]) for script, command in zip(scripts, commands, strict=True)]
        attributes: dict[str, traces.Attribute] = {
            "db.system.name": "redis",
            "db.operation.name": names,
            "db.operation.batch.size": len(commands),
        }
        name = next(filter(None, scripts), names[0])
        return traces.span(f"redis {name}", "client", attributes)

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
