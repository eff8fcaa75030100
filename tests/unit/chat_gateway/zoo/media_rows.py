"""Answers with images and audio."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from chat_gateway.model.turn import NO_DETAILS
from chat_gateway.providers.provider import ModelAnswer
from tests.unit.chat_gateway.zoo import gemini_rows
from tests.unit.chat_gateway.zoo.openai_rows import both, chunk, events
from tests.unit.chat_gateway.zoo.row import BAD, STOP, Answered, Row

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}
OTHER = {"type": "image_url", "image_url": {"url": "data:image/png;base64,bbbb"}, "index": 1}
SOUND = {"id": "audio_1", "data": "aaaabbbb", "expires_at": 1, "transcript": "ok then"}
LARGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "a" * 2_000_000}}


def has(images: list[Any], audio: Any = None) -> Callable[[ModelAnswer], bool]:
    def check(answer: ModelAnswer) -> bool:
        details = answer.details
        found = json.loads(details.images or b"[]"), json.loads(details.audio or b"null")
        return found == (images, audio)

    return check


def plain(answer: ModelAnswer) -> bool:
    return answer.details is NO_DETAILS


def shown(*images: Any) -> Answered:
    return Answered("ok", STOP, also=has(list(images)))


OPENAI = [
    *both("an image", {"content": "ok", "images": [IMAGE]}, shown(IMAGE)),
    *both("an image alone", {"content": None, "images": [IMAGE]}, Answered("", STOP, also=has([IMAGE]))),
    *both("two images", {"content": "ok", "images": [IMAGE, OTHER]}, shown(IMAGE, OTHER)),
    *both("an image as an object", {"content": "ok", "images": IMAGE}, shown(IMAGE)),
    *both("an image as a URL", {"content": "ok", "images": ["https://x/y.png"]},
          shown({"type": "image_url", "image_url": {"url": "https://x/y.png"}})),
    *both("images that are none", {"content": "ok", "images": [1, {}, None, {"type": "image_url"}]},
          Answered("ok", STOP, also=plain)),
    *both("no images and no audio", {"content": "ok", "images": [], "audio": None}, Answered("ok", STOP, also=plain)),
    *both("audio", {"content": "ok", "audio": SOUND}, Answered("ok", STOP, also=has([], SOUND))),
    *both("audio that is none", {"content": "ok", "audio": "x"}, Answered("ok", STOP, also=plain)),
    *both("an image, and a content that is a list", {"content": [{"type": "text", "text": "ok"}], "images": [IMAGE]},
          shown(IMAGE)),
    *both("a large image", {"content": "ok", "images": [LARGE]}, shown(LARGE),
          settings={"extra_body": {"modalities": ["image", "text"]}}),
    *both("images that are too large", {"content": "ok", "images": [LARGE] * 5}, BAD,
          settings={"extra_body": {"modalities": ["image", "text"]}}),
    Row("images one by one, and again", events(
        chunk({"content": "ok", "images": [{**IMAGE, "index": 0}]}), chunk({"images": [OTHER]}),
        chunk({"images": [OTHER]}), chunk({}, "stop")), shown({**IMAGE, "index": 0}, OTHER), stream=True),
    Row("audio in pieces", events(
        chunk({"audio": {"id": "audio_1", "transcript": "ok "}}), chunk({"audio": {"data": "aaaa"}}),
        chunk({"audio": {"data": "bbbb", "transcript": "then"}}), chunk({"audio": {"expires_at": 1}}),
        chunk({}, "stop")), Answered("", STOP, also=has([], SOUND)), stream=True),
]  # fmt: skip

PICTURE = {"inlineData": {"mimeType": "image/png", "data": "aaaa"}}
GEMINI = [
    *gemini_rows.both("an image", [{"text": "ok"}, PICTURE], shown(IMAGE)),
    *gemini_rows.both(
        "an image of a thought",
        [{**PICTURE, "thought": True}, {"text": "ok"}],
        Answered("ok", STOP, also=lambda answer: not answer.details.images),
    ),
    *gemini_rows.both(
        "sound",
        [{"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "aaaa"}}],
        Answered("", STOP, also=has([], {"data": "aaaa", "format": "l16;rate=24000"})),
    ),
    *[
        replace(row, settings={"extra_body": {"generationConfig": {"responseModalities": ["IMAGE"]}}})
        for row in gemini_rows.both(
            "a large image",
            [{"text": "ok"}, {"inlineData": {"mimeType": "image/png", "data": "a" * 2_000_000}}],
            shown(LARGE),
        )
    ],
]
