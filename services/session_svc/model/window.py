"""Which of a session's turns a window holds."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from session_svc.model.errors import ToolChainTooLarge


class Fitting(Protocol):
    """The attributes of a turn that `fit_window` needs."""

    @property
    def message_count(self) -> int:
        """Messages in it."""

    @property
    def continues(self) -> bool:
        """Whether it can't be shown without the previous turn."""

    @property
    def size(self) -> int:
        """Bytes of it as it is sent, however it is stored."""


_Fitting = TypeVar("_Fitting", bound=Fitting)


def fit_window(
    newest_first: Iterable[_Fitting],
    max_messages: int,
    max_bytes: int,
    *,
    continues: bool = False,
    within_chain: bool = False,
) -> list[_Fitting]:
    """Returns the newest turns, oldest first, with at most this many messages and bytes in total.

    Whole turns only. The first is never one that continues another: the tool calls that its results answer would be
    missing, and a model call with them would fail. For a turn that itself `continues`, all turns of that chain are
    included, however many messages they have: without its task a model can't continue. Raises `ToolChainTooLarge` if
    they have too many bytes. `within_chain`: of a chain that is longer than the window, its newest turns rather than
    none, and before them, where it is among these turns and its bytes fit, the turn that the chain began with.
    """
    window: list[_Fitting] = []
    older = iter(newest_first)
    head: _Fitting | None = None
    for turn in older:
        if turn.size > max_bytes and continues:
            raise ToolChainTooLarge
        if turn.size > max_bytes or (turn.message_count > max_messages and not continues):
            head = turn
            break
        max_messages -= turn.message_count
        max_bytes -= turn.size
        window.append(turn)
        continues = continues and turn.continues
    if within_chain and window and window[-1].continues:
        while head is not None and head.continues:
            head = next(older, None)
        if head is not None and head.size <= max_bytes:
            window.append(head)
    elif not within_chain:
        while window and window[-1].continues:
            window.pop()
    window.reverse()
    return window
