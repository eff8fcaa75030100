"""The content of parts other than text: digests and validation."""

import hashlib
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from chat_gateway.model.turn import AudioPart, FilePart, ImagePart, Kept, MediaPart, Message, Part, TextPart
from contract.messages import DIGEST_BYTES

MIN_KEPT_CHARACTERS: Final = 1024
"""Contents of at least this length are represented by digests."""
_SLICE: Final = 1024 * 1024
"""Characters that are checked at a time, so that other threads run in between."""
_MAX_HEAD: Final = 256
_SHOWN_EARLIER: Final = "shown earlier, and left out now"
_KEPT_NO_MORE: Final = "shown earlier, and kept no more"
_BASE64: Final = (string.ascii_letters + string.digits + "+/").encode()
BASE64_RULE: Final = "must be base64, with its padding and without white space"


def content_of(part: MediaPart) -> str:
    """Returns the URL or data of a part; empty if it is kept apart."""
    return part.url if isinstance(part, ImagePart) else part.data


def with_content(part: MediaPart, content: str) -> MediaPart:
    """Returns the part with another content."""
    return replace(part, url=content) if isinstance(part, ImagePart) else replace(part, data=content)


def known(part: MediaPart) -> MediaPart:
    """Returns the part with the digest of its content, if that is large. Takes a millisecond for 1 MiB."""
    content = content_of(part)
    if part.kept is not None or len(content) < MIN_KEPT_CHARACTERS:
        return part
    return replace(part, kept=identity(content))


def identity(content: str) -> Kept:
    """Returns the digest of a content."""
    data = content.encode("utf-8", "replace")
    return Kept(hashlib.sha256(data).digest()[:DIGEST_BYTES], len(data))


def media_parts(messages: Iterable[Message]) -> Iterable[MediaPart]:
    """Yields the parts other than text, in order."""
    for message in messages:
        for part in message.parts:
            if not isinstance(part, TextPart):
                yield part


def part_bytes(part: MediaPart) -> int:
    """Returns the size of a part's content in bytes, even if it is kept apart."""
    return len(content_of(part).encode("utf-8", "replace")) if part.kept is None else part.kept.size


def wrong_base64(part: MediaPart) -> str:
    """Returns the field of a part that should be base64 and is not; empty if the part is valid.

    Takes a millisecond for 1 MiB.
    """
    content, start = content_of(part), 0
    if content[:5].lower() == "data:" and not isinstance(part, AudioPart):
        comma = content.find(",", 0, _MAX_HEAD)
        if comma < 0 or not content[:comma].lower().endswith(";base64"):
            return ""
        start = comma + 1
    elif isinstance(part, ImagePart):
        return ""
    if not content or is_base64(content, start):
        return ""
    if isinstance(part, ImagePart):
        return "image_url.url"
    return "input_audio.data" if isinstance(part, AudioPart) else "file.data"


def is_base64(text: str, start: int = 0) -> bool:
    """Returns whether the text from `start` on is base64 with its padding, and not empty."""
    size = len(text) - start
    if size < 1 or size % 4:
        return False
    end = len(text) - next((n for n in (2, 1) if text.endswith("=" * n)), 0)
    for begin in range(start, end, _SLICE):
        try:
            piece = text[begin : min(begin + _SLICE, end)].encode("ascii")
        except UnicodeEncodeError:
            return False
        if piece.translate(None, _BASE64):
            return False
    return True


Place: TypeAlias = tuple[int, int]
"""The index of a part's message, and its own."""


def newest_kept(window: Sequence[Message], max_parts: int, max_bytes: int) -> dict[Place, Kept]:
    """Returns the contents that a window refers to but does not contain, of its newest parts within both bounds."""
    found: dict[Place, Kept] = {}
    for index in range(len(window) - 1, -1, -1):
        parts = window[index].parts
        for number in range(len(parts) - 1, -1, -1):
            part = parts[number]
            if isinstance(part, TextPart) or part.kept is None or content_of(part):
                continue
            max_bytes -= part.kept.size
            if len(found) >= max_parts or max_bytes < 0:
                return found
            found[index, number] = part.kept
    return found


def with_contents(
    window: Sequence[Message], places: Mapping[Place, Kept], contents: Mapping[bytes, str]
) -> tuple[Message, ...]:
    """Returns the window with the contents, by their digests, at these places; notes replace all other contents."""

    def part_at(index: int, number: int, part: Part) -> Part:
        if isinstance(part, TextPart) or part.kept is None or content_of(part):
            return part
        if (index, number) not in places:
            return shown(part, _SHOWN_EARLIER)
        content = contents.get(part.kept.digest)
        return shown(part, _KEPT_NO_MORE) if content is None else with_content(part, content)

    return tuple(
        replace(message, parts=tuple(part_at(index, number, part) for number, part in enumerate(message.parts)))
        if message.parts
        else message
        for index, message in enumerate(window)
    )


def shown(part: MediaPart, why: str) -> TextPart:
    """Returns the note that replaces a part that is not sent."""
    name = f" {part.name!r}" if isinstance(part, FilePart) and part.name else ""
    return TextPart(f"[{kind_of(part).capitalize()}{name}: {why}]")


def kind_of(part: MediaPart) -> str:
    """Returns the kind of a part: `image`, `audio` or `file`."""
    return "image" if isinstance(part, ImagePart) else "audio" if isinstance(part, AudioPart) else "file"
