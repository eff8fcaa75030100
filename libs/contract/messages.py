"""The rules of messages, for the domain's values and for those of the wire alike.

Messages are checked as they are, by structure: what came over the wire need not be copied first. What differs between
the two is a `MessageForm`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from servicekit.errors import Violations

MAX_PARTS: Final = 64
MAX_TOOL_CALLS: Final = 128
MAX_NAME_CHARACTERS: Final = 64
IMAGE_DETAILS: Final = ("", "auto", "low", "high")

RoleT = TypeVar("RoleT")


class ToolCallView(Protocol):
    """What the rules read of a tool call."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102


class MessageView(Protocol):
    """What the rules read of a message: these, and a role and parts as the `MessageForm` says."""

    @property
    def role(self) -> Any: ...  # noqa: D102
    @property
    def content(self) -> str: ...  # noqa: D102
    @property
    def parts(self) -> Sequence[Any]: ...  # noqa: D102
    @property
    def tool_calls(self) -> Sequence[ToolCallView]: ...  # noqa: D102
    @property
    def tool_call_id(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102


class PartView(NamedTuple):
    """What the rules read of a content part: a text, an image's URL, or neither."""

    text: str | None = None
    url: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class MessageForm(Generic[RoleT]):
    """How one side writes messages: its value for each role, and what a content part says."""

    system: RoleT
    user: RoleT
    assistant: RoleT
    tool: RoleT
    part: Callable[[Any], PartView]


def check_messages(
    found: Violations,
    field: str,
    messages: Sequence[MessageView],
    form: MessageForm[RoleT],
    *,
    max_messages: int,
    one_turn: bool = True,
) -> bool:
    """Notes what is wrong with messages; returns whether, as one turn, they continue the turn before.

    They do when they have results of tool calls that are not their own. Those must come before the agent speaks: a
    later result answers a call of the turn. Which calls and results belong together is not looked at unless the
    messages are `one_turn`.
    """
    if not 1 <= len(messages) <= max_messages:
        found.add(field, f"must have 1 to {max_messages} messages")
        return False
    calls: set[str] = set()
    continues = spoken = False
    system, user, assistant, tool = form.system, form.user, form.assistant, form.tool
    for index, message in enumerate(messages):
        role, tool_calls, tool_call_id = message.role, message.tool_calls, message.tool_call_id
        if role == tool:
            if not tool_call_id:
                found.add(f"{field}[{index}].tool_call_id", "must be set for role tool")
            elif one_turn and tool_call_id not in calls:
                if spoken:
                    path = f"{field}[{index}].tool_call_id"
                    found.add(path, "must be the id of a tool call earlier in the turn")
                continues = True
        elif role == assistant:
            spoken = True
            if tool_calls:
                _check_tool_calls(found, f"{field}[{index}].tool_calls", tool_calls)
                if one_turn:
                    calls.update([call.id for call in tool_calls])
        elif role not in (system, user):
            found.add(f"{field}[{index}].role", "must be system, user, assistant or tool")
        if tool_calls or tool_call_id or message.parts or message.name:
            _check_shape(found, f"{field}[{index}]", message, form)
    return continues


def _check_tool_calls(found: Violations, field: str, tool_calls: Sequence[ToolCallView]) -> None:
    if len(tool_calls) > MAX_TOOL_CALLS:
        found.add(field, f"must have at most {MAX_TOOL_CALLS} tool calls")
    # Some models count per answer: an id is that of one call of this message only.
    ids: set[str] = set()
    for index, call in enumerate(tool_calls[:MAX_TOOL_CALLS]):
        if not call.id:
            found.add(f"{field}[{index}].id", "must not be empty")
        elif call.id in ids:
            found.add(f"{field}[{index}].id", "must be unique within the message")
        ids.add(call.id)
        if not call.name:
            found.add(f"{field}[{index}].name", "must not be empty")


def _check_shape(found: Violations, path: str, message: MessageView, form: MessageForm[RoleT]) -> None:
    if len(message.name) > MAX_NAME_CHARACTERS:
        found.add(f"{path}.name", f"must have at most {MAX_NAME_CHARACTERS} characters")
    parts = message.parts
    if parts:
        _check_parts(found, path, message, form)
    if message.role != form.assistant and message.tool_calls:
        found.add(f"{path}.tool_calls", "must be empty unless the role is assistant")
    if message.role != form.tool and message.tool_call_id:
        found.add(f"{path}.tool_call_id", "must be empty unless the role is tool")


def _check_parts(found: Violations, path: str, message: MessageView, form: MessageForm[RoleT]) -> None:
    parts = message.parts
    if message.role != form.user:
        found.add(f"{path}.parts", "must be empty unless the role is user")
    if message.content:
        found.add(f"{path}.content", "must be empty when parts are given")
    if len(parts) > MAX_PARTS:
        found.add(f"{path}.parts", f"must have at most {MAX_PARTS} parts")
    for index, part in enumerate(map(form.part, parts[:MAX_PARTS])):
        _check_part(found, f"{path}.parts[{index}]", part)


def _check_part(found: Violations, path: str, part: PartView) -> None:
    if part.url is not None:
        if not part.url.startswith(("https:", "data:")):
            found.add(f"{path}.image_url.url", "must be an https: or data: URL")
        if part.detail not in IMAGE_DETAILS:
            found.add(f"{path}.image_url.detail", "must be auto, low or high")
    elif part.text is None:
        found.add(path, "must be text or an image")
