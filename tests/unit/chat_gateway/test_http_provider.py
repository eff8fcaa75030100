"""The provider client against a server that answers well, badly, slowly and not at all."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pytest

from chat_gateway.model.provider_errors import (
    ProviderBadResponse,
    ProviderMisconfigured,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from chat_gateway.model.turn import Delta, FinishReason, Message, Sampling, Tool, ToolCall, ToolCallDelta
from chat_gateway.providers.http_client import open_client
from chat_gateway.providers.http_provider import HttpProvider, ProviderBounds
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from contract.enums import Role
from servicekit.errors import ServiceError, StartupError
from tests.servers.mock_model import Behaviour, MockModel
from tests.unit.chat_gateway.raw_provider import LATER, Server, calling, listening, provider_at

Short = Callable[..., HttpProvider]
CALL = ModelCall("m", [Message(Role.USER, "hi there")], Sampling(temperature=0.5, stop=("END",)))
BOUNDS = ProviderBounds(connect=60, first_token=60, between_tokens=60, answer=60)
"""Which no test meets, however busy the machine: whoever wants to meet one makes it `short`."""
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def model() -> Iterator[MockModel]:
    with MockModel() as mock:
        yield mock


@pytest.fixture
async def provider(model: MockModel) -> AsyncIterator[HttpProvider]:
    async with open_client(BOUNDS.connect) as client:
        yield provider_at(model.url, client)


@pytest.fixture
async def short(model: MockModel) -> AsyncIterator[Short]:
    """Makes a provider some of whose bounds are others."""
    async with open_client(BOUNDS.connect) as client:
        yield lambda **bounds: provider_at(model.url, client, bounds=replace(BOUNDS, **bounds))


@pytest.fixture
async def narrow(model: MockModel) -> AsyncIterator[HttpProvider]:
    """A provider whose answers may have 10 bytes."""
    async with open_client(BOUNDS.connect) as client:
        yield provider_at(model.url, client, max_answer_bytes=10)


async def streamed(provider: HttpProvider, call: ModelCall = CALL) -> tuple[list[Delta], ModelAnswer]:
    deltas: list[Delta] = []

    async def note(delta: Delta) -> None:
        deltas.append(delta)

    return deltas, await provider.complete(call, note)


async def test_a_whole_answer(provider: HttpProvider, model: MockModel) -> None:
    answer = await provider.complete(CALL, None)
    assert answer.message == Message(Role.ASSISTANT, "echo:1:hi there")
    assert answer.finish_reason is FinishReason.STOP
    assert answer.usage.prompt_tokens > 0
    (sent,) = model.requests
    assert sent["messages"] == [{"role": "user", "content": "hi there"}]
    assert (sent["model"], sent["temperature"], sent["stop"]) == ("m", 0.5, ["END"])
    assert "stream" not in sent
    assert model.headers[0]["Authorization"] == "Bearer key-1"


async def test_a_streamed_answer_is_the_sum_of_its_pieces(provider: HttpProvider, model: MockModel) -> None:
    model.script(Behaviour(chunk_delay=0.03))
    deltas, answer = await streamed(provider)
    assert len(deltas) > 1
    assert "".join(d.content for d in deltas) == answer.message.content == "echo:1:hi there"
    assert answer.usage.completion_tokens > 0
    assert model.requests[0]["stream_options"] == {"include_usage": True}


async def test_pieces_that_arrive_together_go_on_together(provider: HttpProvider, model: MockModel) -> None:
    call = b'{"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "look", "arguments": "{}"}}]}'
    pieces = (b'{"content": "one "}', b'{"content": "two"}', call, b'{"content": " three"}')
    events = [b'data: {"choices": [{"delta": %b}]}\n\n' % piece for piece in pieces]
    end = b'data: {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}\n\ndata: [DONE]\n\n'
    model.script(Behaviour(body=b"".join(events) + end))
    deltas, answer = await streamed(provider)
    assert deltas == [Delta("one two three", (ToolCallDelta(0, "c1", "look", "{}"),))]
    assert answer.message.content == "one two three"
    assert answer.message.tool_calls == (ToolCall("c1", "look", "{}"),)


async def test_what_follows_the_end_of_a_stream_is_not_looked_at(provider: HttpProvider, model: MockModel) -> None:
    said = b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    model.script(Behaviour(body=said + b"data: {broken\n\n"))
    deltas, answer = await streamed(provider)
    assert deltas == [Delta("x")]
    assert answer.message.content == "x"


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls(provider: HttpProvider, model: MockModel, stream: bool) -> None:
    model.script(Behaviour(tool_calls=(("c1", "look", '{"q": "x"}'), ("c2", "see", "{}"))))
    call = ModelCall("m", CALL.messages, Sampling(), tools=(Tool("look", "d", {"type": "object"}),), tool_choice="look")
    answer = (await streamed(provider, call))[1] if stream else await provider.complete(call, None)
    assert answer.message.tool_calls == (ToolCall("c1", "look", '{"q": "x"}'), ToolCall("c2", "see", "{}"))
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    assert model.requests[0]["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert model.requests[0]["tools"][0]["function"]["parameters"] == {"type": "object"}


FAILURES = [
    pytest.param(Behaviour(status=500), ProviderUnavailable, id="500"),
    pytest.param(Behaviour(status=429, headers={"Retry-After": "7"}), ProviderRateLimited, id="429"),
    pytest.param(Behaviour(status=400), ProviderRejected, id="400"),
    pytest.param(Behaviour(status=401), ProviderMisconfigured, id="401"),
    pytest.param(Behaviour(status=301, headers={"Location": "/elsewhere"}), ProviderMisconfigured, id="redirect"),
    pytest.param(Behaviour(body=b"<html>"), ProviderBadResponse, id="garbage"),
    pytest.param(Behaviour(body=b"{}"), ProviderBadResponse, id="no choice"),
    pytest.param(Behaviour(body=b"\xff\xfe"), ProviderBadResponse, id="not text"),
    pytest.param(Behaviour(body=b'{"error": {"message": "sk-secret"}}'), ProviderUnavailable, id="error body"),
    pytest.param(Behaviour(hold=True), ProviderTimeout, id="hang"),
]


@pytest.mark.parametrize(("behaviour", "error"), FAILURES)
async def test_a_whole_answer_that_fails(
    short: Short, model: MockModel, behaviour: Behaviour, error: type[ServiceError]
) -> None:
    model.script(behaviour)
    provider = short(answer=0.3) if behaviour.hold else short()
    with pytest.raises(error) as caught:
        await provider.complete(CALL, None)
    assert caught.value.metadata["provider"] == "local"
    assert "secret" not in str(caught.value)
    assert len(model.requests) == 1


STREAM_FAILURES = [
    pytest.param(Behaviour(status=503), ProviderUnavailable, id="503"),
    pytest.param(Behaviour(chunks_before_cut=1), ProviderUnavailable, id="cut"),
    pytest.param(Behaviour(body=b"data: {broken\n\n"), ProviderBadResponse, id="garbage"),
    pytest.param(Behaviour(body=b"data: [DONE]\n\n"), ProviderBadResponse, id="nothing"),
    pytest.param(Behaviour(body=b'data: {"error": {"message": "x"}}\n\n'), ProviderUnavailable, id="error frame"),
    pytest.param(
        Behaviour(body=b'data: {"error": {"message": "x"}}\n\ndata: {broken\n\n'),
        ProviderUnavailable,
        id="error frame before garbage",
    ),
    pytest.param(
        Behaviour(body=b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'), ProviderBadResponse, id="no end"
    ),
]


@pytest.mark.parametrize(("behaviour", "error"), STREAM_FAILURES)
async def test_a_streamed_answer_that_fails(
    provider: HttpProvider, model: MockModel, behaviour: Behaviour, error: type[ServiceError]
) -> None:
    model.script(behaviour)
    with pytest.raises(error):
        await streamed(provider)


async def test_the_time_to_retry_is_the_providers(provider: HttpProvider, model: MockModel) -> None:
    model.script(Behaviour(status=429, headers={"Retry-After": "7"}))
    with pytest.raises(ProviderRateLimited) as caught:
        await provider.complete(CALL, None)
    assert caught.value.retry_after == 7.0
    assert caught.value.metadata["status"] == "429"


@pytest.mark.parametrize(
    ("behaviour", "bound"), [(Behaviour(hold=True), "first_token"), (Behaviour(hold_after_chunks=2), "between_tokens")]
)
async def test_a_timeout_names_its_bound(short: Short, model: MockModel, behaviour: Behaviour, bound: str) -> None:
    model.script(behaviour)
    with pytest.raises(ProviderTimeout) as caught:
        await streamed(short(**{bound: 0.3}))
    assert caught.value.metadata["bound"] == bound


@pytest.mark.slow
async def test_a_slow_reader_is_not_blamed_on_the_provider(short: Short) -> None:
    async def slow(delta: Delta) -> None:
        await asyncio.sleep(3.2)

    call = ModelCall("m", [Message(Role.USER, "x")], Sampling())
    answer = await short(between_tokens=3.0).complete(call, slow)
    assert answer.message.content == "echo:1:x"


@pytest.mark.slow
async def test_a_silence_is_counted_from_the_last_piece(short: Short, model: MockModel) -> None:
    model.script(Behaviour(text="one two three four five six seven eight", chunk_delay=0.5))
    begin = time.monotonic()
    _, answer = await streamed(short(between_tokens=3.0))
    assert answer.message.content == "one two three four five six seven eight"
    assert time.monotonic() - begin > 3.0


async def test_a_silence_after_a_slow_reader_is_the_providers(short: Short, model: MockModel) -> None:
    model.script(Behaviour(hold_after_chunks=2))

    async def slow(delta: Delta) -> None:
        await asyncio.sleep(0.4)

    begin = time.monotonic()
    with pytest.raises(ProviderTimeout) as caught:
        await short(between_tokens=0.3).complete(CALL, slow)
    assert caught.value.metadata["bound"] == "between_tokens"
    assert time.monotonic() - begin >= 0.4 + 0.3


@pytest.mark.parametrize(("url", "key"), [("http://me:secret@host/v1", "k"), ("http://host/v1", "two\nlines")])
async def test_what_can_not_be_sent_is_said_at_the_start(url: str, key: str | None) -> None:
    async with open_client(1.0) as client:
        with pytest.raises(StartupError, match="provider 'local'") as caught:
            provider_at(url, client, extra_headers={"Authorization": key})
    assert "secret" not in str(caught.value)
    assert "lines" not in str(caught.value)


async def test_nobody_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # kept, without listening, so that nobody else gets it
        async with open_client(BOUNDS.connect) as client:
            unreachable = provider_at(f"http://127.0.0.1:{port}/v1", client)
            with pytest.raises(ProviderUnavailable, match="can't be reached") as caught:
                await unreachable.complete(CALL, None)
    assert caught.value.retry_after is not None


async def test_cancelling_stops_the_provider(provider: HttpProvider, model: MockModel) -> None:
    model.script(Behaviour(hold_after_chunks=1))
    task = asyncio.create_task(streamed(provider))
    await model.received(1)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(60):
        while not model.abandoned:
            await asyncio.sleep(0.01)


async def test_an_answer_without_end_is_refused(narrow: HttpProvider, model: MockModel) -> None:
    with pytest.raises(ProviderBadResponse):
        await streamed(narrow)


TOO_LARGE = [
    pytest.param(Behaviour(text="üüüüüü"), id="bytes, not characters"),
    pytest.param(Behaviour(tool_calls=(("c1", "f", '"123456789"'),)), id="arguments"),
    pytest.param(Behaviour(tool_calls=(("c1", "f" * 10, ""),)), id="name"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("behaviour", TOO_LARGE)
async def test_an_answers_size_is_in_bytes_of_all_that_is_stored(
    narrow: HttpProvider, model: MockModel, behaviour: Behaviour, stream: bool
) -> None:
    model.script(behaviour)
    with pytest.raises(ProviderBadResponse, match="longer than 10 bytes"):
        await (streamed(narrow) if stream else narrow.complete(CALL, None))


async def test_a_stream_is_cut_off_by_its_bytes(narrow: HttpProvider, model: MockModel) -> None:
    model.script(Behaviour(text="üüü üüü üüü", hold_after_chunks=3))
    with pytest.raises(ProviderBadResponse, match="longer than 10 bytes"):
        await streamed(narrow)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_counts_as_answer(narrow: HttpProvider, model: MockModel, stream: bool) -> None:
    said = b'{"choices": [{"%b": {"refusal": "I would not"}, "finish_reason": "stop"}]}' % (
        b"delta" if stream else b"message"
    )
    model.script(Behaviour(body=b"data: %b\n\ndata: [DONE]\n\n" % said if stream else said))
    with pytest.raises(ProviderBadResponse, match="longer than 10 bytes"):
        await (streamed(narrow) if stream else narrow.complete(CALL, None))


BAD_CALLS = [
    pytest.param(tuple((f"c{n}", "look", "{}") for n in range(129)), "more than 128", id="too many"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("calls", "why"), BAD_CALLS)
async def test_tool_calls_that_no_session_takes(
    provider: HttpProvider, model: MockModel, calls: tuple[tuple[str, str, str], ...], why: str, stream: bool
) -> None:
    model.script(Behaviour(tool_calls=calls))
    with pytest.raises(ProviderBadResponse, match=why):
        await (streamed(provider) if stream else provider.complete(CALL, None))


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls_with_one_id_get_ids_of_their_own(
    provider: HttpProvider, model: MockModel, stream: bool
) -> None:
    model.script(Behaviour(tool_calls=(("c1", "look", "{}"), ("c1", "see", "{}"))))
    answer = (await streamed(provider))[1] if stream else await provider.complete(CALL, None)
    first, second = answer.message.tool_calls
    assert (first.id, first.name, second.name) == ("c1", "look", "see")
    assert second.id not in ("", "c1")


def event(delta: bytes, finish: bytes = b"null") -> bytes:
    return b'data: {"choices": [{"delta": %b, "finish_reason": %b}]}\n\n' % (delta, finish)


@pytest.mark.slow
async def test_reasoning_is_a_sign_of_life() -> None:
    """Whatever of a model ends the wait for its first token; from then on its silences count."""
    server = Server(STREAM + event(b'{"reasoning": "hm"}') + LATER * 55 + event(b'{"content": "ok"}', b'"stop"') + DONE)
    async with calling(server, bounds=replace(BOUNDS, first_token=2.5)) as provider:
        _, answer = await streamed(provider)
    assert (answer.message.content, answer.message.reasoning) == ("ok", "hm")


@pytest.mark.parametrize(
    "said", [b": ping\n\n", event(b'{"role": "assistant", "content": ""}'), b"event: ping\ndata: {}\n\n"]
)
async def test_a_comment_a_ping_and_an_empty_chunk_are_no_signs_of_life(said: bytes) -> None:
    server = Server(STREAM + (said + LATER) * 100)
    async with calling(server, bounds=replace(BOUNDS, first_token=0.3)) as provider:
        with pytest.raises(ProviderTimeout) as caught:
            await streamed(provider)
    assert caught.value.metadata["bound"] == "first_token"


async def test_blank_lines_while_the_model_thinks_do_not_hide_an_answer_that_is_no_stream() -> None:
    said = b'{"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}'
    server = Server(STREAM + (b"\n" + LATER) * 3 + said, closes=True)
    async with calling(server) as provider:
        deltas, answer = await streamed(provider)
    assert (deltas, answer.message.content) == ([Delta("ok")], "ok")


async def test_reasoning_that_is_too_long_to_store_costs_no_answer() -> None:
    server = Server(
        STREAM + event(b'{"reasoning": "%b"}' % (b"x" * 100)) + event(b'{"content": "ok"}', b'"stop"') + DONE
    )
    async with listening(server) as url, open_client(10) as client:
        deltas, answer = await streamed(provider_at(url, client, max_answer_bytes=10))
    assert "".join(delta.reasoning for delta in deltas) == "x" * 100
    assert (answer.message.content, answer.message.reasoning) == ("ok", "x" * 8)
