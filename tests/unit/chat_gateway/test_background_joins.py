"""Background turns that can't be queued, or are asked for again while an earlier request with their id is under way."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from access.caller import Caller, note_user_token
from chat_gateway.background import BackgroundTurns
from chat_gateway.model.background import TurnProgress, TurnStatus
from chat_gateway.model.stored_turn import Begun
from chat_gateway.model.tools import ServerTools
from servicekit.errors import Cancelled, Code, Draining, InvalidArgument, ServiceError
from tests.doubles.chat_gateway.sessions import remote
from tests.unit.chat_gateway.world import World, asks, make_config

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Claims:
    """Says how far the joined turn is: one answer each time, the last one again and again."""

    def __init__(self, *answers: TurnProgress | ServiceError) -> None:
        self.answers = list(answers)
        self.handed_over = 0

    async def progress(self, *_: str) -> TurnProgress:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ServiceError):
            raise answer
        return answer

    async def hand_over(self, *_: Any, **__: Any) -> None:
        self.handed_over += 1


class Stored:
    async def outcome(self, *_: str) -> None:
        return None


class Woken:
    def wake(self) -> None:
        pass


def submissions(claims: Claims, joins: int) -> tuple[BackgroundTurns, World]:
    """Submissions whose first `joins` begins say that another turn of the request is under way."""
    world = World()
    begin = world.sessions.begin
    left = joins

    async def begin_or_join(*asked: Any) -> Begun:
        nonlocal left
        if not left:
            return await begin(*asked)
        left -= 1
        begun = await begin(replace(asked[0], session_id="other", request_id=""), *asked[1:])
        world.aborts.start(begun.lease)  # type: ignore[arg-type]
        return replace(begun, session_id="s", lease=None, joined_turn_id="joined")

    world.sessions.begin = begin_or_join  # type: ignore[method-assign]
    turns = BackgroundTurns(
        configs=world.configs,
        sessions=world.sessions,
        claims=claims,  # type: ignore[arg-type]
        stored=Stored(),  # type: ignore[arg-type]
        aborts=world.aborts,
        scheduler=world.scheduler,
        pickups=Woken(),  # type: ignore[arg-type]
    )
    return turns, world


RUNNING = TurnProgress(TurnStatus.RUNNING, 1, "hello", 1, NOW, None)
UNKNOWN = replace(RUNNING, agent_id="", agent_revision=0, begin_time=None)
"""It has no journal: whether it is ever queued is not known."""


async def test_a_turn_that_is_queued_is_joined() -> None:
    turns, _ = submissions(Claims(UNKNOWN, RUNNING), joins=2)
    assert (await turns.submit(asks(session_id="s", request_id="r"))).turn_id == "joined"


@pytest.mark.parametrize(
    "end", [remote("TURN_NOT_FOUND", Code.NOT_FOUND), replace(RUNNING, status=TurnStatus.FAILED, ended=Cancelled())]
)
async def test_one_that_ended_before_it_was_queued_is_not(end: TurnProgress | ServiceError) -> None:
    claims = Claims(UNKNOWN, end)
    turns, _ = submissions(claims, joins=2)
    state = await turns.submit(asks(session_id="s", request_id="r"))
    assert state.turn_id != "joined"
    assert (state.status, claims.handed_over) == (TurnStatus.QUEUED, 1)


@pytest.mark.parametrize("is_pinned", [False, True])
async def test_a_turn_that_passes_its_user_s_token_on_is_not_queued(*, is_pinned: bool) -> None:
    """The token is never stored: whoever took the turn from the queue would not have it."""
    claims = Claims(RUNNING)
    turns, world = submissions(claims, joins=0)
    forwards = make_config(tools=(ServerTools("crm", forward_user_token=True),))
    if is_pinned:
        world.sessions.pinned_revision = 3
        world.configs.revisions[forwards.uid, 3] = forwards
    else:
        world.configs.known[forwards.project, forwards.id] = forwards
    note_user_token(Caller("token:ann", "default", frozenset({"chat"})), "token-of-the-user")
    with pytest.raises(InvalidArgument, match="token"):
        await turns.submit(asks(session_id="s"))
    assert claims.handed_over == 0
    note_user_token(Caller("key-1", "default", frozenset({"chat"})), "pk_an-api-key")
    assert (await turns.submit(asks(session_id="s2"))).status is TurnStatus.QUEUED


async def test_a_gateway_that_stops_queues_none() -> None:
    claims = Claims(RUNNING)
    turns, world = submissions(claims, joins=0)
    assert await world.scheduler.drain(60)
    with pytest.raises(Draining):
        await turns.submit(asks(session_id="s"))
    assert (claims.handed_over, world.sessions.begun_uids) == (0, [])
