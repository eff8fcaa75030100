"""The rules that a TurnRequest keeps, whatever protocol it came by; parley/chat/v1/chat_service.proto states them.

What CommitTurn would refuse of a request is refused here: afterwards the model has been paid for.
"""

import re

from chat_gateway.model.turn import Message, Role, Sampling, TextPart, TurnRequest
from servicekit.errors import MessageTooLarge, Violations

MAX_MESSAGES = 128
MAX_MESSAGES_BYTES = 768 * 1024
"""New messages of one turn, in bytes of UTF-8: what CommitTurn takes, less room for the answer."""
MAX_PARTS = 64
MAX_TOOLS = 128
MAX_TOOL_CALLS = 128
MAX_METADATA = 64

IMAGE_DETAILS = ("", "auto", "low", "high")

_AGENT_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SESSION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_USER_ID = re.compile(r"[\x21-\x7e]{1,256}")
_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,255}")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_turn_request(request: TurnRequest) -> None:
    """Raises `InvalidArgument` with every violation, or `MessageTooLarge`."""
    found = Violations()
    _check_ids(request, found)
    _check_messages(request.messages, found)
    if not request.stateless:
        _check_tool_use(request.messages, found)
    _check_sampling(request.sampling, found)
    _check_tools(request, found)
    _check_metadata(request, found)
    found.check()
    if _size(request.messages) > MAX_MESSAGES_BYTES:
        raise MessageTooLarge(f"the messages are larger than {MAX_MESSAGES_BYTES} bytes", limit=MAX_MESSAGES_BYTES)


def is_agent_id(text: str) -> bool:
    """Tells whether `text` can be an agent's id."""
    return _AGENT_ID.fullmatch(text) is not None


def _check_ids(request: TurnRequest, found: Violations) -> None:
    if not is_agent_id(request.agent_id):
        found.add("agent_id", "must match [a-z]([a-z0-9-]{0,61}[a-z0-9])?")
    if not is_agent_id(request.project):
        found.add("project", "must match [a-z]([a-z0-9-]{0,61}[a-z0-9])?")
    if request.session_id and not _SESSION_ID.fullmatch(request.session_id):
        found.add("session_id", "must match [A-Za-z0-9._:-]{1,128}")
    if request.session_must_exist and not request.session_id:
        found.add("session_must_exist", "needs a session_id")
    if request.stateless and request.session_id:
        found.add("session_id", "must be empty for a turn without a session")
    if request.user_id and not _USER_ID.fullmatch(request.user_id):
        found.add("user_id", "must be 1 to 256 printable ASCII characters without spaces")
    if request.request_id and not _REQUEST_ID.fullmatch(request.request_id):
        found.add("request_id", "must be 1 to 255 printable ASCII characters")
    if request.agent_revision < 0:
        found.add("agent_revision", "must be 0 or more")


def _check_messages(messages: tuple[Message, ...], found: Violations) -> None:
    if not messages:
        found.add("messages", "must have at least one message")
    if len(messages) > MAX_MESSAGES:
        found.add("messages", f"must have at most {MAX_MESSAGES} messages")
        return
    for number, message in enumerate(messages):
        _check_message(f"messages[{number}]", message, found)


def _check_message(path: str, message: Message, found: Violations) -> None:
    if message.role is Role.TOOL and not message.tool_call_id:
        found.add(f"{path}.tool_call_id", "must be set for a tool's message")
    if message.role is not Role.TOOL and message.tool_call_id:
        found.add(f"{path}.tool_call_id", "must be empty unless the role is tool")
    if message.tool_calls:
        _check_tool_calls(path, message, found)
    if message.parts:
        _check_parts(path, message, found)
    elif not message.content and not message.tool_calls and message.role is not Role.TOOL:
        found.add(f"{path}.content", "must not be empty")
    if len(message.name) > 64:
        found.add(f"{path}.name", "must have at most 64 characters")


def _check_tool_calls(path: str, message: Message, found: Violations) -> None:
    if message.role is not Role.ASSISTANT:
        found.add(f"{path}.tool_calls", "must be empty unless the role is assistant")
    if len(message.tool_calls) > MAX_TOOL_CALLS:
        found.add(f"{path}.tool_calls", f"must have at most {MAX_TOOL_CALLS} tool calls")
        return
    for number, call in enumerate(message.tool_calls):
        if not call.id:
            found.add(f"{path}.tool_calls[{number}].id", "must not be empty")
        if not call.name:
            found.add(f"{path}.tool_calls[{number}].name", "must not be empty")


def _check_tool_use(messages: tuple[Message, ...], found: Violations) -> None:
    """Checks which calls and results belong together, where the messages will be stored as one turn.

    Results before the first assistant message answer the turn before.
    """
    calls: set[str] = set()
    spoken = False
    for number, message in enumerate(messages[:MAX_MESSAGES]):
        if message.role is Role.ASSISTANT:
            spoken = True
            for index, call in enumerate(message.tool_calls[:MAX_TOOL_CALLS]):
                if call.id and call.id in calls:
                    found.add(f"messages[{number}].tool_calls[{index}].id", "must be unique within the turn")
                calls.add(call.id)
        elif spoken and message.role is Role.TOOL and message.tool_call_id and message.tool_call_id not in calls:
            found.add(f"messages[{number}].tool_call_id", "must be the id of a tool call earlier in the turn")


def _check_parts(path: str, message: Message, found: Violations) -> None:
    if message.role is not Role.USER:
        found.add(f"{path}.parts", "must be empty unless the role is user")
    if message.content:
        found.add(f"{path}.content", "must be empty where parts are given")
    if len(message.parts) > MAX_PARTS:
        found.add(f"{path}.parts", f"must have at most {MAX_PARTS} parts")
    for number, part in enumerate(message.parts):
        if isinstance(part, TextPart):
            if not part.text:
                found.add(f"{path}.parts[{number}].text", "must not be empty")
            continue
        if not part.url.startswith(("https:", "data:")):
            found.add(f"{path}.parts[{number}].image_url.url", "must be an https: or data: address")
        if part.detail not in IMAGE_DETAILS:
            found.add(f"{path}.parts[{number}].image_url.detail", "must be auto, low or high")


def _check_sampling(sampling: Sampling, found: Violations) -> None:
    _check_range("temperature", sampling.temperature, 0, 2, found)
    _check_range("presence_penalty", sampling.presence_penalty, -2, 2, found)
    _check_range("frequency_penalty", sampling.frequency_penalty, -2, 2, found)
    if sampling.top_p is not None and not 0 < sampling.top_p <= 1:
        found.add("sampling.top_p", "must be over 0 and at most 1")
    if sampling.max_output_tokens is not None and sampling.max_output_tokens < 1:
        found.add("sampling.max_output_tokens", "must be at least 1")
    if len(sampling.stop) > 4 or not all(sampling.stop):
        found.add("sampling.stop", "must be at most 4 strings, none of them empty")


def _check_range(name: str, value: float | None, low: float, high: float, found: Violations) -> None:
    if value is not None and not low <= value <= high:
        found.add(f"sampling.{name}", f"must be from {low} to {high}")


def _check_tools(request: TurnRequest, found: Violations) -> None:
    if len(request.tools) > MAX_TOOLS:
        found.add("tools", f"must have at most {MAX_TOOLS} tools")
        return
    for number, tool in enumerate(request.tools):
        if not _TOOL_NAME.fullmatch(tool.name):
            found.add(f"tools[{number}].name", "must match [A-Za-z0-9_-]{1,64}")
    named = {tool.name for tool in request.tools}
    if len(named) < len(request.tools):
        found.add("tools", "must have different names")
    if request.tool_choice and request.tool_choice not in named | {"auto", "none", "required"}:
        found.add("tool_choice", "must be auto, none, required, or the name of a tool of this request")


def _check_metadata(request: TurnRequest, found: Violations) -> None:
    if len(request.metadata) > MAX_METADATA:
        found.add("metadata", f"must have at most {MAX_METADATA} pairs")
    if any(not key or len(key) > 64 or len(value) > 512 for key, value in request.metadata.items()):
        found.add("metadata", "must have keys of 1 to 64 and values of at most 512 characters")


def _size(messages: tuple[Message, ...]) -> int:
    return sum(_message_size(message) for message in messages)


def _message_size(message: Message) -> int:
    texts = [message.content, message.refusal, message.name, message.tool_call_id]
    texts += [part.text if isinstance(part, TextPart) else part.url for part in message.parts]
    for call in message.tool_calls:
        texts += (call.id, call.name, call.arguments)
    return sum(len(text.encode()) for text in texts)
