"""Where push notifications of tasks go: kept with the task's session, and what is secret of it sealed."""

import re
import uuid
from collections.abc import Sequence
from typing import Final, Protocol

import structlog
from a2a.types import a2a_pb2 as pb
from google.protobuf.message import DecodeError

from chat_gateway.a2a.calls import A2ACall
from chat_gateway.a2a.errors import PushNotificationNotSupported, TaskNotFound
from chat_gateway.a2a.ids import parse_task_id
from chat_gateway.a2a.push_keys import PushKeys
from chat_gateway.model.background import TurnOfUser
from contract.reasons import Reason
from servicekit.egress import EgressDenied, EgressRules
from servicekit.errors import InvalidArgument, ServiceError, Violation, Violations

MAX_URL, MAX_TOKEN, MAX_CREDENTIALS = 2048, 512, 2048
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SCHEME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]*")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")

log = structlog.get_logger("chat_gateway.a2a.push")


class PushStore(Protocol):
    """Keeps what it is given with the session of a turn. Raises `RemoteError` (TURN_NOT_FOUND, INVALID_FIELD)."""

    async def put(self, turn: TurnOfUser, config_id: str, content: bytes) -> None:
        """Keeps one in place of any with its id."""

    async def list(self, turn: TurnOfUser) -> list[tuple[str, bytes]]:
        """Returns those of the turn."""

    async def delete(self, turn: TurnOfUser, config_id: str) -> None:
        """Removes one, where it is there."""


class PushConfigs:
    """The configurations of tasks. Callers see them without what is secret."""

    def __init__(self, store: PushStore, keys: PushKeys, rules: EgressRules) -> None:
        self._store = store
        self._keys = keys
        self._rules = rules

    def check(self, config: pb.TaskPushNotificationConfig, field: str = "") -> None:
        """Raises `InvalidArgument` with every violation; where the operator lets nothing be sent to is one."""
        found = Violations()
        if config.id and not _ID.fullmatch(config.id):
            found.add(f"{field}id", "must be 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'")
        self._check_url(config.url, f"{field}url", found)
        if len(config.token) > MAX_TOKEN or not _VISIBLE.fullmatch(config.token):
            found.add(f"{field}token", f"must be at most {MAX_TOKEN} printable ASCII characters without spaces")
        if config.HasField("authentication"):
            said = config.authentication
            if not _SCHEME.fullmatch(said.scheme):
                found.add(f"{field}authentication.scheme", "must be a scheme of HTTP authentication, such as Bearer")
            if len(said.credentials) > MAX_CREDENTIALS or not _PRINTABLE.fullmatch(said.credentials):
                rule = f"must be at most {MAX_CREDENTIALS} printable ASCII characters"
                found.add(f"{field}authentication.credentials", rule)
        found.check()

    async def put(
        self, turn: TurnOfUser, config: pb.TaskPushNotificationConfig, default_id: str = ""
    ) -> pb.TaskPushNotificationConfig:
        """Keeps one that was checked, in place of any with its id; returns it as callers see it."""
        kept = pb.TaskPushNotificationConfig()
        kept.CopyFrom(config)
        kept.id = config.id or default_id or uuid.uuid4().hex
        kept.task_id, kept.tenant = "", ""
        content = self._keys.seal(kept.SerializeToString(), _place(turn, kept.id))
        try:
            await self._store.put(turn, kept.id, content)
        except ServiceError as error:
            if error.reason == Reason.INVALID_FIELD:
                raise InvalidArgument([Violation("task_id", "the task has as many configurations as it may")]) from None
            raise _of_protocol(error) from None
        return kept

    async def list(self, turn: TurnOfUser) -> list[pb.TaskPushNotificationConfig]:
        """Returns those of a task that can be read, with what is secret of them."""
        try:
            kept = await self._store.list(turn)
        except ServiceError as error:
            raise _of_protocol(error) from None
        found = []
        for config_id, content in kept:
            if (opened := self._keys.open(content, _place(turn, config_id))) is None:
                continue
            try:
                found.append(pb.TaskPushNotificationConfig.FromString(opened))
            except DecodeError:
                log.error("push_config_unreadable", turn_id=turn.turn_id)
        return found

    async def delete(self, turn: TurnOfUser, config_id: str) -> None:
        """Removes one, where it is there."""
        if not _ID.fullmatch(config_id):
            return
        try:
            await self._store.delete(turn, config_id)
        except ServiceError as error:
            raise _of_protocol(error) from None

    def _check_url(self, url: str, field: str, found: Violations) -> None:
        if not url or len(url) > MAX_URL:
            found.add(field, f"must be a URL of at most {MAX_URL} characters")
            return
        try:
            self._rules.check_url(url)
        except EgressDenied as error:
            found.add(field, error.message)


def turn_of_task(call: A2ACall, named: str) -> TurnOfUser:
    """Returns the turn that a task began with. Raises `TaskNotFound` if it is not the id of one."""
    ids = parse_task_id(named)
    if ids is None:
        raise TaskNotFound
    return TurnOfUser(call.project, ids[1], call.user_id, ids[0])


def shown(config: pb.TaskPushNotificationConfig, task_id: str) -> pb.TaskPushNotificationConfig:
    """Returns a configuration as callers see it: without token and credentials."""
    seen = pb.TaskPushNotificationConfig(id=config.id, task_id=task_id, url=config.url)
    if config.HasField("authentication"):
        seen.authentication.scheme = config.authentication.scheme
    return seen


def page_of(
    configs: Sequence[pb.TaskPushNotificationConfig], request: pb.ListTaskPushNotificationConfigsRequest
) -> pb.ListTaskPushNotificationConfigsResponse:
    """Returns a page. Raises `InvalidArgument`; a token is the id of the last configuration that was seen."""
    found, ids = Violations(), [one.id for one in configs]
    if request.page_size < 0:
        found.add("page_size", "must be at least 0")
    if request.page_token and request.page_token not in ids:
        found.add("page_token", "must be the next_page_token of a list")
    found.check()
    start = ids.index(request.page_token) + 1 if request.page_token else 0
    page = configs[start : start + request.page_size] if request.page_size else configs[start:]
    more = page and start + len(page) < len(configs)
    seen = [shown(one, request.task_id) for one in page]
    return pb.ListTaskPushNotificationConfigsResponse(configs=seen, next_page_token=page[-1].id if more else "")


def _place(turn: TurnOfUser, config_id: str) -> str:
    return f"{turn.project}/{turn.session_id}/{turn.turn_id}/{config_id}"


def _of_protocol(error: ServiceError) -> ServiceError:
    if error.reason in (Reason.TURN_NOT_FOUND, Reason.SESSION_NOT_FOUND):
        return TaskNotFound()
    return PushNotificationNotSupported() if error.reason == Reason.NOT_IMPLEMENTED else error
