"""Turns in Redis. Each operation is one round trip; only scripts decide."""

from collections.abc import Sequence
from dataclasses import replace

from session_svc.model.errors import (
    AgentDeleted,
    IdempotencyKeyReused,
    LeaseLost,
    SessionAgentMismatch,
    SessionBusy,
    SessionFull,
    SessionNotFound,
    TurnInterrupted,
    TurnQueueFull,
)
from session_svc.model.session import (
    BeginTurn,
    Begun,
    Committed,
    CommitTurn,
    Lease,
    Limits,
    Replayed,
    SessionKey,
    Waiting,
    WhenFull,
)
from session_svc.redis_client.link import Command, RedisUnavailable, Reply
from session_svc.redis_store.durability import Durability, TooFewReplicas
from session_svc.redis_store.indexes import IndexAdditions, KnownAgents, now_ms
from session_svc.redis_store.keys import fence_key, index_keys, turns_key
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.session_codec import metadata_text, session_of
from session_svc.redis_store.turn_codec import body_of, id_sum, stored_turn
from session_svc.redis_store.wakeups import RedisWakes
from session_svc.redis_store.window import Windows

MAX_TRIES = 3


class RedisTurns:
    """The `TurnStore` on Redis. With `compressing`, turns are stored compressed where that pays. Reads both kinds."""

    def __init__(
        self,
        scripts: RedisScripts,
        wakes: RedisWakes,
        limits: Limits,
        births: IndexAdditions,
        durability: Durability | None = None,
        *,
        compressing: bool = True,
    ) -> None:
        self._scripts = scripts
        self._wakes = wakes
        self._limits = limits
        self._agents = KnownAgents(scripts)
        self._births = births
        self._windows = Windows(scripts, limits.window_bytes)
        self._durability = durability or Durability([scripts])
        self._compressing = compressing

    def new_call(self) -> str:
        return self._wakes.new_call()

    async def woken(self, call: str, timeout: float) -> None:
        await self._wakes.wait(call, timeout)

    async def begin(self, turn: BeginTurn, call: str, wait_ms: int) -> Begun | Replayed | Waiting:
        for _ in range(MAX_TRIES):
            answer, elements, fenced = await self._begin(turn, call, wait_ms)
            if not turn.must_exist and (answer[0] != b"ok" or answer[3]):
                # Also what is refused may have made an index, which only goes away where it is swept.
                self._births.note(turn.key.project, index_keys(turn.key.project, turn.agent_id, turn.user_id))
            if fenced:
                await self._remove_leftovers(turn.key, turn.agent_uid, call)
                raise AgentDeleted(turn.agent_id)
            outcome = await self._outcome(turn, answer, elements)
            if outcome is not None:
                return outcome
        raise RedisUnavailable

    async def replayed(self, turn: BeginTurn) -> Replayed | None:
        request = turn.request
        if request is None:
            return None
        command = self._scripts.command(
            "replayed", turn.key, turn.turn_id, turn.agent_uid, turn.user_id, request.name, request.digest
        )
        [answer] = await self._run([command])
        return await self._replayed(turn.key, answer) if answer[0] == b"replay" else None

    async def _begin(self, turn: BeginTurn, call: str, wait_ms: int) -> tuple[list[Reply], list[bytes], bool]:
        """Returns the script's answer, the newest stored turns, and whether the agent is fenced."""
        indexes = self._index_commands(turn)
        read = self._windows.first_read(turn)
        rest: list[list[Command]] = [
            [self._begin_command(turn, call, wait_ms), *((read,) if read else ())],
            # After the script: a fence that is not seen here was set after the session was in the indexes, so that
            # whoever set it finds and removes the session.
            [("GET", fence_key(turn.key.project, turn.agent_uid))],
        ]
        try:
            replies = (await self._run(indexes, *rest))[len(indexes) :]
        except RedisUnavailable as error:
            self._agents.forget(turn.key.project, turn.agent_id, turn.agent_uid)
            if error.stage != 0:
                raise
            # The indexes are on a server that is away. A session that is there has been in them since it was made.
            rest[0][0] = self._begin_command(replace(turn, must_exist=True), call, wait_ms)
            replies = await self._run([], *rest)
            if replies[0][0] == b"missing" and not turn.must_exist:
                raise
        answer, *elements, fenced = replies
        return answer, elements[0] if elements else [], bool(fenced)

    async def leave(self, key: SessionKey, call: str) -> None:
        await self._scripts.run(self._scripts.command("leave", key, call, self._limits.claim_ms))

    async def renew(self, lease: Lease, call: str = "") -> Lease:
        command = self._scripts.command("renew", lease.key, lease.token, lease.turn_id, self._limits.lease_ms, call)
        [answer] = await self._run([command])
        if answer[0] != b"ok":
            raise _lost(answer[0], lease.key.session_id)
        return Lease(lease.key, lease.turn_id, lease.token, answer[1])

    async def commit(self, commit: CommitTurn) -> Committed:
        """A lost connection is followed by one repeat, which tells what happened."""
        command = self._commit_command(commit)
        try:
            answer, kept = await self._durability.run(command)
        except RedisUnavailable:
            answer, kept = await self._durability.run(command)
        session_id = commit.lease.key.session_id
        if answer[0] == b"crammed":
            raise SessionFull(session_id, self._limits.turns_per_session)
        if answer[0] != b"ok":
            raise _lost(answer[0], session_id)
        if not kept:
            raise TooFewReplicas
        return Committed(answer[1], answer[2])

    async def abort(self, lease: Lease) -> None:
        command = self._scripts.command("abort", lease.key, lease.token, lease.turn_id, self._limits.claim_ms)
        await self._run([command])

    async def _run(self, *stages: Sequence[Command]) -> list[Reply]:
        # Once more after a connection broke: each operation repeated is what it was the first time, so that the second
        # answer tells what became of the first.
        try:
            return await self._scripts.run_in_order(*stages)
        except RedisUnavailable:
            return await self._scripts.run_in_order(*stages)

    def _index_commands(self, turn: BeginTurn) -> list[Command]:
        # The score is this machine's clock, not Redis': it only orders lists.
        score, session_id = now_ms(), turn.key.session_id
        keys = index_keys(turn.key.project, turn.agent_id, turn.user_id)
        if turn.must_exist:
            return [("ZADD", key, "XX", score, session_id) for key in keys]
        commands: list[Command] = [("ZADD", key, score, session_id) for key in keys]
        agent = self._agents.command(turn.key.project, turn.agent_id, turn.agent_uid)
        return commands if agent is None else [*commands, agent]

    def _begin_command(self, turn: BeginTurn, call: str, wait_ms: int) -> Command:
        limits, request = self._limits, turn.request
        return self._scripts.command(
            "begin",
            turn.key,
            turn.turn_id,
            call,
            wait_ms,
            turn.busy.value,
            limits.queue_per_session,
            limits.lease_ms,
            limits.claim_ms,
            turn.agent_id,
            turn.agent_uid,
            turn.user_id,
            "1" if turn.must_exist else "0",
            turn.idle_ms,
            turn.lifetime_ms,
            request.name if request else b"",
            request.digest if request else b"",
            metadata_text(turn.metadata),
            limits.turns_per_session if limits.when_full is WhenFull.REFUSE else 0,
        )

    def _commit_command(self, commit: CommitTurn) -> Command:
        limits, request, usage = self._limits, commit.request, commit.usage
        body, flags = body_of(commit.turn, continues=commit.continues, compressing=self._compressing)
        return self._scripts.command(
            "commit",
            commit.lease.key,
            commit.lease.token,
            commit.lease.turn_id,
            body,
            commit.message_count,
            flags,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            commit.agent_revision,
            commit.idle_ms,
            request.name if request else b"",
            request.digest if request else b"",
            limits.replay_ms,
            limits.replays_per_session,
            limits.turns_per_session,
            "1" if limits.when_full is WhenFull.DROP_OLDEST else "0",
            limits.claim_ms,
            id_sum(commit.lease.turn_id),
        )

    async def _outcome(
        self, turn: BeginTurn, answer: Sequence[Reply], elements: list[bytes]
    ) -> Begun | Replayed | Waiting | None:
        """Returns what a script's answer means, None to ask again; raises what it refused with."""
        key = turn.key
        match answer[0]:
            case b"ok":
                lease = Lease(key, turn.turn_id, answer[1], answer[2])
                window = await self._windows.complete(turn, lease, elements)
                return Begun(session_of(key, answer[4]), lease, window, bool(answer[3]))
            case b"replay":
                return await self._replayed(key, answer)
            case b"wait":
                return Waiting(answer[1])
            case b"mismatch":
                if await self._belongs_to_deleted(key, answer[1].decode()):
                    return None
                raise SessionAgentMismatch(key.session_id, turn.agent_id)
            case b"busy":
                raise SessionBusy(key.session_id, answer[1] / 1000)
            case b"full":
                raise TurnQueueFull(key.session_id, self._limits.queue_per_session, answer[1] / 1000)
            case b"crammed":
                raise SessionFull(key.session_id, self._limits.turns_per_session)
            case b"reused":
                raise IdempotencyKeyReused(turn.request.request_id if turn.request else "")
        raise SessionNotFound(key.session_id)

    async def _replayed(self, key: SessionKey, answer: Sequence[Reply]) -> Replayed | None:
        number, first, fields = answer[1], answer[2], answer[3]
        session = session_of(key, fields)
        element, again = await self._scripts.run(
            ("LINDEX", turns_key(key), number - first), self._scripts.command("read", key, "")
        )
        if again[0] != b"ok" or session_of(key, again[1]).created_ms != session.created_ms or element is None:
            return None
        found = stored_turn(element)
        if found.number != number:
            return None
        turn = found.turn()
        if self._durability.replicas:
            # Whoever committed it may have been told that too few replicas had it: this answer acknowledges it.
            await self._durability.keep(self._scripts.command("confirm", key))
        return Replayed(session, turn)

    async def _belongs_to_deleted(self, key: SessionKey, agent_uid: str) -> bool:
        [fenced] = await self._scripts.run(("GET", fence_key(key.project, agent_uid)))
        if fenced:
            await self._remove_leftovers(key, agent_uid)
        return bool(fenced)

    async def _remove_leftovers(self, key: SessionKey, agent_uid: str, call: str = "") -> None:
        claim_ms = self._limits.claim_ms
        await self._scripts.run(
            self._scripts.command("delete", key, "", agent_uid, "", "", claim_ms),
            *((self._scripts.command("leave", key, call, claim_ms),) if call else ()),
        )


def _lost(answer: bytes, session_id: str) -> LeaseLost | TurnInterrupted:
    return TurnInterrupted(session_id) if answer == b"interrupted" else LeaseLost(session_id)
