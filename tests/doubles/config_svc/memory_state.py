"""What the in-memory twin of the store keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from config_svc.model.agent import AgentConfig, Revision
from config_svc.model.api_key import ApiKey
from config_svc.model.audit import AuditEvent
from config_svc.model.change import Change
from config_svc.model.project import Project
from config_svc.model.provider import GatewayProviders
from config_svc.model.template import Template
from config_svc.model.tool_server import ToolServer, ToolServerRevision
from config_svc.ports.access import KeyChange
from config_svc.ports.claim import Claim


@dataclass(slots=True)
class State:
    """All that is stored; a transaction works on a copy."""

    agents: dict[str, AgentConfig] = field(default_factory=dict)
    revisions: dict[tuple[str, int], Revision] = field(default_factory=dict)
    claims: dict[tuple[str, str], Claim] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    templates: dict[tuple[str, str], Template] = field(default_factory=dict)
    providers: dict[str, GatewayProviders] = field(default_factory=dict)
    last: int = 0
    compacted: int = 0
    projects: dict[str, Project] = field(default_factory=dict)
    first_changes: dict[str, int] = field(default_factory=dict)
    keys: dict[str, ApiKey] = field(default_factory=dict)
    hashes: dict[bytes, str] = field(default_factory=dict)
    key_changes: list[KeyChange] = field(default_factory=list)
    events: list[tuple[AuditEvent, str | None]] = field(default_factory=list)
    last_event: int = 0
    last_key_change: int = 0
    secrets: dict[str, bytes] = field(default_factory=dict)
    tool_servers: dict[str, ToolServer] = field(default_factory=dict)
    tool_server_revisions: dict[tuple[str, int], ToolServerRevision] = field(default_factory=dict)
    tool_server_claims: dict[tuple[str, str], Claim] = field(default_factory=dict)

    def copy(self) -> "State":
        """Returns what a transaction may change."""
        return replace(
            self,
            agents=dict(self.agents),
            revisions=dict(self.revisions),
            claims=dict(self.claims),
            changes=list(self.changes),
            templates=dict(self.templates),
            projects=dict(self.projects),
            first_changes=dict(self.first_changes),
            keys=dict(self.keys),
            hashes=dict(self.hashes),
            key_changes=list(self.key_changes),
            events=list(self.events),
            tool_servers=dict(self.tool_servers),
            tool_server_revisions=dict(self.tool_server_revisions),
            tool_server_claims=dict(self.tool_server_claims),
        )

    def live(self, project: str, agent_id: str) -> AgentConfig | None:
        """Finds the agent config with this id that is not deleted."""
        for agent in self.agents.values():
            if (agent.project, agent.id) == (project, agent_id) and agent.delete_time is None:
                return agent
        return None

    def template(self, template_id: str, version: str) -> Template | None:
        """Finds a template version, the newest when `version` is empty."""
        if version:
            return self.templates.get((template_id, version))
        versions = [template for template in self.templates.values() if template.id == template_id]
        return max(versions, key=lambda template: template.order, default=None)

    def published(self, now: datetime) -> list[GatewayProviders]:
        """Returns what gateways have declared that has not expired."""
        return [one for one in self.providers.values() if one.expire_time > now]

    def remove(self, agents: Sequence[AgentConfig]) -> None:
        """Removes agent configs for good, with their revisions and request ids."""
        gone = {agent.uid for agent in agents}
        self.agents = {uid: one for uid, one in self.agents.items() if uid not in gone}
        self.revisions = {key: one for key, one in self.revisions.items() if key[0] not in gone}
        self.claims = {key: one for key, one in self.claims.items() if one.uid not in gone}
