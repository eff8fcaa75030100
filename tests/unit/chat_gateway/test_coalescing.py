"""Pieces of an answer on their way into gRPC messages."""

import asyncio
from collections.abc import Callable

import pytest

from chat_gateway.coalescing import MAX_PENDING, CoalescedDeltas
from chat_gateway.model.turn import Delta


class Wire:
    """Takes messages, and can hold them up."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.free = asyncio.Event()
        self.free.set()

    async def send(self, deltas: list[Delta]) -> None:
        await self.free.wait()
        self.sent.append("".join(delta.content for delta in deltas))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_first_piece_never_waits_and_the_rest_is_joined() -> None:
    wire = Wire()
    deltas = CoalescedDeltas(wire.send)
    for text in "abcd":
        await deltas(Delta(text))
    assert wire.sent == ["a"]
    await until(lambda: len(wire.sent) == 2)
    assert wire.sent == ["a", "bcd"]
    await deltas.flush()
    assert wire.sent == ["a", "bcd"]


async def test_the_end_does_not_wait_and_loses_nothing() -> None:
    wire = Wire()
    deltas = CoalescedDeltas(wire.send)
    for text in "abc":
        await deltas(Delta(text))
    await deltas.flush()
    assert wire.sent == ["a", "bc"]


async def test_a_piece_that_comes_while_a_message_is_written_does_not_wait_for_the_next_piece() -> None:
    wire = Wire()
    deltas = CoalescedDeltas(wire.send)
    await deltas(Delta("a"))
    wire.free.clear()
    await deltas(Delta("b"))
    await asyncio.sleep(0.03)
    await deltas(Delta("c"))
    wire.free.set()
    await until(lambda: len(wire.sent) == 3)
    assert wire.sent == ["a", "b", "c"]


async def test_a_slow_reader_holds_up_the_model() -> None:
    wire = Wire()
    deltas = CoalescedDeltas(wire.send)
    await deltas(Delta("a"))
    wire.free.clear()

    async def talk() -> None:
        for _ in range(2 * MAX_PENDING):
            await deltas(Delta("x"))

    talking = asyncio.create_task(talk())
    await asyncio.sleep(0.05)
    assert not talking.done()
    wire.free.set()
    await asyncio.wait_for(talking, 60)
    await deltas.flush()
    assert "".join(wire.sent) == "a" + "x" * 2 * MAX_PENDING


async def test_pieces_that_come_with_the_first_are_joined_with_it_where_that_is_wanted() -> None:
    wire = Wire()
    deltas = CoalescedDeltas(wire.send, joins_first=True)
    for text in "abc":
        await deltas(Delta(text))
    await asyncio.sleep(0)
    assert wire.sent == ["abc"]


async def test_what_has_not_been_sent_can_be_taken() -> None:
    wire = Wire()
    deltas = CoalescedDeltas(wire.send)
    for text in "abc":
        await deltas(Delta(text))
    assert [delta.content for delta in await deltas.take()] == ["b", "c"]
    await deltas.flush()
    assert wire.sent == ["a"]


async def test_a_message_that_failed_is_not_passed_over() -> None:
    failing = True

    async def send(deltas: list[Delta]) -> None:
        if failing:
            raise ConnectionError

    deltas = CoalescedDeltas(send, joins_first=True)
    await deltas(Delta("a"))
    await asyncio.sleep(0)
    failing = False
    with pytest.raises(ConnectionError):
        await deltas(Delta("b"))


async def test_closing_drops_what_is_left() -> None:
    wire = Wire()
    deltas = CoalescedDeltas(wire.send)
    await deltas(Delta("a"))
    await deltas(Delta("b"))
    await deltas.close()
    await asyncio.sleep(0.03)
    assert wire.sent == ["a"]
