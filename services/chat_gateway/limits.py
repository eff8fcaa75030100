"""The limits that apply to a turn: those of its key and those of its agent."""

import hashlib
import re

from access.caller import Caller
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.turn import TurnLimit

_PLAIN = re.compile(r"[\x21-\x7e]{1,190}")


def turn_limits(caller: Caller, config: AgentConfig | None) -> tuple[TurnLimit, ...]:
    """Returns the limits of a turn; most have none. Without a config, those of the key. A turn waits for its agent's
    limit, because callers can't know who else uses the agent, but not for its key's, whose owner controls the number of
    turns.
    """
    own, found = caller.limits, []
    if own.requests_per_minute or own.concurrent_turns:
        found.append(TurnLimit(_subject("key", caller.id), own.requests_per_minute, own.concurrent_turns))
    if config is None:
        return tuple(found)
    if config.requests_per_minute is not None or config.max_concurrent_turns is not None:
        a_minute, at_once = config.requests_per_minute or 0, config.max_concurrent_turns or 0
        found.append(TurnLimit(_subject("agent", config.uid), a_minute, at_once, wait=True))
    return tuple(found)


def held(limits: tuple[TurnLimit, ...]) -> tuple[str, ...]:
    """Returns the subjects of the limits in which a running turn holds a place."""
    return tuple(limit.subject for limit in limits if limit.concurrent_turns)


def _subject(scope: str, name: str) -> str:
    # A token's subject may be any text: this gives it a short and plain name.
    return f"{scope}:{name}" if _PLAIN.fullmatch(name) else f"{scope}:{hashlib.sha256(name.encode()).hexdigest()}"
