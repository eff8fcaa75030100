"""Images, audio and files as native APIs want them: a media type and base64, or a refusal that names the part."""

import mimetypes
from typing import Final

from chat_gateway.model.parts import shown
from chat_gateway.model.provider_errors import UnsupportedContent
from chat_gateway.model.turn import AudioPart, FilePart, ImagePart, MediaPart, TextPart
from chat_gateway.providers.generous import picture
from servicekit.errors import MAX_VIOLATIONS, Violation

_NOT_TAKEN: Final = "left out, for this model does not take it"


class Untaken:
    """The parts of one call that its provider has no word for.

    Those of the request are refused by the place that they have in it. One that an earlier turn brought, perhaps for
    another model, must not end its session: a note replaces it.
    """

    __slots__ = ("_found", "_provider")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._found: list[Violation] = []

    def add(self, part: MediaPart, why: str) -> TextPart:
        """Notes a part; returns its replacement."""
        if part.place and len(self._found) < MAX_VIOLATIONS:
            self._found.append(Violation(part.place, why))
        return shown(part, _NOT_TAKEN)

    def check(self) -> None:
        """Raises `UnsupportedContent` with every part of the request that was noted."""
        if self._found:
            raise UnsupportedContent(self._provider, self._found)


def inline(part: MediaPart) -> tuple[str, str] | None:
    """Returns the media type and the base64 of a part; None for one by address or id, and for one that holds nothing.

    The media type is empty where neither a `data:` URL nor the file's name says it.
    """
    if isinstance(part, ImagePart):
        return picture(part.url)
    if isinstance(part, AudioPart):
        return f"audio/{part.format}", part.data
    if part.data[:5].lower() == "data:":
        return picture(part.data)
    return (_type_by_name(part), part.data) if part.data else None


def _type_by_name(part: FilePart) -> str:
    return mimetypes.guess_type(part.name)[0] or ""
