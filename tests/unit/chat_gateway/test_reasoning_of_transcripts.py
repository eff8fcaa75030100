"""Reasoning in the text of a transcript's answers, which does not count: whatever the text is, in linear time."""

import asyncio
import re

from hypothesis import given
from hypothesis import strategies as st

from chat_gateway.model.history import without_reasoning
from chat_gateway.providers.openai.think_tags import ThinkTags

PIECES = ["<think>", "</think>", "<thinking>", "</thinking>", " ", "\n", "a", "<", "<think", "\u2003"]
PATTERN = re.compile(r"<(think|thinking)>.*?</\1>\s*", re.DOTALL)
"""What stored digests were made with."""


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_what_is_taken_out_is_what_earlier_releases_took_out(text: str) -> None:
    assert without_reasoning(text) == PATTERN.sub("", text)


async def test_tags_that_are_never_closed_cost_no_minutes() -> None:
    async with asyncio.timeout(30):
        for text in ("<think>" * 40_000, "<think><thinking>" * 20_000 + "</thinking>", "<think></think> " * 20_000):
            await asyncio.to_thread(without_reasoning, text)


def test_blanks_without_end_in_front_of_an_answer_are_its_own() -> None:
    tags, said = ThinkTags(), ""
    for _ in range(5000):
        said += tags.feed(" ")[1]
    assert len(tags._held) <= 2000
    assert said + tags.feed("x")[1] == " " * 5000 + "x"
