"""What a kind of agent is to the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from chat_gateway.agents.agent import Agent
from chat_gateway.model import AgentConfig
from chat_gateway.providers.provider import Provider


class Template(Protocol):
    """A kind of agent. Published at start, so that config_svc can check parameters against the schema."""

    id: str
    version: str
    description: str
    parameters_schema: Mapping[str, Any]
    """JSON Schema (2020-12) of an agent config's parameters; of type object."""

    def build(self, config: AgentConfig, provider: Provider) -> Agent:
        """Returns the agent of this config. Fast and without I/O: it runs on a turn's path, once per revision."""
        ...
