"""Which images of earlier turns a prompt shows, and what stands for the others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from chat_gateway.memory import MemoryBudget
from chat_gateway.model.parts import content_of, known
from chat_gateway.model.turn import ImagePart, Kept, Message, TextPart
from chat_gateway.window_parts import WindowParts
from contract.enums import Role

URLS = [f"data:image/png;base64,{letter * 2000}" for letter in "ABCD"]
SIZE = len(URLS[0])


def picture(url: str) -> Message:
    """A message as it is stored: the picture's content is named only."""
    return Message(Role.USER, parts=(TextPart("look"), replace(known(ImagePart(url)), url="")))


class Stored:
    def __init__(self) -> None:
        self.contents = {known(ImagePart(url)).kept.digest: url for url in URLS}  # type: ignore[union-attr]
        self.read_sizes: list[int] = []

    async def read(self, project: str, session_id: str, wanted: Sequence[Kept]) -> Mapping[bytes, str]:
        self.read_sizes.append(sum(one.size for one in wanted))
        return {one.digest: self.contents[one.digest] for one in wanted if one.digest in self.contents}


async def shown(
    window: Sequence[Message], max_parts: int = 8, max_bytes: int = 1 << 20, stored: Stored | None = None
) -> list[str]:
    parts = WindowParts(stored or Stored(), max_bytes, MemoryBudget(1 << 30))
    async with parts.filled("default", "s", window, max_parts) as filled:
        said = [part for message in filled for part in message.parts[1:]]
    return [part.text if isinstance(part, TextPart) else content_of(part)[22] for part in said]


OLD = "[Image: shown earlier, and left out now]"


@pytest.mark.parametrize(
    ("max_parts", "max_bytes", "expected"),
    [
        (8, 1 << 20, ["A", "B", "C"]),
        (2, 1 << 20, [OLD, "B", "C"]),
        (0, 1 << 20, [OLD, OLD, OLD]),
        (8, 2 * SIZE, [OLD, "B", "C"]),
        (8, SIZE - 1, [OLD, OLD, OLD]),
    ],
)
async def test_the_newest_are_shown_and_nothing_else_is_read(
    max_parts: int, max_bytes: int, expected: list[str]
) -> None:
    stored = Stored()
    window = [picture(URLS[0]), Message(Role.ASSISTANT, "A cat."), picture(URLS[1]), picture(URLS[2])]
    assert await shown(window, max_parts, max_bytes, stored) == expected
    read = sum(len(one) == 1 for one in expected)
    assert stored.read_sizes == ([read * SIZE] if read else [])


async def test_the_same_picture_is_read_once() -> None:
    stored = Stored()
    assert await shown([picture(URLS[0])] * 3, 2, stored=stored) == [OLD, "A", "A"]
    assert stored.read_sizes == [SIZE]


async def test_what_the_session_keeps_no_more_is_said_to_be_gone() -> None:
    stored = Stored()
    del stored.contents[known(ImagePart(URLS[0])).kept.digest]  # type: ignore[union-attr]
    assert await shown([picture(URLS[0]), picture(URLS[1])], stored=stored) == [
        "[Image: shown earlier, and kept no more]",
        "B",
    ]


async def test_a_window_whose_parts_are_in_it_is_as_it_was() -> None:
    small = Message(Role.USER, parts=(ImagePart("https://x/y.png"), TextPart("x")))
    stored = Stored()
    parts = WindowParts(stored, 1, MemoryBudget(1))
    async with parts.filled("default", "s", [small], 8) as filled:
        assert filled == (small,)
    assert stored.read_sizes == []
