"""The conversation that driver and mock model agree on: every message names its session and its turn."""

import re
from dataclasses import dataclass
from typing import Self

from benchmarks.prose import prose

INSTRUCTIONS = "You answer questions about the plan that the user and you are making together. Be brief and exact."
USER_BYTES = 110
REPLY_CHUNKS = 32

TOOL = "when"

_PROFILE = re.compile(r"w(\d+)-b(\d+)-d(\d+)-c(\d+)")


def user_tag(session: int, turn: int) -> str:
    """Returns what the user's message of a turn begins with."""
    return f"<s{session:08d}t{turn:05d}>"


def reply_tag(session: int, turn: int) -> str:
    """Returns what the reply to a turn begins with."""
    return f"[s{session:08d}t{turn:05d}]"


def _place(session: int, turn: int) -> int:
    return 2 * (session * 31 + turn)


def user_text(session: int, turn: int, size: int = USER_BYTES) -> str:
    """Returns the user's message, `size` bytes of ASCII."""
    return (user_tag(session, turn) + " " + prose(_place(session, turn), size))[:size]


def tag_in(text: str) -> tuple[int, int]:
    """Returns session and turn of a user's message. Raises `ValueError`."""
    if text[:2] != "<s" or text[10:11] != "t" or text[16:17] != ">":
        raise ValueError(f"no tag in {text[:40]!r}")
    return int(text[2:10]), int(text[11:16])


@dataclass(frozen=True, slots=True)
class Profile:
    """How the mock model behaves, encoded in the name of the model, so that one mock serves every measurement.

    `window` is how many earlier messages a prompt must carry once there are so many (0: all of them); delays are in
    milliseconds, before the answer and between the chunks of a streamed one.
    """

    window: int = 0
    reply_bytes: int = 256
    delay: int = 0
    chunk_delay: int = 0

    @property
    def name(self) -> str:
        """The name of the model."""
        return f"w{self.window}-b{self.reply_bytes}-d{self.delay}-c{self.chunk_delay}"

    @classmethod
    def parse(cls, name: str) -> Self:
        """Returns the profile that a model's name encodes. Raises `ValueError`."""
        found = _PROFILE.fullmatch(name)
        if found is None:
            raise ValueError(f"{name!r} is not the name of a profile")
        return cls(*map(int, found.groups()))

    def first_turn(self, turn: int) -> int:
        """Returns the oldest turn that the prompt of a turn must carry."""
        return max(1, turn - self.window // 2) if self.window else 1

    def reply(self, session: int, turn: int) -> str:
        """Returns the whole answer."""
        said = prose(_place(session, turn) + 1, self.reply_bytes)
        return (reply_tag(session, turn) + " " + said)[: self.reply_bytes - 1] + "."

    def pieces(self, session: int, turn: int) -> list[str]:
        """Returns the answer as it is streamed: the tag first, the rest in even pieces."""
        text, tag = self.reply(session, turn), reply_tag(session, turn)
        rest = text[len(tag) :]
        step = -(-len(rest) // (REPLY_CHUNKS - 1))
        return [tag, *(rest[at : at + step] for at in range(0, len(rest), step))]
