"""Errors for resources that do not exist, or that the caller may not see."""

from chat_gateway.model.errors import MAX_SHOWN
from contract.fields import RESOURCE_ID_RULE
from contract.reasons import Reason
from servicekit.errors import Code, ServiceError, Violation


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
            f"there is no tool server {tool_server_id[:MAX_SHOWN]!r}",
            metadata={"tool_server_id": tool_server_id[:MAX_SHOWN]},
        )


class SessionNotFound(ServiceError):
    """The session does not exist, or its turns are not the caller's to see."""

    code = Code.NOT_FOUND
    reason = Reason.SESSION_NOT_FOUND

    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is no session {session_id!r}", metadata={"session_id": session_id})


class ModelNotFound(ServiceError):
    """The `model` of an OpenAI client can't be an agent's id."""

    code = Code.NOT_FOUND
    reason = Reason.MODEL_NOT_FOUND

    def __init__(self, model: str, rule: str = RESOURCE_ID_RULE) -> None:
        super().__init__(
            f"there is no model {model[:MAX_SHOWN]!r}: a model is an agent, by its id",
            violations=[Violation("model", rule)],
            metadata={"model": model[:MAX_SHOWN]},
        )


class CompletionNotFound(ServiceError):
    """The chat completion does not exist, belongs to another user, or its session has ended."""

    code = Code.NOT_FOUND
    reason = Reason.TURN_NOT_FOUND

    def __init__(self, completion_id: str) -> None:
        shown = completion_id[:MAX_SHOWN]
        super().__init__(f"there is no stored chat completion {shown!r}", metadata={"completion_id": shown})


class ResponseNotFound(ServiceError):
    """The response does not exist, belongs to another user, or its session has ended."""

    code = Code.NOT_FOUND
    reason = Reason.TURN_NOT_FOUND

    def __init__(self, response_id: str) -> None:
        shown = response_id[:MAX_SHOWN]
        super().__init__(f"there is no stored response {shown!r}", metadata={"response_id": shown})


class ConversationNotFound(ServiceError):
    """The conversation does not exist, belongs to another user, or has ended."""

    code = Code.NOT_FOUND
    reason = Reason.SESSION_NOT_FOUND

    def __init__(self, conversation_id: str) -> None:
        shown = conversation_id[:MAX_SHOWN]
        super().__init__(f"there is no conversation {shown!r}", metadata={"session_id": shown})


class ConversationItemNotFound(ServiceError):
    """The conversation has no such item."""

    code = Code.NOT_FOUND
    reason = Reason.TURN_NOT_FOUND

    def __init__(self, item_id: str) -> None:
        shown = item_id[:MAX_SHOWN]
        super().__init__(f"there is no item {shown!r} in the conversation", metadata={"item_id": shown})


class ConversationItemKept(ServiceError):
    """An item can't be removed from a conversation, because later answers depend on it."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.TURN_NOT_LAST

    def __init__(self, item_id: str) -> None:
        super().__init__(
            "an item can't be taken out of its conversation: delete the last response, or the conversation",
            metadata={"item_id": item_id[:MAX_SHOWN]},
        )
