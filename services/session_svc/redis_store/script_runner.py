"""Runs Redis commands, the scripts of sessions, limits and indexes among them."""

import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources

import hiredis
import structlog

from servicekit import traces
from session_svc.model.errors import SessionDamaged
from session_svc.model.session import SessionKey
from session_svc.redis_client.link import Argument, Command, Link, RedisFault, RedisUnavailable, Reply
from session_svc.redis_store.keys import SESSION_KEYS, WAITING_KEYS, aside_key, limit_keys, rebuilt_as, session_keys
from session_svc.redis_store.script_calls import (
    OTHER_CALLS,
    SESSION_CALLS,
    IndexCall,
    LimitCall,
    SessionCall,
    WaitingCall,
    script_of,
)

# Redis is there but can't do its work now: it loads its data, has been demoted (perhaps before a WAIT, or during one),
# or has no memory or disk left, or this user has no right to do it.
_PASSING_FAULTS = (
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "OOM",
    "MISCONF",
    "BUSY",
    "NOREPLICAS",
    "NOPERM",
    "NOAUTH",
)
_NO_COMMAND = re.compile(r"ERR (ACL failure in script|unknown command|unknown \w+ command called from)", re.IGNORECASE)
"""A right is missing, or a command: servers of some providers have renamed or disabled some."""
_DEMOTED = ("READONLY", "UNBLOCKED", "ERR WAIT cannot be used with replica")
# A key of a wrong type, or a value in it that is none of those that scripts write.
_DAMAGE = re.compile(
    r"WRONGTYPE|user_script.*(attempt to |bad argument|data string too short|Missing bytes in input|Bad data format"
    r"|stack overflow|too many results|number overflow)"
    r"|hash value is not an? |not an integer or out of range|not a valid float|would overflow"
    r"|invalid expire time|stream has exhausted|smaller than the target stream|exceeds maximum allowed size"
)
_TRIES = 4
SHARED_SOURCES = ("prelude", "journal")
"""The text before every script of a session."""
PROBE_SCRIPT = """
redis.call('TIME') redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'a', '1') redis.call('HGETALL', KEYS[1]) redis.call('HDEL', KEYS[1], 'a')
redis.call('RPUSH', KEYS[1], '1') redis.call('LRANGE', KEYS[1], 0, -1) redis.call('LPOP', KEYS[1])
redis.call('ZADD', KEYS[1], 1, 'a') redis.call('ZRANGE', KEYS[1], 0, -1) redis.call('ZREM', KEYS[1], 'a')
redis.call('XADD', KEYS[1], '*', 'a', '1') redis.call('XRANGE', KEYS[1], '-', '+')
redis.call('PEXPIRE', KEYS[1], 60000) redis.call('DEL', KEYS[1])
redis.call('PUBLISH', 'wake:probe', '')
"""
"""Fails where a script may not do on its key what turns do: a right is missing, or Redis takes no writes."""
ASIDE_MS = 30 * 24 * 60 * 60 * 1000
"""How long a key of a wrong type is kept where it was put."""

log = structlog.get_logger("session_svc.redis")


class RedisScripts:
    """Runs commands, scripts among them.

    A Redis that does not know a script (it was restarted) is taught it. A key of a wrong type whose content comes again
    by itself is put aside (`keys.aside_key`), and what failed for it is run once more.
    """

    def __init__(
        self,
        link: Link,
        measure: Callable[[float], None] | None = None,
        on_damage: Callable[[str], None] | None = None,
    ) -> None:
        self.link = link
        self._on_damage = on_damage or (lambda kind: None)
        self._put_aside = 0
        self.under_way = 0
        """Calls that wait for Redis now."""
        self._measure = measure or (lambda seconds: None)
        folder = resources.files("session_svc.redis_store") / "scripts"
        prelude = "".join((folder / f"{name}.lua").read_text("utf-8") for name in SHARED_SOURCES)
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
        return ("EVALSHA", self._hashes[type(call)], SESSION_KEYS, *session_keys(key), *call, *more)

    def index_command(self, index: str, call: IndexCall, *more: Argument) -> Command:
        """Returns the call of a script on one index; `more` comes behind the arguments that have names."""
        return ("EVALSHA", self._hashes[type(call)], 1, index, *call, *more)

    def limit_command(self, project: str, subject: str, call: LimitCall) -> Command:
        """Returns the call of a script on one limit."""
        return ("EVALSHA", self._hashes[type(call)], 5, *limit_keys(project, subject), *call)

    def waiting_command(self, call: WaitingCall) -> Command:
        """Returns the call of a script on the turns that wait for a gateway."""
        return ("EVALSHA", self._hashes[type(call)], len(WAITING_KEYS), *WAITING_KEYS, *call)

    @property
    def generation(self) -> int:
        """Another number means that Redis may have lost what was written there: see `Link.generation`."""
        return self.link.generation + self._put_aside

    def run(self, *commands: Command) -> Awaitable[list[Reply]]:
        """Returns the replies of one stage: see `Link.send_in_order`.

        Raises `RedisUnavailable`, `RedisFault`, `SessionDamaged`.
        """
        return self.run_in_order(commands)

    async def run_each(self, *commands: Command) -> list[Reply]:
        """As `run`, for commands on several sessions: a `SessionDamaged` takes the place of its reply."""
        replies = await self._sent(commands)
        if _first_error(replies) is None:
            return replies
        return self._checked(await self._with_second_tries((commands,), replies), raising=False)

    async def run_in_order(self, *stages: Sequence[Command]) -> list[Reply]:
        """Returns the replies of all stages: see `Link.send_in_order`. Raises as `run` does."""
        replies = await self._sent(*stages)
        if _first_error(replies) is None:
            return replies
        return self._checked(await self._with_second_tries(stages, replies))

    async def _sent(self, *stages: Sequence[Command]) -> list[Reply]:
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
        return replies

    async def _with_second_tries(self, stages: Sequence[Sequence[Command]], replies: list[Reply]) -> list[Reply]:
        """Returns the replies after what was refused has run again, where that helps."""
        for _ in range(_TRIES):
            refused = _first_error(replies)
            if refused is None:
                break
            if _is_unknown_script(replies[refused]):
                await self._again(stages, replies, _is_unknown_script)
            elif await self._mend([command for stage in stages for command in stage], replies):
                await self._again(stages, replies, _is_wrong_type)
            else:
                break
        return replies

    def _checked(self, replies: list[Reply], *, raising: bool = True) -> list[Reply]:
        """Returns the replies with errors for those that Redis refused, or raises the first of them."""
        for place, reply in enumerate(replies):
            if isinstance(reply, hiredis.ReplyError):
                error = self._error_of(reply)
                if raising or not isinstance(error, SessionDamaged):
                    raise error
                replies[place] = error
        return replies

    async def _mend(self, commands: Sequence[Command], replies: Sequence[Reply]) -> bool:
        """Puts aside keys of a wrong type that commands were refused for; returns whether there were any."""
        refused = [command for command, reply in zip(commands, replies, strict=True) if _is_wrong_type(reply)]
        wanted = {key: part for command in refused for key in _keys_of(command) if (part := rebuilt_as(key))}
        if not wanted:
            return False
        types = await self.link.send_in_order([("TYPE", key) for key in wanted])
        mended = False
        for (key, (kind, right)), found in zip(wanted.items(), types, strict=True):
            if not isinstance(found, bytes) or found in (right.encode(), b"none"):
                continue
            aside = aside_key(key)
            moved, _ = await self.link.send_in_order([("RENAME", key, aside), ("PEXPIRE", aside, ASIDE_MS)])
            if isinstance(moved, hiredis.ReplyError) and "no such key" not in str(moved):
                continue
            mended = True
            self._put_aside += 1
            self._on_damage(kind)
            log.error("redis_key_put_aside", kind=kind, found=found.decode(), wanted=right, see="damaged:*")
        return mended

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

    async def _again(
        self, stages: Sequence[Sequence[Command]], replies: list[Reply], failed: Callable[[Reply], bool]
    ) -> None:
        """Sends again what failed, scripts with their source, and what is no script and stands behind the first of it.

        A script that another server knew has run, and its reply stands: not every script answers a repeat the same.
        """
        places: list[int] = []
        again: list[list[Command]] = []
        index = 0
        for stage in stages:
            again.append([])
            for command in stage:
                is_script = command[0] == "EVALSHA"
                if failed(replies[index]) or (places and not is_script):
                    places.append(index)
                    source = ("EVAL", self._sources[str(command[1])], *command[2:]) if is_script else command
                    again[-1].append(source)
                index += 1
        for place, reply in zip(places, await self.link.send_in_order(*again), strict=True):
            replies[place] = reply

    def _error_of(self, reply: hiredis.ReplyError) -> Exception:
        text = str(reply)
        if text.startswith(_DEMOTED):
            self.link.demoted()
            return RedisUnavailable()
        if _DAMAGE.search(text):
            self._on_damage("session")
            log.error("redis_data_damaged", error=text[:200])
            return SessionDamaged()
        passing = _NO_COMMAND.match(text) is not None or text.partition(" ")[0] in _PASSING_FAULTS
        return RedisUnavailable(text[:200]) if passing else RedisFault(text)


def _first_error(replies: Sequence[Reply]) -> int | None:
    for index, reply in enumerate(replies):
        if isinstance(reply, hiredis.ReplyError):
            return index
    return None


def _is_unknown_script(reply: Reply) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")


def _is_wrong_type(reply: Reply) -> bool:
    return isinstance(reply, hiredis.ReplyError) and "WRONGTYPE" in str(reply)


def _keys_of(command: Command) -> list[str]:
    keys = command[3 : 3 + int(command[2])] if command[0] == "EVALSHA" else command[1:2]
    return [key if isinstance(key, str) else str(key) for key in keys]
