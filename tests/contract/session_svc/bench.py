"""What a contract test works on: the three stores of one adapter, and a way to let time pass without waiting for it."""

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial

import redis

from contract.enums import BusyPolicy
from session_svc.model.limits import JournalBounds, LimitTimes
from session_svc.model.session import ListPosition, SessionBounds, SessionKey, SessionQuery
from session_svc.model.turn import BeginTurn, Begun, Committed, CommitTurn, Lease, RequestMark
from session_svc.ports import AgentStore, ClaimStore, JournalStore, LimitStore, SessionStore, TurnStore
from session_svc.redis_client.url import parse_redis_url
from session_svc.redis_store.agents import RedisAgents
from session_svc.redis_store.claims import RedisClaims
from session_svc.redis_store.indexes import IndexAdditions
from session_svc.redis_store.journal import RedisJournals
from session_svc.redis_store.limits import RedisLimits
from session_svc.redis_store.push_configs import RedisPushConfigs
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.sessions import RedisSessions
from session_svc.redis_store.turns import RedisTurns
from session_svc.redis_store.waiting_turns import NEVER, WaitingTurns, member_of
from session_svc.redis_store.wakeups import RedisWakes
from session_svc.wiring import open_redis
from tests.doubles.session_svc.memory_claims import MemoryClaims
from tests.doubles.session_svc.memory_journals import MemoryJournals
from tests.doubles.session_svc.memory_limits import MemoryLimits
from tests.doubles.session_svc.memory_state import MemoryState
from tests.doubles.session_svc.memory_store import MemoryAgents, MemorySessions
from tests.doubles.session_svc.memory_turns import MemoryTurns

JOURNAL = JournalBounds(keep_ms=60_000, max_bytes=10_000)
# Time of its own passes in Redis too, and more of it where the machine stalls: whatever must not run out is met by
# several seconds.
LIMITS = SessionBounds(
    lease_ms=30_000,
    claim_ms=14_000,
    queue_per_session=3,
    queue_per_limit=2,
    turns_per_session=50,
    replays_per_session=5,
    journal=JOURNAL,
)
UID = "5f0c7f0e-0000-4000-8000-000000000001"

# Everything that Redis keeps a time of, moved into the past.
_PASS_TIME = """
local ms = tonumber(ARGV[1])
local function digits(number) return string.format('%.0f', number) end
local ends = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local at = redis.call('PEXPIRETIME', key)
  if string.match(key, ':meta$') then
    for _, name in ipairs({'created', 'activity', 'expire', 'cap', 'until'}) do
      local value = redis.call('HGET', key, name)
      if value then redis.call('HSET', key, name, digits(tonumber(value) - ms)) end
    end
    local journals = redis.call('HGET', key, 'journals')
    if journals then
      redis.call('HSET', key, 'journals', (string.gsub(journals, '(,)([1-9]%d+)([;]?)$', function(before, ended, behind)
        return tonumber(ended) > 1e12 and before .. digits(tonumber(ended) - ms) .. behind or nil
      end)))
      journals = redis.call('HGET', key, 'journals')
      redis.call('HSET', key, 'journals', (string.gsub(journals, '(%d+)(%-%d+,%d+,0)', function(last, behind)
        return digits(tonumber(last) - ms) .. behind
      end)))
    end
  elseif string.match(key, ':replay$') then
    local records = redis.call('HGETALL', key)
    for i = 1, #records, 2 do
      if string.sub(records[i], 1, 1) == 'r' then
        local number, expiry, rest = string.match(records[i + 1], '^(%d+)|(%d+)|(.*)$')
        redis.call('HSET', key, records[i], number .. '|' .. digits(tonumber(expiry) - ms) .. '|' .. rest)
      end
    end
  elseif string.match(key, ':queue$') then
    for i, text in ipairs(redis.call('LRANGE', key, 0, -1)) do
      local turn, who, deadline, reserved = string.match(text, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
      reserved = tonumber(reserved)
      if reserved > 0 then reserved = reserved - ms end
      redis.call('LSET', key, i - 1, table.concat({turn, who, digits(tonumber(deadline) - ms), digits(reserved)}, '|'))
    end
  elseif string.match(key, '^idx:') or key == '{turns}:running'
    or (string.match(key, '^{limit:') and redis.call('TYPE', key).ok == 'zset') then
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -ms, member) end
  end
  if at > 0 then ends[key] = at - ms end
end
for key, at in pairs(ends) do redis.call('PEXPIREAT', key, digits(at)) end
"""


def number_field(number: int) -> bytes:
    """Return the field of a stored turn that holds its number, as it goes over the wire."""
    assert number < 128
    return b"\x10" + bytes([number])


def limit_times(limits: SessionBounds) -> LimitTimes:
    """Return the times of limits, with a longer one for waiters to ask again in."""
    return replace(limits.limit_times(), stand_ms=24_000)


@dataclass(frozen=True)
class Bench:
    """The stores of one adapter."""

    turns: TurnStore
    sessions: SessionStore
    agents: AgentStore
    turn_limits: LimitStore
    journals: JournalStore
    pass_time: Callable[[int], Coroutine[object, object, None]]
    limits: SessionBounds = LIMITS
    claims: ClaimStore | None = None
    forget_waiting: Callable[[SessionKey, str], Coroutine[object, object, None]] | None = None
    """Has the index of turns to look at lose one."""
    push_configs: RedisPushConfigs | None = None
    """Of Redis alone."""

    async def begin(
        self,
        turn_id: str = "t1",
        session: str = "s1",
        *,
        wait_ms: int = 0,
        window: int = 1000,
        busy: BusyPolicy = BusyPolicy.WAIT,
        uid: str = UID,
        user: str = "",
        request: RequestMark | None = None,
        must_exist: bool = False,
        idle_ms: int = 60_000,
        lifetime_ms: int = 3_600_000,
        project: str = "default",
        agent: str = "hello",
        metadata: Mapping[str, str] | None = None,
        continues: bool = False,
        parent: str = "",
        may_cut: bool = False,
        within_chain: bool = False,
        join_repeat: bool = False,
        waiter_id: str = "",
    ) -> object:
        """Calls `TurnStore.begin` with what a test does not care about filled in."""
        turn = BeginTurn(
            key=SessionKey(project, session),
            agent_id=agent,
            agent_uid=uid,
            turn_id=turn_id,
            user_id=user,
            window_messages=window,
            idle_ms=idle_ms,
            lifetime_ms=lifetime_ms,
            must_exist=must_exist,
            busy=busy,
            request=request,
            metadata=metadata or {},
            continues=continues,
            parent_id=parent,
            may_cut=may_cut,
            within_chain=within_chain,
            join_repeat=join_repeat,
        )
        return await self.turns.begin(turn, waiter_id or self.turns.new_waiter_id(), wait_ms)

    async def begun(self, turn_id: str = "t1", session: str = "s1", **more: object) -> Begun:
        """Begins a turn that must get the lease."""
        outcome = await self.begin(turn_id, session, **more)  # type: ignore[arg-type]
        assert isinstance(outcome, Begun), outcome
        return outcome

    async def commit(
        self,
        begun: Begun,
        *,
        messages: int = 2,
        continues: bool = False,
        request: RequestMark | None = None,
        turn: bytes | None = None,
        idle_ms: int = 60_000,
        history_digest: bytes = b"",
        cut_after: int | None = None,
        end_event: bytes = b"",
        events: tuple[bytes, ...] = (),
        first_event: int = 0,
    ) -> Committed:
        """Commits a turn whose bytes are its id."""
        return await self.turns.commit(
            CommitTurn(
                lease=begun.lease,
                turn=begun.lease.turn_id.encode() if turn is None else turn,
                message_count=messages,
                continues=continues,
                idle_ms=idle_ms,
                request=request,
                history_digest=history_digest,
                cut_after=cut_after,
                end_event=end_event,
                events=events,
                first_event=first_event,
            )
        )

    async def turn(self, turn_id: str, session: str = "s1", **more: object) -> Committed:
        """Begins and commits a turn."""
        return await self.commit(await self.begun(turn_id, session, **more))


class MemoryClock:
    """A clock that only tests move."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    async def pass_time(self, ms: int) -> None:
        self.ms += ms


def early_calls(turn: bytes) -> list[str]:
    """Returns what a turn of the tests says that it made."""
    return turn.partition(b"made:")[2].partition(b";")[0].decode().split()


def memory_bench(limits: SessionBounds = LIMITS) -> Bench:
    """Returns the in-memory adapter."""
    clock = MemoryClock()
    state = MemoryState(limits, lambda: clock.ms)
    turns = MemoryTurns(state)
    claims = MemoryClaims(state)

    async def forget(key: SessionKey, turn_id: str) -> None:
        claims.forget((key, turn_id))

    turn_limits = MemoryLimits(limit_times(limits), lambda: clock.ms, state.wake, turns.wait_for_wakeup)
    return Bench(
        turns,
        MemorySessions(state, early_calls),
        MemoryAgents(state),
        turn_limits,
        MemoryJournals(state, turns),
        clock.pass_time,
        limits,
        claims,
        forget,
    )


@contextlib.asynccontextmanager
async def redis_bench(url: str, limits: SessionBounds = LIMITS, *, compressing: bool = True) -> AsyncIterator[Bench]:
    """Yields the Redis adapter on an empty database, or on an empty cluster."""
    async with open_redis(url, 1) as ([link], dial), RedisWakes(dial).open() as wakes:
        await wakes.wait("listening", 5)  # whoever waits when the channel is subscribed is woken
        scripts = RedisScripts(link)
        index_additions = IndexAdditions()
        waiting = WaitingTurns(scripts, limits)
        turns = RedisTurns(scripts, wakes, limits, index_additions, compressing=compressing, waiting=waiting)

        turn_limits = RedisLimits(scripts, wakes, limit_times(limits))
        sessions = RedisSessions(
            scripts, turns, limits, index_additions, compressing=compressing, early_calls=early_calls
        )
        journals = RedisJournals(scripts, wakes, limits, waiting)
        claims = RedisClaims(scripts, limits, waiting)
        push_configs = RedisPushConfigs(scripts)

        async def forget(key: SessionKey, turn_id: str) -> None:
            await waiting.look_again(member_of(Lease(key, turn_id, 0)), NEVER)

        agents = RedisAgents(scripts)
        passing = partial(pass_time, url)
        yield Bench(turns, sessions, agents, turn_limits, journals, passing, limits, claims, forget, push_configs)


async def pass_time(url: str, ms: int) -> None:
    """Has everything in a Redis, or in a cluster, become older."""
    for client in clients_of(url):
        with client:
            client.eval(_PASS_TIME, 0, str(ms))


def clients_of(url: str) -> list[redis.Redis]:
    """Returns a client of each server that a URL names; the caller closes them. Of a cluster, that is every primary."""
    where = parse_redis_url(url)
    if isinstance(where, list):
        return [redis.Redis(host=seed["host"], port=seed["port"], password=seed["password"]) for seed in where]
    return [redis.Redis.from_url(url)]


async def ids(bench: Bench, query: SessionQuery, size: int = 100) -> list[str]:
    """Returns all session ids of a list, over all pages."""
    found: list[str] = []
    position: ListPosition | None = None
    while True:
        page = await bench.sessions.list_sessions(query, size, position)
        assert len(page.sessions) <= size
        found += [session.key.session_id for session in page.sessions]
        position = page.next
        if position is None:
            return found
