"""The audit events of this service's writes. Always in the transaction of the write itself."""

from datetime import datetime, timedelta
from typing import Any

from access.caller import SERVICE, Caller, current
from config_svc.model.api_key import ApiKey
from config_svc.model.audit import AuditEvent, State
from config_svc.model.project import Project
from config_svc.model.rules import Json
from config_svc.model.spec_json import EncodedAgent
from config_svc.model.template import Template
from config_svc.model.tool_server import ToolServer
from config_svc.model.tool_server_audit import audited
from contract.fields import DEFAULT_PROJECT

SELF = Caller("service:config_svc", "", frozenset({SERVICE}), source="config_svc")
"""The actor of background work: purges, and the completion of interrupted deletions."""

_DURATIONS = ("idle_ttl", "max_lifetime", "turn_timeout", "call_timeout")
_TIMED = ("session", "limits", "tool_policy")
_MICROSECONDS = timedelta(seconds=1) // timedelta(microseconds=1)


def audit_event(
    action: str,
    resource: str,
    project: str,
    now: datetime,
    *,
    before: State | None = None,
    after: State | None = None,
    caller: Caller | None = None,
) -> AuditEvent:
    """Returns the event of a write that the current caller makes, or `caller`; states are cut to their bound."""
    by = caller if caller is not None else current()
    return AuditEvent(
        project=project,
        actor=by.id,
        action=action,
        resource=resource,
        time=now,
        before=before,
        after=after,
        request_id=by.request_id,
        source=by.source or "grpc",
        user_id=by.user_id,
    ).bounded()


def agent_event(
    verb: str, before: EncodedAgent | None, after: EncodedAgent | None, now: datetime, *, caller: Caller | None = None
) -> AuditEvent:
    """Returns the event `agent_configs.VERB`; at least one of the two states is given."""
    encoded = after or before
    assert encoded is not None
    agent = encoded.agent
    return audit_event(
        f"agent_configs.{verb}",
        f"agent_configs/{agent.id}",
        agent.project,
        now,
        before=_agent_state(before) if before is not None else None,
        after=_agent_state(after) if after is not None else None,
        caller=caller,
    )


def tool_server_event(
    verb: str, before: ToolServer | None, after: ToolServer | None, now: datetime, *, caller: Caller | None = None
) -> AuditEvent:
    """Returns the event `tool_servers.VERB`; at least one of the two states is given."""
    server = after or before
    assert server is not None
    return audit_event(
        f"tool_servers.{verb}",
        f"tool_servers/{server.id}",
        server.project,
        now,
        before=audited(before) if before is not None else None,
        after=audited(after) if after is not None else None,
        caller=caller,
    )


def key_event(
    verb: str, before: ApiKey | None, after: ApiKey, now: datetime, *, caller: Caller | None = None
) -> AuditEvent:
    """Returns the event `api_keys.VERB`; neither the key nor its hash is part of it."""
    return audit_event(
        f"api_keys.{verb}",
        f"api_keys/{after.id}",
        after.project,
        now,
        before=before.audited if before is not None else None,
        after=after.audited,
        caller=caller,
    )


def project_event(verb: str, before: Project | None, after: Project | None, now: datetime) -> AuditEvent:
    """Returns the event `projects.VERB`; at least one of the two states is given."""
    project = after or before
    assert project is not None
    return audit_event(
        f"projects.{verb}",
        f"projects/{project.id}",
        project.id,
        now,
        before=before.audited if before is not None else None,
        after=after.audited if after is not None else None,
    )


def template_event(template: Template, now: datetime) -> AuditEvent:
    """Returns the event of a template version's publication, in `default`: templates are of no project."""
    state: State = {
        "id": template.id,
        "version": template.version,
        "description": template.description,
        "parameters_schema": template.parameters_schema,
    }
    resource = f"templates/{template.id}/versions/{template.version}"
    return audit_event("templates.publish", resource, DEFAULT_PROJECT, now, after=state)


def _agent_state(encoded: EncodedAgent) -> State:
    agent = encoded.agent
    state: State = {"id": agent.id, "uid": agent.uid, "revision": agent.revision}
    for name, value in encoded.spec.items():
        state[name] = _readable(value) if name in _TIMED and isinstance(value, dict) else value
    for name in ("delete_time", "purge_time"):
        if (time := getattr(agent, name)) is not None:
            state[name] = time.isoformat()
    return state


def _readable(group: dict[str, Any]) -> dict[str, Json]:
    """Returns durations as the JSON of protobuf has them."""
    return {
        name: f"{value / _MICROSECONDS:g}s" if name in _DURATIONS and isinstance(value, int) else value
        for name, value in group.items()
    }
