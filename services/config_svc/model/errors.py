"""The domain errors of config_svc. Reasons are documented in parley.errors.v1.Reason."""

from collections.abc import Sequence

from contract.reasons import Reason
from servicekit.errors import Code, InvalidArgument, ServiceError, Violation


class AgentNotFound(ServiceError):
    """No such agent config in this project."""

    code = Code.NOT_FOUND
    reason = Reason.AGENT_NOT_FOUND

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"agent {agent_id!r} does not exist", metadata={"agent_id": agent_id})


class RevisionNotFound(ServiceError):
    """The agent config has no such revision."""

    code = Code.NOT_FOUND
    reason = Reason.REVISION_NOT_FOUND

    def __init__(self, agent_id: str, revision: int) -> None:
        super().__init__(
            f"agent {agent_id!r} has no revision {revision}",
            metadata={"agent_id": agent_id, "revision": str(revision)},
        )


class AgentAlreadyExists(ServiceError):
    """An agent config with this id already exists."""

    code = Code.ALREADY_EXISTS
    reason = Reason.AGENT_ALREADY_EXISTS

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"agent {agent_id!r} already exists", metadata={"agent_id": agent_id})


class ProjectNotFound(ServiceError):
    """No such project, or it is being deleted."""

    code = Code.NOT_FOUND
    reason = Reason.PROJECT_NOT_FOUND

    def __init__(self, project: str) -> None:
        super().__init__(f"project {project!r} does not exist", metadata={"project": project})


class ProjectAlreadyExists(ServiceError):
    """A project with this id already exists, or its deletion has not ended."""

    code = Code.ALREADY_EXISTS
    reason = Reason.PROJECT_ALREADY_EXISTS

    def __init__(self, project: str) -> None:
        super().__init__(f"project {project!r} already exists", metadata={"project": project})


class ProjectInUse(ServiceError):
    """The project can't be deleted."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.PROJECT_IN_USE

    def __init__(self, project: str) -> None:
        super().__init__(f"project {project!r} can't be deleted", metadata={"project": project})


class ApiKeyNotFound(ServiceError):
    """No such API key in this project."""

    code = Code.NOT_FOUND
    reason = Reason.API_KEY_NOT_FOUND

    def __init__(self, key_id: str) -> None:
        super().__init__(f"API key {key_id!r} does not exist", metadata={"api_key_id": key_id})


class TooManyApiKeys(ServiceError):
    """The project has the maximum number of active API keys."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.TOO_MANY_API_KEYS

    def __init__(self, project: str, limit: int) -> None:
        super().__init__(
            f"project {project!r} has {limit} API keys or more, and may have no further one: revoke some",
            metadata={"project": project, "limit": str(limit)},
            quota_subject=f"project:{project}",
        )


class EtagMismatch(ServiceError):
    """The etag given is not the current one (AIP-154)."""

    code = Code.ABORTED
    reason = Reason.ETAG_MISMATCH

    def __init__(self, agent_id: str) -> None:
        super().__init__(
            f"agent {agent_id!r} has changed since it was read: read it again, then retry",
            metadata={"agent_id": agent_id},
        )


class IdempotencyKeyReused(ServiceError):
    """The same request id came with another body (AIP-155)."""

    code = Code.ABORTED
    reason = Reason.IDEMPOTENCY_KEY_REUSED

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request id {request_id!r} was used for another request", metadata={"request_id": request_id})


class TemplateNotFound(ServiceError):
    """The template id or version named is not published."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.TEMPLATE_NOT_FOUND

    def __init__(self, template_id: str, version: str = "", *, violations: Sequence[Violation] = ()) -> None:
        super().__init__(
            missing_template(template_id, version), metadata={"template_id": template_id}, violations=violations
        )


class TemplateConflict(ServiceError):
    """The template version is published with other content."""

    code = Code.ALREADY_EXISTS
    reason = Reason.TEMPLATE_CONFLICT

    def __init__(self, template_id: str, version: str) -> None:
        super().__init__(
            f"template {template_id!r} version {version} is published with other content",
            metadata={"template_id": template_id, "template_version": version},
        )


class ParametersInvalid(InvalidArgument):
    """Parameters break the template's JSON Schema; every violation is listed."""

    reason = Reason.PARAMETERS_INVALID


class InvalidPageToken(ServiceError):
    """The page token is not one of this list call."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.INVALID_PAGE_TOKEN

    def __init__(self) -> None:
        super().__init__("the page token is not one that this call, with these arguments, has answered with")


class CursorTooOld(ServiceError):
    """The cursor is not within what the feed keeps."""

    code = Code.OUT_OF_RANGE
    reason = Reason.CURSOR_TOO_OLD

    def __init__(self) -> None:
        super().__init__("the feed no longer knows this cursor: list again, then watch without a cursor")


class WatcherTooSlow(ServiceError):
    """The watcher was slower than the feed and was cut off."""

    code = Code.ABORTED
    reason = Reason.WATCHER_TOO_SLOW

    def __init__(self) -> None:
        super().__init__("the watcher was too slow: resume from the last cursor seen")


def missing_template(template_id: str, version: str) -> str:
    """Returns the message for a template, or a version of one, that is not published."""
    return f"template {template_id!r}{f' version {version}' if version else ''} is not published"


class ToolServerNotFound(ServiceError):
    """No such tool server in this project."""

    code = Code.NOT_FOUND
    reason = Reason.TOOL_SERVER_NOT_FOUND

    def __init__(self, tool_server_id: str) -> None:
        super().__init__(f"tool server {tool_server_id!r} does not exist", metadata={"tool_server_id": tool_server_id})


class ToolServerAlreadyExists(ServiceError):
    """A tool server with this id already exists."""

    code = Code.ALREADY_EXISTS
    reason = Reason.TOOL_SERVER_ALREADY_EXISTS

    def __init__(self, tool_server_id: str) -> None:
        super().__init__(f"tool server {tool_server_id!r} already exists", metadata={"tool_server_id": tool_server_id})


class ToolServerInUse(ServiceError):
    """Agent configs name the tool server; `agent_ids` are the first of `count`."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.TOOL_SERVER_IN_USE

    def __init__(self, tool_server_id: str, agent_ids: Sequence[str], count: int) -> None:
        named = ", ".join(agent_ids) + (f" and {count - len(agent_ids)} more" if count > len(agent_ids) else "")
        super().__init__(
            f"tool server {tool_server_id!r} is named by agents and can't be deleted: {named}",
            metadata={
                "tool_server_id": tool_server_id,
                "agent_ids": ",".join(agent_ids),
                "agent_count": str(count),
            },
        )


class ToolServerChanged(ServiceError):
    """The etag given is not the tool server's current one (AIP-154)."""

    code = Code.ABORTED
    reason = Reason.ETAG_MISMATCH

    def __init__(self, tool_server_id: str) -> None:
        super().__init__(
            f"tool server {tool_server_id!r} has changed since it was read: read it again, then retry",
            metadata={"tool_server_id": tool_server_id},
        )
