"""What can't be read, written or held fails its own call, and not the others that share its stream."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from callstream.server import MAX_ANSWER_BYTES, CallStreams
from servicekit.wire import bytes_tag, number_tag, varint
from tests.unit.callstream import echo
from tests.unit.callstream.echo import ECHO, PROTOCOL

NO_UTF8 = b"\xff\xfe"
"""What a `string` can't hold."""


def poisoned(part: Any, *, id_field: int, echo_field: int) -> bytes:
    """A part of a stream's message with its id, whose payload can't be read."""
    text = bytes_tag(1) + varint(len(NO_UTF8)) + NO_UTF8
    return number_tag(id_field) + varint(7) + bytes_tag(echo_field) + varint(len(text)) + text


def held(tag: bytes, data: bytes) -> bytes:
    return tag + varint(len(data)) + data


def test_a_result_that_can_not_be_read_fails_alone() -> None:
    good = echo.Result(id=8, echo=echo.EchoResponse(text="fine")).SerializeToString()
    bad = poisoned(echo.Result, id_field=4, echo_field=5)
    data = b"".join(held(PROTOCOL.results_tag, part) for part in (bad, good)) + number_tag(1) + varint(1)
    with pytest.raises(DecodeError):
        echo.Answers.FromString(data)
    message = PROTOCOL.read_responses(data)
    assert [(result.id, result.WhichOneof("outcome")) for result in message.results] == [(7, "failure"), (8, "echo")]
    assert status_pb2.Status.FromString(message.results[0].failure).code == 13
    assert message.draining


def test_a_call_that_can_not_be_read_has_no_method() -> None:
    good = echo.Call(id=8, timeout_ms=5, echo=echo.EchoRequest(text="fine")).SerializeToString()
    bad = poisoned(echo.Call, id_field=16, echo_field=30)
    packed = echo.Calls(cancelled_ids=[1, 300]).SerializeToString()
    message = PROTOCOL.read_requests(b"".join(held(PROTOCOL.calls_tag, part) for part in (good, bad)) + packed)
    assert [(call.id, call.WhichOneof("request")) for call in message.calls] == [(8, "echo"), (7, None)]
    assert list(message.cancelled_ids) == [1, 300]


@pytest.mark.parametrize("data", [b"\xff" * 20, b"\x0b", held(PROTOCOL.results_tag, b"\x0a")[:-1], b"\x80"])
def test_what_is_no_message_at_all_ends_its_stream(data: bytes) -> None:
    with pytest.raises(DecodeError):
        PROTOCOL.read_responses(data)


async def test_an_answer_that_can_not_be_sent_fails_alone() -> None:
    answers: dict[int, Any] = {}

    class Reader:
        async def write(self, data: bytes) -> None:
            answers.update({result.id: result for result in echo.Answers.FromString(data).results})

    async def answer(request: Any, context: Any) -> Any:
        if request.text == "large":
            return bytes(MAX_ANSWER_BYTES + 1)
        if request.text == "wrong":
            return object()
        return echo.EchoResponse(text="fine")

    async def requests() -> AsyncIterator[Any]:
        texts = ("large", "wrong", "good")
        yield echo.Calls(calls=[echo.Call(id=n, echo=echo.EchoRequest(text=text)) for n, text in enumerate(texts)])

    stream = CallStreams(PROTOCOL, {ECHO: answer}, name="echo_svc").serve(requests(), Reader())  # type: ignore[arg-type]
    await asyncio.wait_for(stream, 60)
    assert [answers[n].WhichOneof("outcome") for n in range(3)] == ["failure", "failure", "echo"]
    assert answers[2].echo.text == "fine"
