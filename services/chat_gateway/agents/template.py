"""The interface of templates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from chat_gateway.agents.agent import Agent
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.providers.provider import Provider


@dataclass(frozen=True, slots=True)
class Placeholders:
    """The placeholders that a template fills in instructions, so that config_svc can reject all others.

    `parameters`: every parameter fills the placeholder of its name. `session_metadata`: so do the agent config's
    metadata_keys. `names`: those that the template fills itself.
    """

    parameters: bool = False
    session_metadata: bool = False
    names: tuple[str, ...] = ()


class Template(Protocol):
    """A kind of agent. Published at start, so that config_svc can check agent configs against it. Versions are
    semantic: configs written for an older version of the same MAJOR are built by this one, so its schema must accept
    everything that theirs accepted. Incompatible changes need a new MAJOR, which can be shipped beside the old one.
    """

    id: str
    version: str
    """`MAJOR.MINOR.PATCH`. A published version never changes: another schema needs another version."""
    description: str
    parameters_schema: Mapping[str, Any]
    """JSON Schema (2020-12) of an agent config's parameters; of type object."""
    placeholders: Placeholders | None
    """The placeholders of the instructions; None: they are not parsed."""

    def build(self, config: AgentConfig, provider: Provider) -> Agent:
        """Returns the agent of this config, whose parameters include the schema's defaults. Must be fast and do no I/O,
        since it runs in a turn, once per revision.
        """
        ...
