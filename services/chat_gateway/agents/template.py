"""What a kind of agent is to the gateway."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from chat_gateway.agents.agent import Agent
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.providers.provider import Provider


@dataclass(frozen=True, slots=True)
class Placeholders:
    """What a template fills `{{name}}` in instructions with, so that config_svc can refuse all other names.

    `parameters`: every parameter fills the placeholder of its name. `session_metadata`: so does what the agent config's
    metadata_keys name. `names`: those that the template fills by itself.
    """

    parameters: bool = False
    session_metadata: bool = False
    names: tuple[str, ...] = ()


class Template(Protocol):
    """A kind of agent. Published at start, so that config_svc can check agent configs against it.

    Versions are semantic: a config that was written for an older version of the same MAJOR is built by this one, so
    what the schema of that one took, this one must take. What would break that needs the next MAJOR, beside which
    the one before can go on being shipped.
    """

    id: str
    version: str
    """`MAJOR.MINOR.PATCH`. What is published under a version never changes: another schema is another version."""
    description: str
    parameters_schema: Mapping[str, Any]
    """JSON Schema (2020-12) of an agent config's parameters; of type object."""
    placeholders: Placeholders | None
    """What fills placeholders of the instructions; None: nobody looks for any."""

    def build(self, config: AgentConfig, provider: Provider) -> Agent:
        """Returns the agent of this config, whose parameters hold the schema's defaults where nothing was given.

        Fast and without I/O: it runs on a turn's path, once per revision.
        """
        ...
