"""The part of an agent config that turns need. Values only."""

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
    """Another model, tried if the previous ones can't answer; `also_on`: additional errors for which it is tried."""

    provider: str
    model: str
    also_on: frozenset[FallbackTrigger] = frozenset()
    sampling: Sampling = field(default_factory=Sampling)
    """Overrides the agent's own sampling, but not the request's."""


@value
class RequestPolicy:
    """Defaults for requests to an agent, and the fields that they may set (None: any)."""

    store: bool = True
    history: HistoryPolicy | None = None
    overridable: frozenset[str] | None = None


NO_POLICY = RequestPolicy()


@value
class AgentConfig:
    """The part of one revision of an agent config that turns need."""

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
    """As `TurnRequest.extra`; the default of every turn."""
    window_parts: int = 8
    """Large images, sounds and files of earlier turns that the window sends."""
