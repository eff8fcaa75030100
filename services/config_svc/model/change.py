"""The change feed: what happened to agent configs, in commit order."""

import enum
from dataclasses import dataclass
from datetime import datetime

from config_svc.model.agent import AgentConfig


class ChangeType(enum.Enum):
    """What happened; the numbers are stored."""

    CREATED = 1
    UPDATED = 2
    DELETED = 3


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change. Of two changes the one with the larger `sequence` was committed later."""

    sequence: int
    type: ChangeType
    agent_config: AgentConfig
    time: datetime


@dataclass(frozen=True, slots=True)
class FeedPosition:
    """The feed's position: `feed` names one life of the database, so that cursors of another are known as such.

    `last` is the newest sequence committed, `compacted` the newest one that is no longer kept (0: all are kept).
    """

    feed: str
    last: int
    compacted: int
