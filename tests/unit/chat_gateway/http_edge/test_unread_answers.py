"""Answers that clients leave unread have a bound in bytes, of all connections together."""

from types import SimpleNamespace
from typing import Any

from chat_gateway.http_edge.wire.protocol import BoundedHttpProtocol, SharedState
from servicekit.unread import STREAM_BYTES, UNREAD_SECONDS

MB = 1024 * 1024


class Transport:
    def __init__(self, unread: int) -> None:
        self.unread = unread
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return 0 if self.aborted else self.unread

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


def connected(state: SharedState, unread: int, *, streams: bool = False) -> Transport:
    connection: Any = BoundedHttpProtocol.__new__(BoundedHttpProtocol)
    connection.server_state, connection.transport = state, Transport(unread)
    connection._serving = SimpleNamespace(response_complete=False) if streams else None
    connection.flow, connection._stalled = SimpleNamespace(write_paused=True), None
    connection._deaf = False
    state.connections.add(connection)
    return connection.transport  # type: ignore[no-any-return]


async def nothing(*_: object) -> None: ...


def test_those_who_have_taken_nothing_for_the_longest_make_room() -> None:
    state = SharedState(nothing, max_unread_bytes=10 * MB)
    oldest, slow = connected(state, 4 * MB), connected(state, 4 * MB)
    state.cut_off_stalled(0.0)
    later = [connected(state, 4 * MB) for _ in range(2)]
    state.cut_off_stalled(UNREAD_SECONDS / 2)
    assert not oldest.aborted, "nobody is cut off before he had time"
    slow.unread -= 1
    state.cut_off_stalled(UNREAD_SECONDS)
    assert oldest.aborted
    assert not slow.aborted, "it reads"
    state.cut_off_stalled(1.5 * UNREAD_SECONDS)
    assert [one.aborted for one in later].count(True) == 1, "as many as it takes"
    assert not slow.aborted


def test_within_the_bound_there_is_a_minute() -> None:
    state = SharedState(nothing, max_unread_bytes=10 * MB)
    one = connected(state, 9 * MB)
    for second in range(60):
        state.cut_off_stalled(float(second))
    assert not one.aborted
    state.cut_off_stalled(61.0)
    assert one.aborted


def test_a_stream_counts_with_what_it_is_made_from() -> None:
    state = SharedState(nothing, max_unread_bytes=2 * STREAM_BYTES)
    streams = [connected(state, 1000, streams=True) for _ in range(3)]
    state.cut_off_stalled(0.0)
    answer = connected(state, 1000)
    state.cut_off_stalled(UNREAD_SECONDS)
    assert [one.aborted for one in streams].count(True) == 2, "the answer is unread, too"
    assert not answer.aborted
