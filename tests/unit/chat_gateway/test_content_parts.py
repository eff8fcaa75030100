"""Images, audio and files: from both edges to every kind of provider, and what is none of them refused by name."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from chat_gateway.convert.messages import message_from_proto, message_to_proto
from chat_gateway.digest import request_digest
from chat_gateway.grpc_edge.convert import request_from_proto
from chat_gateway.http_edge.openai.chat.request import decode_request, to_turn_request
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.model.history import EMPTY, end_of_history, grown
from chat_gateway.model.parts import MIN_KEPT_CHARACTERS, identity, is_base64, known
from chat_gateway.model.provider_errors import UnsupportedContent
from chat_gateway.model.rules import RequestBounds, check_turn_request
from chat_gateway.model.turn import AudioPart, FilePart, ImagePart, MediaPart, Message, Sampling, TextPart, TurnRequest
from chat_gateway.providers.adapter import Adapter
from chat_gateway.providers.anthropic.adapter import AnthropicAdapter
from chat_gateway.providers.gemini.adapter import GeminiAdapter
from chat_gateway.providers.openai.adapter import OpenAIAdapter
from chat_gateway.providers.openai.dialect import Dialects
from chat_gateway.providers.provider import ModelCall
from contract.enums import Role
from parley.chat.v1 import chat_service_pb2 as chat_pb
from parley.session.v1 import message_pb2 as pb
from servicekit.errors import InvalidArgument, MessageTooLarge

DATA = base64.b64encode(bytes(range(256)) * 8).decode()
PNG = f"data:image/png;base64,{DATA}"
PDF = f"data:application/pdf;base64,{DATA}"
ADAPTERS: dict[str, Adapter] = {
    "openai": OpenAIAdapter("local", Dialects("openai")),
    "anthropic": AnthropicAdapter("local"),
    "gemini": GeminiAdapter("local"),
}


def asked(*parts: Any, role: str = "user") -> TurnRequest:
    """What the HTTP edge makes of a message with these parts, once it has passed the rules."""
    body = json.dumps({"model": "a", "messages": [{"role": role, "content": list(parts)}]}).encode()
    request = to_turn_request(decode_request(body)[0], TurnHeaders())
    check_turn_request(request)
    return request


def image(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def audio(data: str, form: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": form}}


def file(**said: Any) -> dict[str, Any]:
    return {"type": "file", "file": said}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


ALL = (
    text("Look"),
    image(PNG, detail="high"),
    image("https://example.com/a.png"),
    audio(DATA, "mp3"),
    file(file_data=PDF, filename="a.pdf"),
    file(file_id="file-1"),
)


def test_every_part_that_openai_knows_passes() -> None:
    [message] = asked(*ALL).messages
    assert message.parts == (
        TextPart("Look"),
        known(ImagePart(PNG, "high")),
        ImagePart("https://example.com/a.png"),
        known(AudioPart(DATA, "mp3")),
        known(FilePart(PDF, name="a.pdf")),
        FilePart(id="file-1"),
    )
    assert [part.place for part in message.parts if not isinstance(part, TextPart)] == [
        f"messages[0].content[{number}]" for number in range(1, 6)
    ]
    sent = json.loads(ADAPTERS["openai"].request(ModelCall("m", [message], Sampling()), stream=False).body)
    assert sent["messages"][0]["content"] == list(ALL)


def test_parts_go_over_grpc_and_are_the_same_there() -> None:
    [message] = asked(*ALL).messages
    turn = chat_pb.TurnInput(agent_id="a", messages=[message_to_proto(message)])
    [same] = request_from_proto(turn, None).messages
    assert same == message
    assert [getattr(part, "place", "") for part in same.parts[1:3]] == ["messages[0].parts[1]", "messages[0].parts[2]"]


WRONG = {
    "no comma": (image("data:image/png;base64"), "image_url.url"),
    "nothing behind the comma": (image("data:image/png;base64,"), "image_url.url"),
    "bad base64": (image("data:image/png;base64,!!!!"), "image_url.url"),
    "base64 cut short": (image("data:image/png;base64,AAA"), "image_url.url"),
    "base64 with padding in the middle": (image("data:image/png;base64,AA==AAAA"), "image_url.url"),
    "no media type": (image("data:image;base64,AAAA"), "image_url.url"),
    "an odd scheme": (image("file:///etc/passwd"), "image_url.url"),
    "another odd scheme": (image("javascript:alert(1)"), "image_url.url"),
    "no URL": (image(""), "image_url.url"),
    "an odd detail": (image(PNG, detail="huge"), "image_url.detail"),
    "null image": ({"type": "image_url", "image_url": None}, "image_url"),
    "empty audio": (audio(""), "input_audio.data"),
    "bad audio": (audio("nö"), "input_audio.data"),
    "an odd format": (audio(DATA, "../wav"), "input_audio.format"),
    "no format": (audio(DATA, ""), "input_audio.format"),
    "an empty file": (file(), "file"),
    "a null file": (file(file_id=None, file_data=None), "file"),
    "bad file": (file(file_data="%%%%"), "file.file_data"),
    "a file without comma": (file(file_data="data:application/pdf;base64"), "file.file_data"),
    "a long id": (file(file_id="x" * 513), "file.file_id"),
    "a long name": (file(file_id="x", filename="x" * 257), "file.filename"),
    "unknown": ({"type": "video_url", "video_url": {}}, "type"),
    "another role's": ({"type": "refusal", "refusal": "no"}, "type"),
}


@pytest.mark.parametrize(("part", "field"), WRONG.values(), ids=WRONG)
def test_what_is_no_part_is_refused_by_its_name(part: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        asked(text("x"), part)
    names = [one.field.replace(".parts", ".content") for one in caught.value.violations]
    # What the rules of turns refuse is renamed where it is answered.
    names = [name.replace("file.data", "file.file_data").replace("file.id", "file.file_id") for name in names]
    names = [name.replace("file.name", "file.filename") for name in names]
    assert names == [f"messages[0].content[1].{field}"]


@pytest.mark.parametrize("role", ["system", "assistant", "tool"])
def test_only_users_send_them(role: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        asked(image(PNG), role=role)
    assert "messages[0].content[0].type" in {one.field for one in caught.value.violations}


def test_a_caller_over_grpc_names_no_content_that_is_kept() -> None:
    part = pb.ContentPart(image_url=pb.ImageUrl(), kept=pb.KeptContent(digest=b"x" * 16, size=1))
    wrong = pb.ContentPart(input_audio=pb.InputAudio(data="!", format="wav"))
    turn = chat_pb.TurnInput(messages=[pb.Message(role=pb.ROLE_USER, parts=[part, wrong])])
    with pytest.raises(InvalidArgument) as caught:
        request_from_proto(turn, None)
    assert [one.field for one in caught.value.violations] == [
        "messages[0].parts[0].kept",
        "messages[0].parts[1].input_audio.data",
    ]


def sent(kind: str, *parts: MediaPart) -> list[dict[str, Any]]:
    call = ModelCall("m", [Message(Role.USER, parts=parts)], Sampling())
    body = json.loads(ADAPTERS[kind].request(call, stream=False).body)
    said: list[dict[str, Any]] = body["messages"][0]["content"] if kind != "gemini" else body["contents"][0]["parts"]
    return said


def test_each_kind_has_its_own_words_for_them() -> None:
    plain = base64.b64encode(b"hello").decode()
    assert sent(
        "anthropic", FilePart(PDF, name="a.pdf"), FilePart(f"data:text/csv;base64,{plain}"), FilePart(id="f1")
    ) == [
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": DATA},
            "title": "a.pdf",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hello"}},
        {"type": "document", "source": {"type": "file", "file_id": "f1"}},
    ]
    uri = "https://generativelanguage.googleapis.com/v1beta/files/x"
    assert sent("gemini", AudioPart(DATA, "wav"), FilePart(DATA, name="a.pdf"), FilePart(id=uri)) == [
        {"inlineData": {"mimeType": "audio/wav", "data": DATA}},
        {"inlineData": {"mimeType": "application/pdf", "data": DATA}},
        {"fileData": {"fileUri": uri}},
    ]


UNTAKEN = [
    ("anthropic", AudioPart(DATA, "wav")),
    ("anthropic", ImagePart("data:image/tiff;base64,AAAA")),
    ("anthropic", ImagePart("http://example.com/a.png")),
    ("anthropic", FilePart("data:application/zip;base64,AAAA")),
    ("anthropic", FilePart("AAAA")),
    ("gemini", AudioPart(DATA, "pcm16")),
    ("gemini", FilePart(id="file-1")),
    ("gemini", FilePart("AAAA")),
    ("gemini", ImagePart("data:,")),
]


@pytest.mark.parametrize(("kind", "part"), UNTAKEN)
def test_what_a_kind_does_not_take_is_refused_by_its_place_and_of_earlier_turns_noted(
    kind: str, part: MediaPart
) -> None:
    with pytest.raises(UnsupportedContent) as caught:
        sent(kind, replace(part, place="messages[0].content[2]"))
    assert [one.field for one in caught.value.violations] == ["messages[0].content[2]"]
    assert caught.value.metadata == {"provider": "local"}
    [note] = sent(kind, part)
    assert "does not take it" in note["text"]


def test_a_large_content_of_which_only_the_name_is_stored_is_the_same_to_a_transcript() -> None:
    said = Message(Role.USER, parts=(TextPart("What?"), known(ImagePart(PNG)), known(FilePart(PDF, name="x"))))
    answer = Message(Role.ASSISTANT, "A cat.")
    stored = message_from_proto(message_to_proto(said, keep_from=1))
    assert [part.kept is not None for part in stored.parts if not isinstance(part, TextPart)] == [True, True]
    assert "".join(getattr(part, "url", "") + getattr(part, "data", "") for part in stored.parts) == ""
    unknown = Message(Role.USER, parts=(TextPart("What?"), ImagePart(PNG), FilePart(PDF)))
    for digest in (grown(EMPTY, [said, answer]), grown(EMPTY, [stored, answer]), grown(EMPTY, [unknown, answer])):
        assert end_of_history([said, answer, Message(Role.USER, "And?")], digest) == 2
    other = replace(said, parts=(said.parts[0], known(ImagePart(PNG + "AAAA")), said.parts[2]))
    assert end_of_history([other, answer], grown(EMPTY, [stored, answer])) is None


def test_a_small_content_stays_in_its_turn() -> None:
    small = Message(Role.USER, parts=(known(ImagePart(PNG)),))
    assert message_from_proto(message_to_proto(small, keep_from=1 << 20)) == replace(small, parts=(ImagePart(PNG),))


def test_requests_that_differ_in_a_part_have_different_digests() -> None:
    def digest(part: MediaPart) -> bytes:
        return request_digest(TurnRequest(agent_id="a", messages=(Message(Role.USER, parts=(known(part),)),)))

    large = "data:image/png;base64," + "A" * 100_000
    parts = [
        ImagePart(large),
        ImagePart(large + "AAAA"),
        ImagePart(large, "low"),
        AudioPart(DATA, "wav"),
        FilePart(DATA),
    ]
    assert len({digest(part) for part in parts}) == len(parts)
    assert digest(ImagePart(large)) == digest(replace(ImagePart(large), place="messages[3].content[1]"))


def test_large_contents_have_a_bound_of_their_own_and_none_without_a_session() -> None:
    part = known(ImagePart("data:image/png;base64," + "A" * 2_000_000))
    request = TurnRequest(agent_id="a", messages=(Message(Role.USER, parts=(part,) * 2),))
    check_turn_request(request)
    with pytest.raises(MessageTooLarge) as caught:
        check_turn_request(request, RequestBounds(max_parts_bytes=4_000_000))
    assert caught.value.metadata == {"limit_bytes": "4000000"}
    check_turn_request(replace(request, stateless=True), RequestBounds(max_parts_bytes=4_000_000))
    with pytest.raises(MessageTooLarge):  # where nothing is kept apart, all is part of the turn
        check_turn_request(request, RequestBounds(large_part_bytes=0))


def test_base64() -> None:
    assert all(map(is_base64, ("AA==", "AAA=", "AAAA", "+/09azAZ")))
    assert not any(map(is_base64, ("", "A", "AAA", "A===", "AA=A", "AA==AAAA", "AA\n=", "ÄAAA", "A-_A")))
    long = "A" * (3 * 1024 * 1024 + 4)
    assert is_base64(long)
    assert not is_base64(long[:-1] + "!")
    assert is_base64("x" + long, 1)


def test_what_is_long_is_known_by_its_digest_once() -> None:
    at_bound = known(ImagePart("x" * MIN_KEPT_CHARACTERS))
    assert at_bound.kept == identity("x" * MIN_KEPT_CHARACTERS)
    assert known(at_bound) is at_bound
    assert known(ImagePart("x" * (MIN_KEPT_CHARACTERS - 1))).kept is None


def test_of_a_transcript_only_what_is_new_has_the_bounds_of_a_turn() -> None:
    large = known(ImagePart("data:image/png;base64," + "A" * 2_000_000))
    bounds = RequestBounds(max_parts_bytes=3_000_000)
    old, new = Message(Role.USER, parts=(large, large)), Message(Role.USER, parts=(large,))
    answer = Message(Role.ASSISTANT, "A cat.")
    check_turn_request(TurnRequest(agent_id="a", session_id="s", messages=(old, answer, new)), bounds)
    with pytest.raises(MessageTooLarge):
        check_turn_request(TurnRequest(agent_id="a", session_id="s", messages=(new, answer, old)), bounds)
