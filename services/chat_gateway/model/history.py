"""A digest of a session's history, by which a caller's transcript is known.

Messages are compared in a canonical form, since clients write the same message in many ways: role, text (parts joined;
regardless of surrounding white space, line ends and Unicode forms) with the URLs of images and the content of other
parts, and calls by name and parsed arguments. Several messages of the assistant with nothing between them are one: some
clients send the text and the calls of an answer apart. Call ids, names, reasoning (also in tags) and refusals are
ignored, and so are leading system messages and messages without content. A refusal may be sent back as the text of its
message.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any

from chat_gateway.model.answers import in_one, joined
from chat_gateway.model.parts import MIN_KEPT_CHARACTERS, content_of, identity
from chat_gateway.model.turn import AudioPart, ImagePart, MediaPart, Message, TextPart, TurnRequest
from contract.enums import HistoryPolicy, Role

_OPENING = re.compile(r"<(think|thinking)>")
_BLANK = re.compile(r"\s*")
_role_of = attrgetter("role")
EMPTY = bytes(16)
"""The digest of an empty session."""
MAX_PIECES = 129
"""Of several messages of the assistant in a row, this many may each be the last one of an answer that was sent apart:
its text, and 128 calls. Each costs as much as all before it."""


def grown(digest: bytes, messages: Iterable[Message]) -> bytes:
    """Returns the digest of the history followed by these messages."""
    for message in in_one(messages):
        digest = _step(digest, message)
    return digest


def has_answers(messages: Iterable[Message]) -> bool:
    """Whether the messages include an assistant message."""
    return Role.ASSISTANT in map(_role_of, messages)


def is_transcript(request: TurnRequest) -> bool:
    """Whether the messages are to be compared with the history of their session."""
    return bool(request.session_id) and request.history is not HistoryPolicy.APPEND and has_answers(request.messages)


def new_part(request: TurnRequest) -> Sequence[Message]:
    """Returns the messages that are certainly new: those after the last assistant message."""
    if not is_transcript(request):
        return request.messages
    last = max(index for index, one in enumerate(request.messages) if one.role is Role.ASSISTANT)
    return request.messages[last + 1 :]


def end_of_history(messages: Sequence[Message], digest: bytes) -> int | None:
    """Returns the index in a transcript at which the history with this digest ends; None if it is not a prefix."""
    end = _end(messages, digest, joins=True)
    if end is None and any(one.role is next_one.role is Role.ASSISTANT for one, next_one in pairwise(messages)):
        # Such messages are of two turns, or a session's of a release that did not join them.
        end = _end(messages, digest, joins=False)
    return end


def _end(messages: Sequence[Message], digest: bytes, *, joins: bool) -> int | None:
    now = before_answer = EMPTY
    found = 0 if now == digest else None
    said: list[Message] = []
    for index, message in enumerate(messages, 1):
        before = now
        by_model = message.role is Role.ASSISTANT
        if by_model and joins:
            before_answer = before_answer if said else now
            said.append(message)
            if len(said) > MAX_PIECES and index < len(messages) and messages[index].role is Role.ASSISTANT:
                continue
            now = _step(before_answer, joined(said))
        else:
            said, now = [], _step(now, message)
        if now == digest and now != before:
            found = index
        elif found == index - 1 and now == before and by_model:
            found = index  # an answer without content belongs to the messages before it
    return found


def _step(digest: bytes, message: Message) -> bytes:
    if digest == EMPTY and message.role is Role.SYSTEM:
        return digest
    form = canonical(message)
    return hashlib.blake2b(digest + form, digest_size=16).digest() if form else digest


def canonical(message: Message) -> bytes:
    """Returns what of a message is compared; empty for one without content."""
    text, calls = message.content, message.tool_calls
    media: list[str] = []
    if message.parts:
        text = "".join([part.text for part in message.parts if isinstance(part, TextPart)])
        media = [_content(part) for part in message.parts if not isinstance(part, TextPart)]
    text = text.strip()
    if text.startswith("<think") and message.role is Role.ASSISTANT:
        text = without_reasoning(text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if not (text or calls or media or message.role is Role.TOOL):
        return b""
    form = f"{message.role}\0{text}"
    if calls:
        form += "\0" + "\0".join([f"{call.name}({canonical_arguments(call.arguments)})" for call in calls])
    if media:
        form += "\0" + "\0".join(media)
    return form.encode("utf-8", "surrogatepass")


def _content(part: MediaPart) -> str:
    """Returns an image's URL, regardless of its detail, or the digest of large content, which may be kept apart."""
    content = content_of(part)
    if part.kept is not None or len(content) >= MIN_KEPT_CHARACTERS:
        content = f"#{(part.kept or identity(content)).digest.hex()}"
    if isinstance(part, ImagePart):
        return content
    return f"audio:{content}" if isinstance(part, AudioPart) else f"file:{part.id}:{content}"


def canonical_arguments(text: str) -> str:
    """Returns canonical JSON: JavaScript clients write 1.0 as 1, and spacing varies."""
    try:
        parsed = json.loads(text, parse_float=_number) if text.strip() else {}
        return json.dumps(parsed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text.strip()


def _number(text: str) -> Any:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def without_reasoning(text: str) -> str:
    """Returns the text without what stands in tags of reasoning, and the blanks behind them, in linear time."""
    kept, begin, place = list[str](), 0, 0
    unclosed = set[str]()
    while (opening := _OPENING.search(text, place)) is not None:
        tag, place = opening[1], opening.end()
        if tag in unclosed:
            continue
        end = text.find(f"</{tag}>", place)
        if end < 0:
            unclosed.add(tag)  # nothing behind it closes one either
            continue
        kept.append(text[begin : opening.start()])
        blank = _BLANK.match(text, end + len(tag) + 3)
        begin = place = blank.end() if blank is not None else end
    return "".join(kept) + text[begin:]
