"""The domain errors of chat_gateway. Reasons are documented in parley.errors.v1.Reason."""

import asyncio

from contract.reasons import Reason
from servicekit.errors import Code, ServiceError, Violation

MAX_SHOWN = 200
"""Maximum characters of a caller's text in messages."""


class HistoryMismatch(ServiceError):
    """The transcript contradicts the session. `first` is the index of the first message that differs."""

    code = Code.ABORTED
    reason = Reason.HISTORY_MISMATCH

    def __init__(self, session_id: str, first: int, *, ends: bool) -> None:
        field = f"messages[{first}]"
        problem = (
            "the session's history continues after the end of these messages"
            if ends
            else "differs from the session's history, with which the messages agree up to here"
        )
        super().__init__(
            f"{field}: {problem}; send the new messages only, or choose what these are: `history: replace` or `append`",
            violations=[Violation(field, problem)],
            metadata={"session_id": session_id, "first_difference": str(first)},
        )


class ResponseUnfinished(ServiceError):
    """The response that another one is to go on from is queued or under way."""

    code = Code.ABORTED
    reason = Reason.SESSION_BUSY

    def __init__(self, response_id: str, session_id: str) -> None:
        super().__init__(
            f"response {response_id[:MAX_SHOWN]!r} has not ended yet, so it can't be continued",
            metadata={"session_id": session_id},
            retry_after=1.0,
        )


class SessionFull(ServiceError):
    """The session has the maximum number of turns, and the transcript replaces none of them."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.SESSION_FULL

    def __init__(self, session_id: str, limit: int) -> None:
        super().__init__(
            f"session {session_id!r} has all of the {limit} turns that it may keep, and the messages replace none",
            metadata={"session_id": session_id, "limit": str(limit)},
        )


class PlaceholderMissing(ServiceError):
    """The instructions have a placeholder without a value."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.PLACEHOLDER_MISSING

    def __init__(self, placeholder: str) -> None:
        super().__init__(
            f"the instructions need {{{{{placeholder}}}}}: neither parameters nor session metadata have it",
            metadata={"placeholder": placeholder},
        )


class ParametersInvalid(ServiceError):
    """A template can't build an agent of its parameters, though they fit its schema."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.PARAMETERS_INVALID

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", violations=[Violation(field, problem)])


class ProviderUnknown(ServiceError):
    """The agent config names an unknown provider."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.PROVIDER_UNKNOWN

    def __init__(self, provider: str) -> None:
        super().__init__(f"this gateway has no provider {provider!r}", metadata={"provider": provider})


class TemplateNotBuildable(ServiceError):
    """The agent config names a template that this gateway can't build."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.TEMPLATE_NOT_BUILDABLE

    def __init__(self, template_id: str, version: str = "") -> None:
        written_for = f" for a config of version {version}" if version else ""
        super().__init__(
            f"this gateway can't build template {template_id!r}{written_for}",
            metadata={"template_id": template_id, "template_version": version},
        )


class TurnQueueFull(ServiceError):
    """The maximum number of turns is running and queued, for the gateway or the agent."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.TURN_QUEUE_FULL

    def __init__(self, scope: str, limit: int, retry_after: float) -> None:
        super().__init__(
            f"the {scope} has all of its {limit} turns running and its queue is full",
            metadata={"scope": scope, "limit": str(limit)},
            retry_after=retry_after,
            quota_subject=scope,
        )


class ToolServerUnavailable(ServiceError):
    """A required tool server is unavailable. `why` follows the server's id in the message."""

    code = Code.UNAVAILABLE
    reason = Reason.TOOL_SERVER_UNAVAILABLE

    def __init__(self, tool_server_id: str, why: str, *, retry_after: float | None = None) -> None:
        super().__init__(
            f"tool server {tool_server_id!r} {why}",
            metadata={"tool_server": tool_server_id},
            retry_after=retry_after,
        )


class TurnTimeout(ServiceError):
    """The caller's deadline, or the timeout of the whole turn, was exceeded."""

    code = Code.DEADLINE_EXCEEDED
    reason = Reason.DEADLINE_EXCEEDED

    def __init__(self, bound: str) -> None:
        super().__init__(f"the turn did not end within its bound {bound!r}", metadata={"bound": bound})


class CommitUnresolved(ServiceError):
    """It is unknown whether the turn is stored, and the request has no id with which a repeat could find out."""

    code = Code.DEADLINE_EXCEEDED
    reason = Reason.DEADLINE_EXCEEDED

    def __init__(self) -> None:
        super().__init__(
            "the turn may be stored or not: session_svc did not answer its commit in time", metadata={"bound": "commit"}
        )


class TurnHandedOver(ServiceError):
    """Another gateway continues the turn. A repeat would be another turn; watch this one by its id."""

    code = Code.ABORTED
    reason = Reason.TURN_HANDED_OVER

    def __init__(self, turn_id: str, session_id: str) -> None:
        super().__init__(
            f"another gateway continues turn {turn_id!r} of session {session_id!r}: watch its events",
            metadata={"turn_id": turn_id, "session_id": session_id},
        )


class TurnCutShort(asyncio.CancelledError):
    """The task was cancelled because its process stops, and another gateway continues the turn. Code that converts the
    cancellation to an error must use `error`.
    """

    def __init__(self, error: TurnHandedOver) -> None:
        super().__init__()
        self.error = error


class CommitCutShort(asyncio.CancelledError):
    """The task was cancelled during its commit: it is unknown whether the turn is stored. Code that converts the
    cancellation to an error must use `CommitUnresolved`.
    """


class ToolCallsRepeated(ServiceError):
    """The model keeps requesting the same call with the same arguments."""

    code = Code.ABORTED
    reason = Reason.TOOL_CALLS_REPEATED

    def __init__(self, tool: str, times: int) -> None:
        super().__init__(
            f"the model called {tool[:MAX_SHOWN]!r} with the same arguments {times} times running",
            metadata={"tool": tool[:MAX_SHOWN]},
        )


class AgentDepthExceeded(ServiceError):
    """Agents call agents too deeply, most likely in a cycle."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.AGENT_DEPTH_EXCEEDED

    def __init__(self, agent_id: str, limit: int) -> None:
        super().__init__(
            f"agent {agent_id!r} would be called by {limit} agents above each other: agents may call at most so deep",
            metadata={"agent_id": agent_id, "limit": str(limit)},
        )


class ApprovalUnknown(ServiceError):
    """An approval names a call that is not waiting for approval."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.APPROVAL_UNKNOWN

    def __init__(self, call_id: str) -> None:
        super().__init__(
            f"no tool call {call_id[:MAX_SHOWN]!r} of the session waits for an approval",
            metadata={"tool_call_id": call_id[:MAX_SHOWN]},
        )
