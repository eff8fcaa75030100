"""Images and audio of answers, whole or in pieces."""

from dataclasses import replace
from typing import Any, Final

import msgspec

from chat_gateway.model.turn import AnswerDetails
from chat_gateway.providers.adapter import PIECE_BYTES, BadAnswer

MAX_MEDIA_BYTES: Final = 8 * 1024 * 1024
"""Of all images and the audio of an answer."""
_PIECES: Final = ("data", "transcript")
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Media:
    """Puts them together. What is none is left out."""

    __slots__ = ("_audio", "_images", "_pieces", "_size")

    def __init__(self) -> None:
        self._images: dict[Any, bytes] = {}
        self._audio: dict[str, Any] = {}
        self._pieces: dict[str, list[str]] = {}
        self._size = 0

    def take(self, images: bytes, audio: bytes) -> None:
        """Takes the JSON of images and audio of a message, or of a piece of one. Raises `BadAnswer` for too much."""
        self._size += len(images) + len(audio) + PIECE_BYTES
        if self._size > MAX_MEDIA_BYTES:
            raise BadAnswer(f"images and audio of more than {MAX_MEDIA_BYTES} bytes")
        listed = _read(images)
        for image in listed if isinstance(listed, list) else [listed]:
            if isinstance(image, str):
                image = {"type": "image_url", "image_url": {"url": image}}
            if isinstance(image, dict) and image.get("image_url"):
                # Some send an image once more, with its number, when it is whole.
                number = image.get("index")
                self._images[number if isinstance(number, int) else f"{len(self._images)}"] = _encode(image)
        said = _read(audio)
        for name, value in said.items() if isinstance(said, dict) else ():
            if name in _PIECES and isinstance(value, str):
                self._pieces.setdefault(name, []).append(value)
            elif value is not None:
                self._audio[name] = value

    def added(self, details: AnswerDetails) -> AnswerDetails:
        """Returns the details of the answer with its images and audio."""
        audio = self._audio | {name: "".join(pieces) for name, pieces in self._pieces.items()}
        if not (self._images or audio):
            return details
        images = b"[%b]" % b",".join(self._images.values()) if self._images else b""
        return replace(details, images=images, audio=_encode(audio) if audio else b"")


def _read(said: bytes) -> Any:
    return _decode(said) if said else None
