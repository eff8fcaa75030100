"""The limits that a turn counts in: those of the key that asks for it, and those of the agent that runs it."""

import hashlib
import re

from access.caller import Caller
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.turn import TurnLimit

_PLAIN = re.compile(r"[\x21-\x7e]{1,190}")


def turn_limits(caller: Caller, config: AgentConfig | None) -> tuple[TurnLimit, ...]:
    """Returns them; most turns have none. Without a config, those of the key.

    A turn waits for its agent, whose callers can't know who else uses it, and not for its key, whose owner decides how
    many turns it asks for at once.
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
    """Returns the subjects of those limits in which a turn holds a place while it is under way."""
    return tuple(limit.subject for limit in limits if limit.concurrent_turns)


def _subject(scope: str, name: str) -> str:
    # A token's subject is its issuer's business: whatever it is, it needs a name that is plain and short.
    return f"{scope}:{name}" if _PLAIN.fullmatch(name) else f"{scope}:{hashlib.sha256(name.encode()).hexdigest()}"
