"""What a turn needs of an agent config. Values only."""

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime, timedelta
from typing import Any

from chat_gateway.model.tools import DEFAULT_TOOL_POLICY, AgentTool, ToolPolicy
from chat_gateway.model.turn import Sampling
from contract.enums import FallbackTrigger, HistoryPolicy
from servicekit.values import value


@value
class Fallback:
    """Another model to ask where the ones before it can't answer; `also_on`: what it is tried for beyond that."""

    provider: str
    model: str
    also_on: frozenset[FallbackTrigger] = frozenset()
    sampling: Sampling = field(default_factory=Sampling)
    """In place of the agent's own, not of what a request says."""


@value
class RequestPolicy:
    """What requests for turns of an agent get where they say nothing, and which fields they may set (None: any)."""

    store: bool = True
    history: HistoryPolicy | None = None
    overridable: frozenset[str] | None = None


NO_POLICY = RequestPolicy()


@value
class AgentConfig:
    """What a turn needs of one revision of an agent config."""

    project: str
    id: str
    uid: str
    revision: int
    template_id: str
    template_version: str
    parameters: Mapping[str, Any]
    instructions: str
    provider: str
    model: str
    sampling: Sampling
    window_messages: int
    idle_ttl: timedelta
    max_lifetime: timedelta
    max_concurrent_turns: int | None
    requests_per_minute: int | None
    turn_timeout: float | None
    create_time: datetime
    fallbacks: tuple[Fallback, ...] = ()
    tools: tuple[AgentTool, ...] = ()
    tool_policy: ToolPolicy = DEFAULT_TOOL_POLICY
    requests: RequestPolicy = NO_POLICY
    extra: Mapping[str, bytes] = field(default_factory=dict)
    """As `TurnRequest.extra`, for every turn that does not say otherwise."""
    window_parts: int = 8
    """Large images, sounds and files of earlier turns that the window sends."""
