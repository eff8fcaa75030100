"""Parts of messages, as A2A has them and as turns have them."""

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import MessageToDict, ParseDict

from chat_gateway.a2a.errors import ContentTypeNotSupported
from chat_gateway.model.parts import known
from chat_gateway.model.turn import AudioPart, FilePart, ImagePart, Message, Part, TextPart
from contract.enums import Role
from servicekit.errors import InvalidArgument, Violation

INPUT_MODES: Final = ("text/plain", "application/json", "image/*", "audio/wav", "audio/mpeg", "application/pdf")
OUTPUT_MODES: Final = ("text/plain",)
_AUDIO: Final = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_TEXTUAL: Final = ("application/json", "application/xml", "application/yaml")
_DATA_URL: Final = re.compile(r"data:([^;,]*)(?:;[^,]*)?,(.*)", re.DOTALL)


def check_output_modes(accepted: Iterable[str]) -> None:
    """Raises `ContentTypeNotSupported` where a caller accepts nothing that an agent answers with."""
    modes = [mode.partition(";")[0].strip().lower() for mode in accepted]
    if modes and not {"text", "text/*", "*/*", *OUTPUT_MODES}.intersection(modes):
        raise ContentTypeNotSupported("agents answer with text/plain, which the request does not accept")


def message_of(message: pb.Message) -> Message:
    """Returns a message of the user's. Raises `ContentTypeNotSupported`; `InvalidArgument` for parts that are none."""
    parts = [_part(part, number) for number, part in enumerate(message.parts)]
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return Message(Role.USER, parts[0].text)
    return Message(Role.USER, "", parts=tuple(parts))


def _part(part: pb.Part, number: int) -> Part:
    place = f"message.parts[{number}]"
    media = part.media_type.partition(";")[0].strip().lower()
    match part.WhichOneof("content"):
        case "text":
            if media and not _is_text(media):
                raise _unsupported(media, "text")
            return TextPart(part.text)
        case "data":
            return TextPart(json.dumps(value_of(part.data), ensure_ascii=False, separators=(",", ":")))
        case "raw":
            return _raw(part, media, place)
        case "url":
            if media and not media.startswith("image/"):
                raise _unsupported(media, "url")
            return ImagePart(part.url, place=place)
    raise InvalidArgument([Violation(place, "must have text, raw, url or data")])


def _raw(part: pb.Part, media: str, place: str) -> Part:
    if _is_text(media):
        try:
            return TextPart(part.raw.decode())
        except UnicodeDecodeError:
            raise InvalidArgument([Violation(f"{place}.raw", "must be UTF-8, as its media_type says")]) from None
    data = base64.b64encode(part.raw).decode()
    made: ImagePart | AudioPart | FilePart
    if media.startswith("image/"):
        made = ImagePart(f"data:{media};base64,{data}", place=place)
    elif media in _AUDIO:
        made = AudioPart(data, _AUDIO[media], place=place)
    elif media == "application/pdf":
        name = part.filename or "file.pdf"
        made = FilePart(f"data:{media};base64,{data}", name=name, place=place)
    else:
        raise _unsupported(media, "raw")
    return replace(known(made), place=place)


def _is_text(media: str) -> bool:
    return media.startswith("text/") or media in _TEXTUAL or media.endswith("+json")


def _unsupported(media: str, kind: str) -> ContentTypeNotSupported:
    named = media or "none"
    return ContentTypeNotSupported(f"parts with `{kind}` of media type {named[:100]} are not supported")


def parts_of(message: Message) -> list[pb.Part]:
    """Returns the content of a message of a turn."""
    if message.parts:
        return [_part_of(part) for part in message.parts]
    text = message.content or message.refusal
    return [pb.Part(text=text)] if text else []


def _part_of(part: Part) -> pb.Part:
    if isinstance(part, TextPart):
        return pb.Part(text=part.text)
    if isinstance(part, AudioPart):
        media = "audio/wav" if part.format == "wav" else "audio/mpeg"
        return pb.Part(raw=_decoded(part.data), media_type=media)
    content = part.url if isinstance(part, ImagePart) else part.data
    name = part.name if isinstance(part, FilePart) else ""
    if found := _DATA_URL.fullmatch(content):
        return pb.Part(raw=_decoded(found[2]), media_type=found[1], filename=name)
    if isinstance(part, ImagePart) and content:
        return pb.Part(url=content)
    return pb.Part(text=f"[{name or 'content'} that was sent earlier]")


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data)
    except ValueError:
        return b""


def data_part(value: dict[str, Any]) -> pb.Part:
    """Returns a part with JSON."""
    part = pb.Part()
    ParseDict(value, part.data)
    return part


def value_of(value: Any) -> Any:
    """Returns a `google.protobuf.Value` or `Struct` as JSON; whole numbers without a point."""
    return _whole(MessageToDict(value))


def _whole(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _whole(one) for key, one in value.items()}
        case list():
            return [_whole(one) for one in value]
    return value
