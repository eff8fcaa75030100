"""The official `openai` client, unchanged, against the real system."""

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest

from tests.servers.mock_model import MODEL, Behaviour
from tests.servers.system import PROVIDER, System

pytestmark = pytest.mark.usefixtures("forgetful_model")

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
HI = {"role": "user", "content": "Hi there"}


@pytest.fixture
def agent(parley_system: System) -> str:
    return str(parley_system.create_agent(f"agent-{uuid4().hex[:8]}")["id"])


@pytest.fixture
def client(parley_system: System) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{parley_system.http_url}/v1", api_key="none", timeout=60) as opened:
        yield opened


def complete(client: openai.OpenAI, agent: str, *messages: Any, **options: Any) -> Any:
    return client.chat.completions.create(model=agent, messages=list(messages or (HI,)), **options)


def test_it_chats_and_goes_on_in_the_session_that_it_was_given(client: openai.OpenAI, agent: str) -> None:
    first = client.chat.completions.with_raw_response.create(model=agent, messages=[HI])
    completion = first.parse()
    assert completion.choices[0].message.content == "echo:2:Hi there"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == agent
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 0
    session = first.headers["x-session-id"]
    by_field = complete(client, agent, HI, extra_body={"session_id": session})
    by_header = complete(client, agent, HI, extra_headers={"X-Session-ID": session})
    assert by_field.choices[0].message.content == "echo:4:Hi there"
    assert by_header.choices[0].message.content == "echo:6:Hi there"


def test_it_sends_sampling_and_a_system_message(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    system = {"role": "system", "content": "Be brief."}
    complete(client, agent, system, HI, temperature=0.5, max_completion_tokens=7, stop=["END"], seed=3, store=False)
    request = parley_system.model.requests[-1]
    assert request["temperature"] == 0.5
    assert request["stop"] == ["END"]
    assert request["seed"] == 3
    assert 7 in (request.get("max_tokens"), request.get("max_completion_tokens"))
    assert [message["content"] for message in request["messages"]] == ["You are a test.", "Be brief.", "Hi there"]


def test_it_streams_with_the_usage_at_the_end(client: openai.OpenAI, agent: str) -> None:
    chunks = list(complete(client, agent, HI, stream=True, stream_options={"include_usage": True}))
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "echo:2:Hi there"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens > 0


def test_its_stream_helper_puts_the_answer_together(client: openai.OpenAI, agent: str) -> None:
    with client.chat.completions.stream(model=agent, messages=[HI]) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == "echo:2:Hi there"


async def test_its_async_client_chats_and_streams(parley_system: System, agent: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{parley_system.http_url}/v1", api_key="none", timeout=60) as client:
        answer = await client.chat.completions.create(model=agent, messages=[HI])
        assert answer.choices[0].message.content == "echo:2:Hi there"
        stream = await client.chat.completions.create(model=agent, messages=[HI], stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == "echo:2:Hi there"


async def test_leaving_a_stream_ends_the_models_work_and_stores_nothing(parley_system: System, agent: str) -> None:
    parley_system.model.script(Behaviour(text="one two three", hold_after_chunks=2))
    async with openai.AsyncOpenAI(base_url=f"{parley_system.http_url}/v1", api_key="none", timeout=60) as client:
        session = f"s-{uuid4().hex}"
        stream = await client.chat.completions.create(
            model=agent, messages=[HI], stream=True, extra_body={"session_id": session}
        )
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        answer = await client.chat.completions.create(model=agent, messages=[HI], extra_body={"session_id": session})
    assert answer.choices[0].message.content == "echo:2:Hi there"
    assert parley_system.model.abandoned == 1


def test_it_lists_agents_as_models(client: openai.OpenAI, agent: str) -> None:
    assert agent in [model.id for model in client.models.list()]
    model = client.models.retrieve(agent)
    assert (model.id, model.object, model.owned_by) == (agent, "model", "default")
    assert model.created > 1_700_000_000
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.code == "agent_not_found"


def test_it_embeds_with_the_model_of_an_agent_and_with_a_providers_own(
    parley_system: System, client: openai.OpenAI, agent: str
) -> None:
    texts = ["a", "bcd"]
    raw = client.embeddings.with_raw_response.create(model=agent, input=texts)  # base64, unless it is told otherwise
    found = raw.parse()
    assert [one.embedding for one in found.data] == [[0.0, 1.0, 0.0, 0.0], [1.0, 3.0, 0.0, 0.0]]
    assert (found.model, found.usage.prompt_tokens, found.usage.total_tokens) == (agent, 2, 2)
    assert (raw.headers["x-parley-provider"], raw.headers["x-agent-revision"]) == (PROVIDER, "1")
    assert parley_system.model.requests[-1]["model"] == MODEL
    small = client.embeddings.create(
        model=f"{PROVIDER}/any/model", input=[[1, 2], [3]], encoding_format="float", dimensions=3, user="ann smith"
    )
    assert [one.embedding for one in small.data] == [[0.0, 2.0, 0.0], [1.0, 1.0, 0.0]]
    asked = {"model": "any/model", "input": [[1, 2], [3]], "dimensions": 3, "user": "ann smith"}
    assert parley_system.model.requests[-1] == asked
    for model in ("nobody", "nobody/m", "No agent", f"{PROVIDER}/"):
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model=model, input="x")
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=agent, input=[])
    assert caught.value.param == "input"


@pytest.mark.parametrize("stream", [False, True])
def test_it_runs_the_tools_that_the_model_calls(
    parley_system: System, client: openai.OpenAI, agent: str, stream: bool
) -> None:
    parley_system.model.script(Behaviour(tool_calls=(("call_1", "weather", '{"city":"Rome"}'),)))
    session = {"session_id": f"s-{uuid4().hex}"}
    if stream:
        with client.chat.completions.stream(model=agent, messages=[HI], tools=[WEATHER], extra_body=session) as events:
            choice = events.get_final_completion().choices[0]
    else:
        choice = complete(client, agent, HI, tools=[WEATHER], extra_body=session).choices[0]
    assert choice.finish_reason == "tool_calls"
    call = choice.message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", '{"city":"Rome"}')
    assert parley_system.model.requests[-1]["tools"][0]["function"]["name"] == "weather"
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    complete(client, agent, result, extra_body=session)
    roles = [message["role"] for message in parley_system.model.prompts[-1]]
    assert roles == ["system", "user", "assistant", "tool"]
    assert parley_system.model.prompts[-1][2]["tool_calls"][0]["id"] == "call_1"


def test_it_retries_a_busy_session_by_itself(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    session = f"s-{uuid4().hex}"
    parley_system.model.script(Behaviour(text="first", hold=True))
    holder = threading.Thread(target=parley_system.chat, args=(agent, "hold"), kwargs={"session_id": session})
    holder.start()
    try:
        parley_system.model.wait_for_requests(1)
        headers = {"X-Session-ID": session, "X-Session-Busy": "reject"}
        with pytest.raises(openai.ConflictError) as caught:
            complete(client.with_options(max_retries=0), agent, HI, extra_headers=headers)
        assert caught.value.code == "session_busy"
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert caught.value.response.headers["x-should-retry"] == "true"

        def release(response: httpx.Response) -> None:
            if response.status_code == 409:
                parley_system.model.release()

        with httpx.Client(event_hooks={"response": [release]}, timeout=60, trust_env=False) as http:
            patient = client.with_options(max_retries=20, http_client=http)
            answer = patient.chat.completions.with_raw_response.create(
                model=agent, messages=[HI], extra_headers=headers
            )
    finally:
        parley_system.model.release()
        holder.join()
    assert answer.retries_taken >= 1
    assert answer.parse().choices[0].message.content == "echo:4:Hi there"


def test_it_does_not_retry_what_a_retry_can_not_mend(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    key = {"Idempotency-Key": uuid4().hex, "X-Session-ID": f"s-{uuid4().hex}"}
    first = client.chat.completions.with_raw_response.create(model=agent, messages=[HI], extra_headers=key)
    again = client.chat.completions.with_raw_response.create(model=agent, messages=[HI], extra_headers=key)
    assert first.parse() == again.parse()
    assert again.headers["idempotent-replayed"] == "true"
    assert len(parley_system.model.requests) == 1
    with pytest.raises(openai.ConflictError) as caught:
        complete(client, agent, {"role": "user", "content": "something else"}, extra_headers=key)
    assert caught.value.code == "idempotency_key_reused"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_its_error_classes_are_the_ones_that_users_catch(client: openai.OpenAI, agent: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        complete(client, "nobody")
    with pytest.raises(openai.BadRequestError) as broken:
        complete(client, agent, {"role": "wizard", "content": "x"})
    assert (missing.value.code, missing.value.param) == ("agent_not_found", None)
    assert (broken.value.code, broken.value.param) == ("invalid_field", "messages[0].role")
    assert broken.value.type == "invalid_request_error"


def test_an_error_in_mid_stream_is_raised(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    parley_system.model.script(Behaviour(text="one two three", chunks_before_cut=2))
    seen = []
    with pytest.raises(openai.APIError) as caught:
        seen.extend(complete(client, agent, HI, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in seen).startswith("one")
    assert caught.value.code in ("provider_unavailable", "provider_bad_response")


def test_it_reads_lists_changes_and_deletes_stored_completions(client: openai.OpenAI, agent: str) -> None:
    completions = client.chat.completions
    first, second = complete(client, agent, HI, metadata={"tier": "gold"}), complete(client, agent, HI)
    found = completions.retrieve(first.id)
    assert (found.id, found.model, found.created) == (first.id, agent, first.created)
    assert found.choices[0].message.content == first.choices[0].message.content
    assert found.usage == first.usage
    messages = list(completions.messages.list(first.id, limit=1))
    assert [(one.id, one.role, one.content) for one in messages] == [(f"{first.id}-0", "user", "Hi there")]
    *_, last = complete(client, agent, HI, stream=True)
    listed = [one.id for one in completions.list(model=agent, limit=1)]
    assert listed == [first.id, second.id, last.id]
    assert [one.id for one in completions.list(model=agent, limit=2, order="desc")] == listed[::-1]
    assert [one.id for one in completions.list(model=agent, metadata={"tier": "gold"})] == [first.id]
    changed = completions.update(first.id, metadata={"tier": "silver"})
    assert (changed.id, changed.to_dict()["metadata"]) == (first.id, {"tier": "silver"})
    assert list(completions.list(model=agent, metadata={"tier": "gold"})) == []
    deleted = completions.delete(first.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (first.id, True, "chat.completion.deleted")
    unknown = (first.id, "chatcmpl-nothing", "no id", complete(client, agent, HI, store=False).id)
    for completion_id in unknown:
        for call in (completions.retrieve, completions.delete, completions.messages.list):
            with pytest.raises(openai.NotFoundError) as caught:
                call(completion_id)
            assert caught.value.code == "turn_not_found"


def test_a_completion_that_others_stand_on_is_not_deleted(client: openai.OpenAI, agent: str) -> None:
    session = {"session_id": f"a:b.{uuid4().hex}"}
    first = complete(client, agent, HI, extra_body=session)
    second = complete(client, agent, HI, extra_body=session)
    assert [one.id for one in client.chat.completions.list(model=agent)] == [first.id, second.id]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.delete(first.id)
    assert caught.value.code == "turn_not_last"
    client.chat.completions.update(second.id, metadata={"a": "b"})  # a colon in the id of a session is no verb
    client.chat.completions.delete(second.id)
    client.chat.completions.delete(first.id)
    third = complete(client, agent, HI, extra_body=session)
    assert third.choices[0].message.content == "echo:2:Hi there"
    # What an earlier release gave as the id names no session.
    bare, header = third.id.partition(".")[0], {"X-Session-ID": session["session_id"]}
    assert client.chat.completions.retrieve(bare, extra_headers=header).id == third.id
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(bare)


def test_stored_completions_are_their_users_own(client: openai.OpenAI, agent: str) -> None:
    own = complete(client, agent, HI, user="ann").id
    ann, bob = ({"X-User-ID": user} for user in ("ann", "bob"))
    assert client.chat.completions.retrieve(own, extra_headers=ann).id == own
    assert [one.id for one in client.chat.completions.list(model=agent, extra_headers=ann)] == [own]
    assert list(client.chat.completions.list(model=agent, extra_headers=bob)) == []
    for others in (bob, {"X-Project-ID": "other"}):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.retrieve(own, extra_headers=others)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.delete(own, extra_headers=others)
