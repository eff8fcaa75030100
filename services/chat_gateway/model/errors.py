"""The domain errors of chat_gateway. Reasons are documented in parley.errors.v1.Reason."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from contract.fields import RESOURCE_ID_RULE
from contract.reasons import Reason
from servicekit.errors import MAX_VIOLATIONS, Code, ServiceError, Violation

_MAX_LISTED = 10
_MAX_SHOWN = 200
"""Characters of what a caller named."""
UNKNOWN_FIELD: Final = "is not a field that is understood here"

WATCH_RETRY_SECONDS = 5.0


class AgentNotFound(ServiceError):
    """No such agent config in the project."""

    code = Code.NOT_FOUND
    reason = Reason.AGENT_NOT_FOUND

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"there is no agent {agent_id!r}", metadata={"agent_id": agent_id})


class ToolServerNotFound(ServiceError):
    """No such tool server in the project."""

    code = Code.NOT_FOUND
    reason = Reason.TOOL_SERVER_NOT_FOUND

    def __init__(self, tool_server_id: str) -> None:
        super().__init__(
            f"there is no tool server {tool_server_id[:_MAX_SHOWN]!r}",
            metadata={"tool_server_id": tool_server_id[:_MAX_SHOWN]},
        )


class ModelNotFound(ServiceError):
    """What an OpenAI client names as its model can't be the id of an agent."""

    code = Code.NOT_FOUND
    reason = Reason.MODEL_NOT_FOUND

    def __init__(self, model: str, rule: str = RESOURCE_ID_RULE) -> None:
        super().__init__(
            f"there is no model {model[:_MAX_SHOWN]!r}: a model is an agent, by its id",
            violations=[Violation("model", rule)],
            metadata={"model": model[:_MAX_SHOWN]},
        )


class CompletionNotFound(ServiceError):
    """No such chat completion is stored: it never was, it is another user's, or its session has ended."""

    code = Code.NOT_FOUND
    reason = Reason.TURN_NOT_FOUND

    def __init__(self, completion_id: str) -> None:
        shown = completion_id[:_MAX_SHOWN]
        super().__init__(f"there is no stored chat completion {shown!r}", metadata={"completion_id": shown})


class ResponseNotFound(ServiceError):
    """No such response is stored: it never was, it is another user's, or its session has ended."""

    code = Code.NOT_FOUND
    reason = Reason.TURN_NOT_FOUND

    def __init__(self, response_id: str) -> None:
        shown = response_id[:_MAX_SHOWN]
        super().__init__(f"there is no stored response {shown!r}", metadata={"response_id": shown})


class ConversationNotFound(ServiceError):
    """No such conversation: it never was, it is another user's, or it has ended."""

    code = Code.NOT_FOUND
    reason = Reason.SESSION_NOT_FOUND

    def __init__(self, conversation_id: str) -> None:
        shown = conversation_id[:_MAX_SHOWN]
        super().__init__(f"there is no conversation {shown!r}", metadata={"session_id": shown})


class ConversationItemNotFound(ServiceError):
    """The conversation has no such item."""

    code = Code.NOT_FOUND
    reason = Reason.TURN_NOT_FOUND

    def __init__(self, item_id: str) -> None:
        shown = item_id[:_MAX_SHOWN]
        super().__init__(f"there is no item {shown!r} in the conversation", metadata={"item_id": shown})


class ConversationItemKept(ServiceError):
    """An item can't be taken out of a conversation: later answers were given with it in view."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.TURN_NOT_LAST

    def __init__(self, item_id: str) -> None:
        super().__init__(
            "an item can't be taken out of its conversation: delete the last response, or the conversation",
            metadata={"item_id": item_id[:_MAX_SHOWN]},
        )


class HistoryMismatch(ServiceError):
    """The transcript contradicts what is stored. `first` is the place of the first message that differs."""

    code = Code.ABORTED
    reason = Reason.HISTORY_MISMATCH

    def __init__(self, session_id: str, first: int, *, ends: bool) -> None:
        field = f"messages[{first}]"
        problem = (
            "the session's history goes on where these messages end"
            if ends
            else "differs from the session's history, with which the messages agree up to here"
        )
        super().__init__(
            f"{field}: {problem}; send the new messages only, or choose what these are: `history: replace` or `append`",
            violations=[Violation(field, problem)],
            metadata={"session_id": session_id, "first_difference": str(first)},
        )


class SessionFull(ServiceError):
    """The session has as many turns as it may have, and the transcript replaces none of them."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.SESSION_FULL

    def __init__(self, session_id: str, limit: int) -> None:
        super().__init__(
            f"session {session_id!r} has all of the {limit} turns that it may keep, and the messages replace none",
            metadata={"session_id": session_id, "limit": str(limit)},
        )


class PlaceholderMissing(ServiceError):
    """The instructions name a placeholder that nothing fills."""

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
    """The agent config names a provider that this gateway does not have."""

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
    """As many turns are running and queued as may be, for the gateway or for the agent."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.TURN_QUEUE_FULL

    def __init__(self, scope: str, limit: int, retry_after: float) -> None:
        super().__init__(
            f"the {scope} has all of its {limit} turns running and its queue is full",
            metadata={"scope": scope, "limit": str(limit)},
            retry_after=retry_after,
            quota_subject=scope,
        )


class ProviderUnavailable(ServiceError):
    """The provider can't be reached, or answered 408 or 5xx."""

    code = Code.UNAVAILABLE
    reason = Reason.PROVIDER_UNAVAILABLE

    def __init__(self, provider: str, why: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(
            f"provider {provider!r} {why}",
            metadata={"provider": provider, "status": str(status)},
            retry_after=retry_after,
        )


class ProviderTimeout(ServiceError):
    """The provider took longer than a bound: `connect`, `first_token`, `between_tokens`; `answer` when not streamed."""

    code = Code.DEADLINE_EXCEEDED
    reason = Reason.PROVIDER_TIMEOUT

    def __init__(self, provider: str, bound: str) -> None:
        super().__init__(
            f"provider {provider!r} took longer than the bound {bound!r}",
            metadata={"provider": provider, "bound": bound},
        )


class ProviderBadResponse(ServiceError):
    """The provider's answer is not what its protocol says."""

    code = Code.INTERNAL
    reason = Reason.PROVIDER_BAD_RESPONSE

    def __init__(self, provider: str, why: str) -> None:
        super().__init__(f"provider {provider!r} gave a bad answer: {why}", metadata={"provider": provider})


class ProviderRejected(ServiceError):
    """The provider refused the request for what is in it: 4xx, but for those that have an error of their own.

    `code`, `param` and `message` are the provider's own, as far as the caller may see them.
    """

    code = Code.FAILED_PRECONDITION
    reason = Reason.PROVIDER_REJECTED

    def __init__(self, provider: str, status: int, *, code: str = "", param: str = "", message: str = "") -> None:
        said = {"code": code, "param": param}
        super().__init__(
            f"provider {provider!r} refused the request with status {status}" + (f": {message}" if message else ""),
            metadata={
                "provider": provider,
                "status": str(status),
                **{name: text for name, text in said.items() if text},
            },
        )


class UnsupportedContent(ServiceError):
    """The provider does not take parts of the request's messages; `found` names each by its place."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.UNSUPPORTED_FIELD

    def __init__(self, provider: str, found: Iterable[Violation]) -> None:
        violations = list(found)
        super().__init__(
            "; ".join(f"{one.field}: {one.description}" for one in violations[:_MAX_LISTED]),
            metadata={"provider": provider},
            violations=violations,
        )


class _RefusedFields(ServiceError):
    """Fields of the request that are refused, by their names in chat completions."""

    code = Code.INVALID_ARGUMENT

    def __init__(self, violations: Sequence[Violation], metadata: Mapping[str, str]) -> None:
        message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        super().__init__(message, metadata=metadata, violations=violations)

    def renamed(self, name_of: Callable[[str], str]) -> "_RefusedFields":
        """Returns the error with the names that the fields have in another protocol."""
        violations = [Violation(name_of(one.field), one.description) for one in self.violations]
        renamed = _RefusedFields(violations, self.metadata)
        renamed.reason = self.reason
        return renamed


class UnsupportedField(_RefusedFields):
    """Fields of the request are not taken, which would change nothing without a word: by the provider, or by Parley."""

    reason = Reason.UNSUPPORTED_FIELD

    def __init__(self, provider: str, fields: Iterable[str]) -> None:
        """`provider` is empty where the field would be Parley's own to understand."""
        rule = f"provider {provider!r} does not take it" if provider else UNKNOWN_FIELD
        violations = [Violation(field, rule) for field in islice(fields, MAX_VIOLATIONS)]
        super().__init__(violations, {"provider": provider} if provider else {})


class FieldsUnsupported(_RefusedFields):
    """Fields of the request, or what they say, are of the protocol and not taken here; each says so."""

    reason = Reason.UNSUPPORTED_FIELD

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(violations, {})


class FieldNotOverridable(_RefusedFields):
    """The request sets what the agent config keeps to itself. Fields have their names in chat completions."""

    reason = Reason.FIELD_NOT_OVERRIDABLE

    def __init__(self, agent_id: str, fields: Iterable[str]) -> None:
        violations = [Violation(field, f"agent {agent_id!r} does not let requests set it") for field in fields]
        super().__init__(violations, {"agent_id": agent_id})


class EmbeddingsUnsupported(ServiceError):
    """The provider's API has no embeddings."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.EMBEDDINGS_UNSUPPORTED

    def __init__(self, provider: str, kind: str) -> None:
        super().__init__(
            f"provider {provider!r} has no embeddings: its kind, {kind}, has no such API",
            metadata={"provider": provider},
        )


class ProviderRateLimited(ServiceError):
    """The provider takes no more requests now (429). `retry_after` is what it said, None where it did not."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.PROVIDER_RATE_LIMITED

    def __init__(self, provider: str, *, retry_after: float | None) -> None:
        super().__init__(
            f"provider {provider!r} limits the rate of requests",
            metadata={"provider": provider, "status": "429"},
            retry_after=retry_after,
            quota_subject=f"provider:{provider}",
        )


class ProviderMisconfigured(ServiceError):
    """The provider refuses this gateway, whoever calls: its key, its URL or the model's name is wrong."""

    code = Code.INTERNAL
    reason = Reason.PROVIDER_MISCONFIGURED

    def __init__(self, provider: str, why: str, *, status: int) -> None:
        super().__init__(
            f"provider {provider!r} {why}: the operator has to look at its settings",
            metadata={"provider": provider, "status": str(status)},
        )


class ToolServerUnavailable(ServiceError):
    """A tool server that the agent requires has no tools to offer now. `why` follows the server's id."""

    code = Code.UNAVAILABLE
    reason = Reason.TOOL_SERVER_UNAVAILABLE

    def __init__(self, tool_server_id: str, why: str, *, retry_after: float | None = None) -> None:
        super().__init__(
            f"tool server {tool_server_id!r} {why}",
            metadata={"tool_server": tool_server_id},
            retry_after=retry_after,
        )


class TurnTimeout(ServiceError):
    """The caller's deadline, or the bound on a whole turn, ran out."""

    code = Code.DEADLINE_EXCEEDED
    reason = Reason.DEADLINE_EXCEEDED

    def __init__(self, bound: str) -> None:
        super().__init__(f"the turn did not end within its bound {bound!r}", metadata={"bound": bound})


class CommitUnresolved(ServiceError):
    """Whether the turn is stored stays unknown, and the request has no id by which a repeat would find out."""

    code = Code.DEADLINE_EXCEEDED
    reason = Reason.DEADLINE_EXCEEDED

    def __init__(self) -> None:
        super().__init__(
            "the turn may be stored or not: session_svc did not answer its commit in time", metadata={"bound": "commit"}
        )


class TurnHandedOver(ServiceError):
    """Another gateway goes on with the turn: a repeat would be another turn, and its id says how this one ends."""

    code = Code.ABORTED
    reason = Reason.TURN_HANDED_OVER

    def __init__(self, turn_id: str, session_id: str) -> None:
        super().__init__(
            f"another gateway goes on with turn {turn_id!r} of session {session_id!r}: watch its events",
            metadata={"turn_id": turn_id, "session_id": session_id},
        )


class TurnCutShort(asyncio.CancelledError):
    """The task was cancelled because its process stops, and another gateway goes on with the turn.

    Whoever takes the cancellation for an error of its own answers `error`.
    """

    def __init__(self, error: TurnHandedOver) -> None:
        super().__init__()
        self.error = error


class CommitCutShort(asyncio.CancelledError):
    """The task was cancelled while its commit was under way: whether the turn is stored is not known.

    Whoever takes the cancellation for an error of its own answers `CommitUnresolved`.
    """


class SessionAgentMismatch(ServiceError):
    """The session belongs to another agent."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.SESSION_AGENT_MISMATCH

    def __init__(self, session_id: str, agent_id: str) -> None:
        super().__init__(
            f"session {session_id!r} belongs to another agent than {agent_id!r}",
            metadata={"session_id": session_id, "agent_id": agent_id},
        )


class ToolCallsRepeated(ServiceError):
    """The model has asked for the same call with the same arguments again and again."""

    code = Code.ABORTED
    reason = Reason.TOOL_CALLS_REPEATED

    def __init__(self, tool: str, times: int) -> None:
        super().__init__(
            f"the model called {tool[:_MAX_SHOWN]!r} with the same arguments {times} times running",
            metadata={"tool": tool[:_MAX_SHOWN]},
        )


class AgentDepthExceeded(ServiceError):
    """Agents have called agents too often: most likely they call each other in a circle."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.AGENT_DEPTH_EXCEEDED

    def __init__(self, agent_id: str, limit: int) -> None:
        super().__init__(
            f"agent {agent_id!r} would be called by {limit} agents above each other: agents may call at most so deep",
            metadata={"agent_id": agent_id, "limit": str(limit)},
        )


class ApprovalUnknown(ServiceError):
    """An approval names a call that does not wait for one."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.APPROVAL_UNKNOWN

    def __init__(self, call_id: str) -> None:
        super().__init__(
            f"no tool call {call_id[:_MAX_SHOWN]!r} of the session waits for an approval",
            metadata={"tool_call_id": call_id[:_MAX_SHOWN]},
        )


class TooManyWatches(ServiceError):
    """As many watches of turns are open as may be, of a session or project, or in all."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.TOO_MANY_WATCHES

    def __init__(self, scope: str, limit: int) -> None:
        super().__init__(
            f"too many watches of turns are open: at most {limit} (of one {scope})",
            metadata={"scope": scope, "limit": str(limit)},
            retry_after=WATCH_RETRY_SECONDS,
            quota_subject=scope,
        )
