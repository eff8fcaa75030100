"""Who calls an operation, of which agent, and in which version of the protocol."""

import re
from typing import Final

from access.binding import bound_project, bound_user
from access.caller import CHAT, SESSIONS_READ, current
from chat_gateway.a2a.errors import VersionNotSupported
from contract.fields import DEFAULT_PROJECT, check_resource_id, check_user_id
from servicekit.errors import Violations
from servicekit.values import value

VERSION: Final = "1.0"
_VERSIONS: Final = re.compile(r"1(\.0(\.[0-9]{1,6})?)?")
_UNNAMED: Final = "0.3"
"""What a caller speaks that names no version (specification, 3.6.2)."""

SCOPES: Final = {
    "SendMessage": CHAT,
    "SendStreamingMessage": CHAT,
    "GetTask": CHAT,
    "ListTasks": SESSIONS_READ,
    "CancelTask": CHAT,
    "SubscribeToTask": CHAT,
    "CreateTaskPushNotificationConfig": CHAT,
    "GetTaskPushNotificationConfig": CHAT,
    "ListTaskPushNotificationConfigs": CHAT,
    "DeleteTaskPushNotificationConfig": CHAT,
    "GetExtendedAgentCard": CHAT,
}
"""What a caller needs for each operation."""


@value
class A2ACall:
    """One call. `agent_id` is empty where a task's id alone says what is meant (gRPC without a tenant)."""

    agent_id: str
    project: str = DEFAULT_PROJECT
    user_id: str = ""


def call_of(agent_id: str, project: str, user_id: str) -> A2ACall:
    """Returns the call of the running task's caller, bound to what it may name.

    Raises `ProjectDenied`, `UserDenied`, and `InvalidArgument` for what can't be an id.
    """
    project, user_id = bound_project(current(), project), bound_user(current(), user_id)
    found = Violations()
    for field, name in (("tenant", agent_id), ("X-Project-ID", project)):
        if name:
            check_resource_id(found, field, name)
    if user_id:
        check_user_id(found, "X-User-ID", user_id)
    found.check()
    return A2ACall(agent_id, project or DEFAULT_PROJECT, user_id)


def check_version(said: str) -> None:
    """Raises `VersionNotSupported` unless the caller speaks ours; a patch number makes no difference."""
    version = said.strip() or _UNNAMED
    if not _VERSIONS.fullmatch(version):
        raise VersionNotSupported(f"A2A {version[:20]} is not supported, but {VERSION}: send `A2A-Version: {VERSION}`")
