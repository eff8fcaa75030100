"""Beginning a turn: what becomes of a call that is cancelled, and when a wait ends."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from contract.enums import BusyPolicy
from session_svc.metrics import Metrics
from session_svc.model.errors import SessionBusy
from session_svc.model.limits import LimitTimes
from session_svc.model.session import SessionBounds, SessionKey
from session_svc.model.turn import BeginTurn, Begun, Replayed, RequestMark, Waiting
from session_svc.turn_limits import TurnLimiter
from session_svc.turns import Turns
from tests.doubles.session_svc.memory_limits import MemoryLimits
from tests.doubles.session_svc.memory_state import MemoryState
from tests.doubles.session_svc.memory_turns import MemoryTurns


class SlowTurns(MemoryTurns):
    """Does what it is told, and answers late."""

    delay = 0.05

    async def begin(self, turn: BeginTurn, waiter_id: str, wait_ms: int) -> Begun | Replayed | Waiting:
        outcome = await super().begin(turn, waiter_id, wait_ms)
        await asyncio.sleep(self.delay)
        return outcome


def turn(turn_id: str, session: str = "s1", **more: object) -> BeginTurn:
    return BeginTurn(SessionKey("default", session), "hello", "uid", turn_id, **more)  # type: ignore[arg-type]


def make_turns(state: MemoryState, store: MemoryTurns) -> Turns:
    limits = MemoryLimits(LimitTimes(), state.now, state.wake, store.wait_for_wakeup)
    return Turns(store, TurnLimiter(limits, lease_ms=15_000), Metrics(CollectorRegistry()))


@pytest.fixture
def state() -> MemoryState:
    return MemoryState(SessionBounds())


@pytest.fixture
def store(state: MemoryState) -> SlowTurns:
    return SlowTurns(state)


@pytest.fixture
def turns(state: MemoryState, store: SlowTurns) -> Turns:
    return make_turns(state, store)


async def test_a_call_that_is_cancelled_while_the_store_works_leaves_no_lease(turns: Turns) -> None:
    call = asyncio.create_task(turns.begin(turn("t1"), 5))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await turns.close()
    await turns.begin(turn("t2", busy=BusyPolicy.REJECT), 5)


async def test_a_call_that_is_cancelled_while_it_waits_leaves_no_place(turns: Turns, store: SlowTurns) -> None:
    begun = await turns.begin(turn("t1"), 5)
    assert isinstance(begun, Begun)
    call = asyncio.create_task(turns.begin(turn("t2"), 5))
    await asyncio.sleep(0.1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await turns.close()
    await turns.abort(begun.lease)
    await turns.begin(turn("t3", busy=BusyPolicy.REJECT), 5)


async def test_a_wait_ends_before_the_deadline(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_svc.turns.ANSWER_MARGIN", 30.0)
    await turns.begin(turn("t1"), 60)
    begin = asyncio.get_running_loop().time()
    with pytest.raises(SessionBusy):
        await turns.begin(turn("t2"), 30.25)
    assert 0.2 < asyncio.get_running_loop().time() - begin < 30


async def test_a_session_gets_an_id(turns: Turns) -> None:
    made = [await turns.begin(turn(f"t{n}", ""), 5) for n in range(2)]
    assert made[0].session.key.session_id != made[1].session.key.session_id


async def test_the_id_of_a_repeat_is_that_of_the_first_try(turns: Turns) -> None:
    mark = RequestMark("r1", b"d")
    first = await turns.begin(turn("t1", "", request=mark), 5)
    again = await turns.begin(turn("t1", "", request=mark), 5)
    other = await turns.begin(turn("t2", "", request=mark, user_id="ann"), 5)
    assert first.session.key == again.session.key != other.session.key
