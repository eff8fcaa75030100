"""The mock is trusted by many tests, so the official client itself says that it speaks the protocol."""

import httpx
import openai
import pytest

from tests.servers.mock_model import MODEL, Behaviour, MockModel


@pytest.fixture
def model():
    with MockModel() as model:
        yield model


@pytest.fixture
def client(model: MockModel):
    with openai.OpenAI(base_url=model.url, api_key="none", max_retries=0) as client:
        yield client


HELLO = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello there"}]


def test_plain_answer_tells_how_many_messages_came(model, client) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert answer.choices[0].message.content == "echo:2:hello there"
    assert answer.usage.total_tokens == 6
    assert model.prompts == [HELLO]


def test_streamed_answer(model, client) -> None:
    with client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "echo:2:hello there"
    assert chunks[-1].usage.completion_tokens == 2


def test_tool_calls(model, client) -> None:
    model.script(Behaviour(tool_calls=(("call_1", "lookup", '{"q": 1}'),)))
    choice = client.chat.completions.create(model=MODEL, messages=HELLO).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.arguments == '{"q": 1}'


def test_script_is_used_once_per_request(model, client) -> None:
    model.script(Behaviour(status=500), Behaviour(text="second"))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=MODEL, messages=HELLO)
    answers = [client.chat.completions.create(model=MODEL, messages=HELLO) for _ in range(2)]
    assert [answer.choices[0].message.content for answer in answers] == ["second", "echo:2:hello there"]


def test_cut_in_mid_stream(model) -> None:
    model.script(Behaviour(chunks_before_cut=2))
    body = {"model": MODEL, "messages": HELLO, "stream": True}
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{model.url}/chat/completions", json=body)


@pytest.mark.slow
async def test_held_request_answers_after_release(model) -> None:
    model.script(Behaviour(hold=True))
    async with openai.AsyncOpenAI(base_url=model.url, api_key="none", max_retries=0) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model=MODEL, messages=HELLO, timeout=2)
        assert len(model.requests) == 1
        model.script(Behaviour(hold=True))
        model.release()
        answer = await client.chat.completions.create(model=MODEL, messages=HELLO, timeout=60)
    assert answer.choices[0].message.content == "echo:2:hello there"


def test_garbage_and_down(model) -> None:
    model.script(Behaviour(body=b"<html>"))
    assert httpx.post(f"{model.url}/chat/completions", json={"messages": []}).text == "<html>"
    port = model.port
    model.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{model.url}/models")
    model.start()
    assert model.port == port
    assert httpx.get(f"{model.url}/models").json()["data"][0]["id"] == MODEL
