"""config_svc's audit log as the port `AuditLog`."""

import uuid
from typing import Any

import grpc
from google.protobuf.struct_pb2 import Struct

from access.caller import current
from parley.config.v1 import access_service_pb2 as pb
from parley.config.v1.access_service_pb2_grpc import AccessServiceStub
from servicekit.channels import call
from session_svc.ports import State

PEER = "config_svc"
RECORD_SECONDS = 3.0
ERASE_SECONDS = 30.0


class AuditClient:
    """The `AuditLog` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = AccessServiceStub(channel)

    async def record(
        self, project: str, action: str, resource: str, *, user_id: str, before: State | None, after: State | None
    ) -> None:
        by = current()
        event = pb.AuditEvent(
            id=str(uuid.uuid4()),
            project=project,
            actor=by.id,
            action=action,
            resource=resource,
            before=_struct(before),
            after=_struct(after),
            request_id=by.request_id,
            source=by.source or "grpc",
            user_id=user_id or by.user_id,
        )
        request = pb.RecordAuditEventRequest(audit_event=event)
        await call(self._stub.RecordAuditEvent, request, timeout=RECORD_SECONDS, peer=PEER)

    async def revoke_keys(self, project: str, user_id: str) -> int:
        request = pb.RevokeUserApiKeysRequest(project=project, user_id=user_id)
        revoked = await call(self._stub.RevokeUserApiKeys, request, timeout=ERASE_SECONDS, peer=PEER)
        return int(revoked.revoked_api_key_count)

    async def erase(self, project: str, user_id: str) -> int:
        request = pb.EraseAuditSubjectRequest(project=project, user_id=user_id)
        erased = await call(self._stub.EraseAuditSubject, request, timeout=ERASE_SECONDS, peer=PEER)
        return int(erased.audit_event_count)


def _struct(state: State | None) -> Struct | None:
    if state is None:
        return None
    struct = Struct()
    struct.update(dict(state))
    return struct
