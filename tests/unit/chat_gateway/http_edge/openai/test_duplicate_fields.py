"""A field that a body gives twice: every reader takes the last one, so that none checks what another does not use."""

from typing import Any

from chat_gateway.http_edge.openai.chat.request import decode_request, extra_fields

BODY = (
    b'{"model":"first","user":"first","session_id":"first","top_k":1,"messages":[],'
    b'"mod\\u0065l":"last","user":"last","session_id":"last","top_k":2,'
    b'"messages":[{"role":"user","content":"first","content":"last"}]}'
)


def said(body: bytes) -> tuple[Any, ...]:
    request, _ = decode_request(body)
    messages = request.messages or []
    return request.model, request.user, request.session_id, *(message.content for message in messages)


def test_the_last_one_counts() -> None:
    assert said(BODY) == ("last",) * 4
    assert extra_fields(BODY) == {"top_k": b"2"}, "a provider gets one of them only"


def test_the_last_one_counts_in_a_body_that_is_read_again_without_what_is_unknown() -> None:
    assert said(BODY.replace(b'"role"', b'"unknown":1,"role"')) == ("last",) * 4


def test_the_last_one_counts_in_a_body_that_is_checked_for_its_width() -> None:
    assert said(BODY.replace(b'"top_k":1', b'"top_k":[' + b"1," * 40_000 + b"1]")) == ("last",) * 4
