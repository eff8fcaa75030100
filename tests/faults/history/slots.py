"""The sessions that callers share, by what becomes of them."""

import random
from dataclasses import dataclass, field

AGENT = "history"
MORTAL_AGENT = "mortal"
"""Deleted and made again, under the same id, all the time."""
BRIEF_AGENT = "brief"
"""Its sessions end when they have been idle for `BRIEF_TTL_SECONDS`."""
BRIEF_TTL_SECONDS = 2.0
TOOLED_AGENT = "tooled"
"""Calls tools of a server, and another agent."""
TOOLED = 0.25
"""How often a turn is one of its."""
FORKED = 0.25
"""How often a caller of lasting sessions goes on with a fork."""
REVISIT = 0.3
"""How often a caller comes back to a brief session that makes way for another: alive or not."""


@dataclass(slots=True)
class Sessions:
    """Lasting sessions each make way for a new one after so many turns. The others keep their ids, or are revisited."""

    lasting: int
    turns_each: int
    removed: int = 2
    mortal: int = 2
    brief: int = 2
    brief_turns_each: int = 6
    tooled: int = 2
    tooled_turns_each: int = 8
    all: list[tuple[str, str]] = field(default_factory=list)
    """Every session that was picked so far, with its agent, in the order of first use."""
    forks: list[str] = field(default_factory=list)
    """Sessions that were made of lasting ones, or of forks; they last as well."""
    waiting: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The calls of tools that wait for an approval, by session, as the last answer said."""
    _used: dict[str, int] = field(default_factory=dict)
    _past: list[str] = field(default_factory=list)

    def pick(self, draw: random.Random) -> tuple[str, str]:
        """Return session and agent of the next turn: of those without tools, every second is on a lasting session."""
        if draw.random() < TOOLED:
            return self._note(self._of_slot(f"t{draw.randrange(self.tooled)}", self.tooled_turns_each), TOOLED_AGENT)
        if draw.random() < 0.5:
            if self.forks and draw.random() < FORKED:
                return draw.choice(self.forks[-3:]), AGENT
            return self._note(self._of_slot(f"s{draw.randrange(self.lasting)}", self.turns_each), AGENT)
        slot = draw.randrange(self.removed + self.mortal + self.brief)
        if slot < self.removed:
            return self._note(f"d{slot}", AGENT)
        if slot < self.removed + self.mortal:
            return self._note(f"m{slot}", MORTAL_AGENT)
        if self._past and draw.random() < REVISIT:
            return draw.choice(self._past[-20:]), BRIEF_AGENT
        session = self._of_slot(f"b{slot}", self.brief_turns_each)
        if session not in self._past:
            self._past.append(session)
        return self._note(session, BRIEF_AGENT)

    def to_delete(self, draw: random.Random) -> str:
        """Return a session that is deleted and used again, under the same id."""
        return f"d{draw.randrange(self.removed)}"

    def lasts(self, session: str) -> bool:
        """Whether a session is never deleted and never expires, so that its history only grows."""
        return session.startswith("s") or session in self.forks

    def to_fork(self, draw: random.Random) -> str | None:
        """Return a lasting session that was used lately, or a fork; None when there is none yet."""
        lasting = [session for session, _ in self.all if self.lasts(session)]
        return draw.choice(lasting[-2 * self.lasting :]) if lasting else None

    def add_fork(self, session: str) -> None:
        """Let callers use a fork."""
        self.forks.append(session)
        self._note(session, AGENT)

    def of(self, agent: str) -> list[str]:
        """Return the sessions of an agent."""
        return [session for session, owner in self.all if owner == agent]

    def _of_slot(self, slot: str, turns_each: int) -> str:
        used = self._used[slot] = self._used.get(slot, -1) + 1
        return f"{slot}-{used // turns_each}"

    def _note(self, session: str, agent: str) -> tuple[str, str]:
        if (session, agent) not in self.all:
            self.all.append((session, agent))
        return session, agent
