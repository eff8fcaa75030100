"""Between the messages of AccessService and the domain's values."""

from datetime import UTC, datetime
from typing import Literal

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from config_svc.edge.agents_convert import history_number, history_of, project_of, timestamp
from config_svc.edge.json_objects import object_of, struct
from config_svc.model.api_key import ApiKey
from config_svc.model.audit import MAX_RECORDED_BYTES, AuditEvent, AuditQuery
from config_svc.model.project import Project
from config_svc.model.rules import Json
from contract.json_numbers import text_unless_exact
from parley.config.v1 import access_service_pb2 as pb
from servicekit.errors import InvalidArgument, Violation

_UNSET = datetime.min.replace(tzinfo=UTC)


def project_to_proto(project: Project) -> pb.Project:
    """Returns the message of a project."""
    return pb.Project(id=project.id, display_name=project.display_name, create_time=timestamp(project.create_time))


def key_of(key: pb.ApiKey) -> ApiKey:
    """Returns what a caller may set of a key that is to be made. Raises InvalidArgument for an impossible time."""
    return ApiKey(
        id="",
        project=project_of(key.project),
        project_uid="",
        scopes=tuple(key.scopes),
        create_time=_UNSET,
        user_id=key.user_id,
        display_name=key.display_name,
        requests_per_minute=key.limits.requests_per_minute,
        concurrent_turns=key.limits.concurrent_turns,
        store=key.requests.store if key.requests.HasField("store") else None,
        history=history_of(key.requests.history),
        expire_time=_time_of(key, "expire_time", "api_key.expire_time"),
    )


def key_to_proto(key: ApiKey) -> pb.ApiKey:
    """Returns the message of a key."""
    message = pb.ApiKey(
        id=key.id,
        project=key.project,
        scopes=key.scopes,
        user_id=key.user_id,
        display_name=key.display_name,
        create_time=timestamp(key.create_time),
    )
    if key.requests_per_minute or key.concurrent_turns:
        message.limits.requests_per_minute = key.requests_per_minute
        message.limits.concurrent_turns = key.concurrent_turns
    if key.store is not None:
        message.requests.store = key.store
    if key.history is not None:
        message.requests.history = history_number(key.history)
    for name in ("expire_time", "revoke_time", "last_used_time"):
        if (time := getattr(key, name)) is not None:
            getattr(message, name).FromDatetime(time)
    return message


def audit_query_of(request: pb.ListAuditEventsRequest) -> AuditQuery:
    """Returns what a list call asks for. Raises InvalidArgument for an impossible time."""
    return AuditQuery(
        project=project_of(request.project),
        actor=request.actor,
        resource=request.resource,
        start=_time_of(request, "start_time", "start_time"),
        end=_time_of(request, "end_time", "end_time"),
    )


def event_of(event: pb.AuditEvent) -> AuditEvent:
    """Returns an event that another service records; its time is that of the recording."""
    return AuditEvent(
        project=project_of(event.project),
        actor=event.actor,
        action=event.action,
        resource=event.resource,
        time=_UNSET,
        before=_state_of(event, "before"),
        after=_state_of(event, "after"),
        request_id=event.request_id,
        source=event.source,
        user_id=event.user_id,
        event_id=event.id,
    )


def event_to_proto(event: AuditEvent) -> pb.AuditEvent:
    """Returns the message of an event."""
    message = pb.AuditEvent(
        id=event.id,
        project=event.project,
        actor=event.actor,
        action=event.action,
        resource=event.resource,
        time=timestamp(event.time),
        request_id=event.request_id,
        source=event.source,
        user_id=event.user_id,
    )
    if event.before is not None:
        message.before.CopyFrom(struct(event.before))
        message.before_json = text_unless_exact(event.before)
    if event.after is not None:
        message.after.CopyFrom(struct(event.after))
        message.after_json = text_unless_exact(event.after)
    return message


def _state_of(event: pb.AuditEvent, name: Literal["before", "after"]) -> dict[str, Json] | None:
    if not event.HasField(name):
        return None
    return object_of(getattr(event, name), f"audit_event.{name}", maximum=MAX_RECORDED_BYTES)


def _time_of(message: Message, field: str, path: str) -> datetime | None:
    if not message.HasField(field):
        return None
    given: Timestamp = getattr(message, field)
    try:
        return given.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument([Violation(path, "must be a time from year 1 to year 9999")]) from None
