"""Projects, API keys and audit events: protobuf to JSON and back."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from chat_gateway.convert.free_form import exact_json_of
from chat_gateway.http_edge.wire.times import proto_timestamp, to_timestamp
from contract.enums import HistoryPolicy
from contract.wire import HISTORY_POLICIES, HISTORY_POLICY_NUMBERS
from parley.config.v1 import access_service_pb2 as pb


class NewProjectJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A project to create."""

    id: str
    display_name: str = ""


class ProjectJson(msgspec.Struct, kw_only=True):
    """The isolation boundary: every agent config, session and API key belongs to one."""

    id: str
    display_name: str
    create_time: str
    object: str = "project"


class ApiKeyLimitsJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Limits of a key, over all gateways together; 0 means no limit."""

    requests_per_minute: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    concurrent_turns: Annotated[int, Meta(ge=0, le=100_000)] = 0


class ApiKeyRequestsJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What requests for turns that come with a key get where they say nothing; before what the agent says."""

    store: bool | UnsetType | None = UNSET
    history: HistoryPolicy | UnsetType | None = UNSET


class NewApiKeyJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An API key to create."""

    scopes: list[str]
    project: str | None = None
    """The caller's own, or `default`, when omitted."""
    user_id: str | None = None
    """The only user it may act for; any when omitted."""
    expire_time: str | None = None
    """When it expires (RFC 3339); never when omitted."""
    display_name: str = ""
    limits: ApiKeyLimitsJson | None = None
    requests: ApiKeyRequestsJson | None = None


class ApiKeyJson(msgspec.Struct, kw_only=True):
    """An API key without the key itself."""

    id: str
    project: str
    scopes: list[str]
    user_id: str | None
    display_name: str
    limits: ApiKeyLimitsJson
    create_time: str
    expire_time: str | None
    last_used_time: str | None
    """To the minute."""
    revoke_time: str | None
    key: str | UnsetType = UNSET
    """The key itself: only in the response that created it."""
    requests: ApiKeyRequestsJson | UnsetType = UNSET
    object: str = "api_key"


class RotateJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How to replace a key."""

    overlap: str | None = None
    """How long the old key still works, such as `"3600s"`; a day when omitted."""


class RotatedJson(msgspec.Struct, kw_only=True):
    """The new key, and the old one with its expiry."""

    api_key: ApiKeyJson
    replaced: ApiKeyJson


class AuditEventJson(msgspec.Struct, kw_only=True):
    """One write: who did what, when, and the states before and after."""

    id: str
    time: str
    project: str
    actor: str
    user_id: str | None
    action: str
    resource: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str
    source: str
    object: str = "audit_event"


def project_json(project: pb.Project) -> ProjectJson:
    """Returns a project as clients see it."""
    return ProjectJson(
        id=project.id, display_name=project.display_name, create_time=proto_timestamp(project.create_time)
    )


def to_api_key(new: NewApiKeyJson, project: str, user_id: str) -> pb.ApiKey:
    """Returns the requested key. Raises `InvalidArgument`."""
    key = pb.ApiKey(project=project, scopes=new.scopes, user_id=user_id, display_name=new.display_name)
    if new.expire_time is not None:
        key.expire_time.CopyFrom(to_timestamp(new.expire_time, "expire_time"))
    if new.limits is not None:
        key.limits.requests_per_minute = new.limits.requests_per_minute
        key.limits.concurrent_turns = new.limits.concurrent_turns
    if new.requests is not None:
        if isinstance(new.requests.store, bool):
            key.requests.store = new.requests.store
        if new.requests.history:
            key.requests.history = HISTORY_POLICY_NUMBERS[new.requests.history]
    return key


def api_key_json(key: pb.ApiKey, text: str | UnsetType = UNSET) -> ApiKeyJson:
    """Returns an API key as clients see it; `text` is the key itself."""
    return ApiKeyJson(
        id=key.id,
        project=key.project,
        scopes=list(key.scopes),
        user_id=key.user_id or None,
        display_name=key.display_name,
        limits=ApiKeyLimitsJson(
            requests_per_minute=key.limits.requests_per_minute, concurrent_turns=key.limits.concurrent_turns
        ),
        create_time=proto_timestamp(key.create_time),
        expire_time=_time(key, "expire_time"),
        last_used_time=_time(key, "last_used_time"),
        revoke_time=_time(key, "revoke_time"),
        key=text,
        requests=_requests_json(key.requests) if key.HasField("requests") else UNSET,
    )


def _requests_json(said: pb.ApiKeyRequests) -> ApiKeyRequestsJson:
    return ApiKeyRequestsJson(
        store=said.store if said.HasField("store") else UNSET, history=HISTORY_POLICIES.get(said.history, UNSET)
    )


def audit_event_json(event: pb.AuditEvent) -> AuditEventJson:
    """Returns an audit event as clients see it."""
    return AuditEventJson(
        id=event.id,
        time=proto_timestamp(event.time),
        project=event.project,
        actor=event.actor,
        user_id=event.user_id or None,
        action=event.action,
        resource=event.resource,
        before=exact_json_of(event.before, event.before_json) if event.HasField("before") else None,
        after=exact_json_of(event.after, event.after_json) if event.HasField("after") else None,
        request_id=event.request_id,
        source=event.source,
    )


def _time(key: pb.ApiKey, field: str) -> str | None:
    return proto_timestamp(getattr(key, field)) if key.HasField(field) else None  # type: ignore[arg-type]
