"""The rules of a TurnRequest, for every protocol; parley/chat/v1/chat_service.proto documents them. Requests that
CommitTurn would refuse are rejected here, before the model is paid for.
"""

import re
from collections.abc import Sequence, Set

from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.history import new_part
from chat_gateway.model.pairing import check_results
from chat_gateway.model.parts import media_parts, part_bytes
from chat_gateway.model.turn import (
    AudioPart,
    FilePart,
    ImagePart,
    MediaPart,
    Message,
    Part,
    Sampling,
    TextPart,
    TurnRequest,
)
from contract.enums import Role
from contract.fields import check_metadata, check_request_id, check_resource_id, check_session_id, check_user_id
from contract.messages import MAX_TOOL_CALLS, MessageForm, PartView, check_messages
from servicekit.errors import InvalidArgument, MessageTooLarge, Violation, Violations
from servicekit.values import value

MAX_MESSAGES_BYTES = 768 * 1024
"""The default limit on the new messages of a turn, in bytes of UTF-8: CommitTurn's limit less room for the answer."""
MAX_PARTS_BYTES = 16 * 1024 * 1024
LARGE_PART_BYTES = 16 * 1024
MAX_TOOLS = 128
MAX_NOTE_CHARACTERS = 1000
"""A user's note about a rejected call."""

MAX_INSTRUCTIONS_BYTES = 256 * 1024
MAX_NOTES_BYTES = 16 * 1024
MAX_CHOICES = 8
ONE_CHOICE = "must be 1 for a turn in a session, which has one answer: set store to false"

_CHOICES = frozenset({"auto", "none", "required"})
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@value
class RequestBounds:
    """Bounds on the new messages of one turn of a session, in number and bytes of UTF-8. Contents of `large_part_bytes`
    or more are kept apart, with a bound of their own; 0: none are.
    """

    max_messages: int = 1000
    max_messages_bytes: int = MAX_MESSAGES_BYTES
    max_parts_bytes: int = MAX_PARTS_BYTES
    large_part_bytes: int = LARGE_PART_BYTES

    def is_large(self, part: MediaPart) -> bool:
        """Whether the part's content is kept apart."""
        return part.kept is not None and 0 < self.large_part_bytes <= part.kept.size


DEFAULT_BOUNDS = RequestBounds()


def _part(part: Part) -> PartView:
    if isinstance(part, TextPart):
        return PartView("text", part.text)
    if isinstance(part, ImagePart):
        return PartView("image", part.url, part.detail)
    if isinstance(part, AudioPart):
        return PartView("audio", part.data, format=part.format)
    return PartView("file", part.data, file_id=part.id, file_name=part.name)


_FORM = MessageForm(system=Role.SYSTEM, user=Role.USER, assistant=Role.ASSISTANT, tool=Role.TOOL, part=_part)


def check_turn_request(request: TurnRequest, bounds: RequestBounds = DEFAULT_BOUNDS, *, resolved: bool = True) -> None:
    """Raises `InvalidArgument` with every violation, or `MessageTooLarge`.

    Unless it is `resolved`, the key or agent config may decide whether the turn has a session: if so, call
    `check_session_bounds` afterwards.
    """
    found = Violations()
    _check_ids(request, found)
    # A stateless turn may bring a whole history: only the size of its body bounds it.
    in_session = not request.stateless and (resolved or not is_undecided(request))
    max_messages = bounds.max_messages if in_session else max(len(request.messages), 1)
    if request.messages or not request.approvals:
        check_messages(found, "messages", request.messages, _FORM, max_messages=max_messages, one_turn=False)
    if request.approvals:
        _check_approvals(request, found)
    # The session's pending calls are known once the turn has begun.
    check_results(request.messages, None if request.session_id else frozenset(), found)
    if request.instructions and len(request.instructions.encode("utf-8", "replace")) > MAX_INSTRUCTIONS_BYTES:
        found.add("instructions", f"must have at most {MAX_INSTRUCTIONS_BYTES} bytes")
    _check_sampling(request.sampling, found)
    _check_tools(request, found)
    check_metadata(found, "metadata", request.metadata, name_pairs=False)
    if request.choices > 1 and in_session:
        found.add("choices", ONE_CHOICE)
    if (request.resumable or request.background) and request.stateless:
        found.add("background" if request.background else "resumable", "needs a session, which has the turn's journal")
    found.check()
    if in_session:
        # How much of a transcript is new beyond what certainly is, is known once the turn has begun.
        check_size(new_part(request), bounds)


def is_undecided(request: TurnRequest) -> bool:
    """Returns whether the request does not determine whether its turn has a session."""
    named = request.session_id or request.session_must_exist or request.resumable
    return request.store is None and not (request.stateless or named)


def check_session_bounds(request: TurnRequest, bounds: RequestBounds = DEFAULT_BOUNDS) -> None:
    """Raises `InvalidArgument` or `MessageTooLarge` for more new messages than a session's turn may bring."""
    if request.choices > 1:
        raise InvalidArgument([Violation("choices", ONE_CHOICE)])
    if len(request.messages) > bounds.max_messages:
        raise InvalidArgument([Violation("messages", f"must have 1 to {bounds.max_messages} messages")])
    check_size(new_part(request), bounds)


def _check_approvals(request: TurnRequest, found: Violations) -> None:
    if not request.session_id:
        found.add("approvals", "needs a session_id")
    if len(request.approvals) > MAX_TOOL_CALLS:
        found.add("approvals", f"must have at most {MAX_TOOL_CALLS} approvals")
        return
    if len({approval.call_id for approval in request.approvals}) < len(request.approvals):
        found.add("approvals", "must be of different calls")
    for number, approval in enumerate(request.approvals):
        if not approval.call_id:
            found.add(f"approvals[{number}].tool_call_id", "is required")
        if len(approval.note) > MAX_NOTE_CHARACTERS:
            found.add(f"approvals[{number}].note", f"must have at most {MAX_NOTE_CHARACTERS} characters")


def _check_ids(request: TurnRequest, found: Violations) -> None:
    check_resource_id(found, "agent_id", request.agent_id)
    check_resource_id(found, "project", request.project)
    if request.session_id:
        check_session_id(found, "session_id", request.session_id)
    if request.session_must_exist and not request.session_id:
        found.add("session_must_exist", "needs a session_id")
    if request.stateless and request.session_id:
        found.add("session_id", "must be empty for a stateless turn")
    check_user_id(found, "user_id", request.user_id)
    if request.request_id:
        check_request_id(found, "request_id", request.request_id)
    if request.agent_revision < 0:
        found.add("agent_revision", "must be 0 or more")


def _check_sampling(sampling: Sampling, found: Violations) -> None:
    _check_range("temperature", sampling.temperature, 0, 2, found)
    _check_range("presence_penalty", sampling.presence_penalty, -2, 2, found)
    _check_range("frequency_penalty", sampling.frequency_penalty, -2, 2, found)
    if sampling.top_p is not None and not 0 < sampling.top_p <= 1:
        found.add("sampling.top_p", "must be greater than 0 and at most 1")
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
    # The agent config, once known, adds further names.
    if request.tool_choice and request.tool_choice not in _CHOICES and not _TOOL_NAME.fullmatch(request.tool_choice):
        found.add("tool_choice", "must be auto, none, required, or the name of a tool")


def check_tool_choice(request: TurnRequest, config: AgentConfig) -> None:
    """Raises `InvalidArgument` for the choice of an unknown tool; tools of an agent are listed later."""
    choice = request.tool_choice
    if request.allowed_tools and not config.tools:
        check_allowed_tools(request, {tool.name for tool in request.tools})
    if not choice or config.tools or any(tool.name == choice for tool in request.tools):
        return
    if choice in _CHOICES and (request.tools or choice != "required"):
        return
    problem = (
        "needs tools" if choice == "required" else "must be auto, none, required, or the name of a tool of this request"
    )
    raise InvalidArgument([Violation("tool_choice", problem)])


def check_allowed_tools(request: TurnRequest, known: Set[str]) -> None:
    """Raises `InvalidArgument` for allowed tools that are not among the tools of the turn."""
    if unknown := sorted(request.allowed_tools - known):
        named = ", ".join(name[:64] for name in unknown[:8])
        raise InvalidArgument([Violation("tool_choice", f"allows tools that are not there: {named}")])


def sizes(messages: Sequence[Message], bounds: RequestBounds = DEFAULT_BOUNDS) -> tuple[int, int]:
    """Returns the bytes of messages within their turn, and those of their parts that are kept apart."""
    size = apart = 0
    for message in messages:
        size += message_size(message)
        for part in media_parts((message,)) if message.parts else ():
            if bounds.is_large(part):
                apart += part_bytes(part)
            else:
                size += part_bytes(part)
    return size, apart


def check_size(messages: Sequence[Message], bounds: RequestBounds) -> None:
    """Raises `MessageTooLarge` for new messages of a session that are larger than they may be."""
    size, apart = sizes(messages, bounds)
    for what, found, most in (
        ("the messages", size, bounds.max_messages_bytes),
        ("the images, audio and files of the messages", apart, bounds.max_parts_bytes),
    ):
        if found > most:
            raise MessageTooLarge(f"{what} are larger than {most} bytes", limit=most)


def message_size(message: Message) -> int:
    """Returns the approximate bytes of a message within its turn."""
    size = 0
    for text in (message.content, message.refusal, message.name, message.tool_call_id, message.reasoning):
        if text:
            size += len(text.encode())
    if message.provider_data is not None:
        size += len(message.provider_data.json)
    for part in message.parts:
        if isinstance(part, TextPart):
            size += len(part.text.encode())
        elif isinstance(part, FilePart):
            size += len(part.id.encode()) + len(part.name.encode())
    for call in message.tool_calls:
        size += len(call.id.encode()) + len(call.name.encode()) + len(call.arguments.encode())
        if call.provider_data is not None:
            size += len(call.provider_data.json)
    return size
