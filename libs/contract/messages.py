"""The rules of messages, for domain values and protobuf messages alike.

Messages are checked by structure, so protobuf messages need not be converted first. A `MessageForm` describes the
differences.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar

from servicekit.errors import Violations

MAX_PARTS: Final = 500
MAX_TOOL_CALLS: Final = 128
MAX_NAME_CHARACTERS: Final = 64
MAX_FILE_ID_CHARACTERS: Final = 512
MAX_FILE_NAME_CHARACTERS: Final = 256
DIGEST_BYTES: Final = 16
IMAGE_DETAILS: Final = ("", "auto", "low", "high", "original")

_DATA_URL = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;[^,;]*)*,", re.ASCII | re.IGNORECASE)
_MAX_DATA_URL_HEAD = 256
_AUDIO_FORMAT = re.compile(r"[a-z0-9]{1,16}")

RoleT = TypeVar("RoleT")


class ToolCallView(Protocol):
    """The attributes of a tool call that the rules use."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


class MessageView(Protocol):
    """The attributes of a message that the rules use; the `MessageForm` gives its role and parts."""

    @property
    def role(self) -> Any: ...
    @property
    def content(self) -> str: ...
    @property
    def parts(self) -> Sequence[Any]: ...
    @property
    def tool_calls(self) -> Sequence[ToolCallView]: ...
    @property
    def tool_call_id(self) -> str: ...
    @property
    def name(self) -> str: ...


class PartView(NamedTuple):
    """What the rules read of a content part: of a text, an image, audio or a file, as `kind` says; empty: of neither.

    `content` is the text, URL or data. Of one that is `kept` apart, `kept` has the digest and the size.
    """

    kind: Literal["", "text", "image", "audio", "file"] = ""
    content: str = ""
    detail: str = ""
    format: str = ""
    file_id: str = ""
    file_name: str = ""
    kept: tuple[bytes, int] | None = None


@dataclass(frozen=True, slots=True)
class MessageForm(Generic[RoleT]):
    """How one side represents messages: its value for each role, and its content parts."""

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
    """Adds violations of messages; returns whether, as one turn, they continue the previous turn.

    They do when they have results of tool calls that are not their own. Those must come before the agent speaks: a
    later result answers a call of the turn. Which calls and results belong together is not looked at unless the
    messages are `one_turn`.
    """
    if not 1 <= len(messages) <= max_messages:
        found.add(field, f"must have 1 to {max_messages} messages" if max_messages > 1 else "must not be empty")
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
    if part.kept is not None:
        _check_kept(found, path, part, part.kept)
    if part.kind == "image":
        if part.kept is None:
            _check_url(found, f"{path}.image_url.url", part.content)
        if part.detail not in IMAGE_DETAILS:
            found.add(f"{path}.image_url.detail", "must be auto, low, high or original")
    elif part.kind == "audio":
        if part.kept is None and not part.content:
            found.add(f"{path}.input_audio.data", "must not be empty")
        if not _AUDIO_FORMAT.fullmatch(part.format):
            found.add(f"{path}.input_audio.format", "must be wav, mp3 or another format: lower-case letters and digits")
    elif part.kind == "file":
        _check_file(found, f"{path}.file", part)
    elif part.kind != "text":
        found.add(path, "must be text, an image, audio or a file")


def _check_url(found: Violations, path: str, url: str) -> None:
    scheme = url[:6].lower()
    if scheme.startswith("data:"):
        if not is_data_url(url):
            found.add(path, "must be data:, a media type, and what it is, after a comma")
    elif not (scheme == "https:" or scheme.startswith("http:")):
        found.add(path, "must be an https:, http: or data: URL")


def is_data_url(url: str) -> bool:
    """Returns whether a URL is a `data:` URL, as far as its head goes."""
    return _DATA_URL.match(url, 0, _MAX_DATA_URL_HEAD) is not None


def _check_file(found: Violations, path: str, part: PartView) -> None:
    if not (part.content or part.file_id or part.kept):
        found.add(path, "must have the file's data or its id")
    if part.content[:5].lower() == "data:":
        _check_url(found, f"{path}.data", part.content)
    if len(part.file_id) > MAX_FILE_ID_CHARACTERS:
        found.add(f"{path}.id", f"must have at most {MAX_FILE_ID_CHARACTERS} characters")
    if len(part.file_name) > MAX_FILE_NAME_CHARACTERS:
        found.add(f"{path}.name", f"must have at most {MAX_FILE_NAME_CHARACTERS} characters")


def _check_kept(found: Violations, path: str, part: PartView, kept: tuple[bytes, int]) -> None:
    digest, size = kept
    if len(digest) != DIGEST_BYTES:
        found.add(f"{path}.kept.digest", f"must be {DIGEST_BYTES} bytes")
    if size < 1:
        found.add(f"{path}.kept.size", "must be greater than 0")
    if part.kind == "text" or part.content:
        found.add(f"{path}.kept", "must stand in place of the URL or data")
