"""Where notices of turns go, between the wire and values."""

import re
from typing import Final

from contract.fields import DEFAULT_PROJECT, check_resource_id, check_session_id, check_turn_id, check_user_id
from parley.session.v1 import turn_service_pb2 as pb
from servicekit.errors import Violations
from session_svc.model.push import PushConfig, PushTurn
from session_svc.model.session import SessionKey

MAX_CONTENT: Final = 6 * 1024
_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Request = pb.PutPushConfigRequest | pb.ListPushConfigsRequest | pb.DeletePushConfigRequest


def push_turn(request: Request) -> PushTurn:
    """Returns which turn is meant. Raises `InvalidArgument` with every violation of the request."""
    key, found = SessionKey(request.project or DEFAULT_PROJECT, request.session_id), Violations()
    check_resource_id(found, "project", key.project)
    check_session_id(found, "session_id", key.session_id)
    check_user_id(found, "user_id", request.user_id)
    check_turn_id(found, "turn_id", request.turn_id)
    match request:
        case pb.PutPushConfigRequest(push_config=config):
            _check_id(found, "push_config.id", config.id)
            if not 0 < len(config.content) <= MAX_CONTENT:
                found.add("push_config.content", f"must have 1 to {MAX_CONTENT} bytes")
        case pb.DeletePushConfigRequest(push_config_id=config_id):
            _check_id(found, "push_config_id", config_id)
    found.check()
    return PushTurn(key, request.user_id, request.turn_id)


def config_of(message: pb.PushConfig) -> PushConfig:
    """Returns what was checked with its request."""
    return PushConfig(message.id, message.content)


def message_of(config: PushConfig) -> pb.PushConfig:
    """Returns it as it goes over the wire."""
    return pb.PushConfig(id=config.id, content=config.content)


def _check_id(found: Violations, field: str, text: str) -> None:
    if not _ID.fullmatch(text):
        found.add(field, "must be 1 to 128 of A-Z, a-z, 0-9, '.', '_', ':' and '-'")
