"""The official `openai` client's Responses API, unchanged, against the real system."""

import warnings
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import openai
import pydantic
import pytest
from openai.types.conversations import Conversation, ConversationItem, ConversationItemList
from openai.types.responses import ResponseStreamEvent

from tests.openai_types import events_of, response_of, strictly
from tests.servers.mock_model import Behaviour
from tests.servers.system import System

pytestmark = pytest.mark.usefixtures("forgetful_model")

CONVERSATION_ITEM: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ConversationItem)
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


@pytest.fixture
def agent(parley_system: System) -> str:
    return str(parley_system.create_agent(f"agent-{uuid4().hex[:8]}")["id"])


@pytest.fixture
def client(parley_system: System) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{parley_system.http_url}/v1", api_key="none", timeout=60) as opened:
        yield opened


def test_a_response_is_read_as_it_was_made(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    made = client.responses.create(
        model=agent, input="Hi there", instructions="Be brief.", tools=[WEATHER], metadata={"a": "b"}, temperature=0.5
    )
    assert made.output_text == "echo:3:Hi there"
    sent = parley_system.model.prompts[-1]
    assert [message["content"] for message in sent] == ["You are a test.", "Be brief.", "Hi there"]
    read = client.responses.retrieve(made.id)
    response_of(read.model_dump(mode="json", exclude_unset=True, by_alias=True))
    assert read == made
    shown: Any = ["message.output_text.logprobs", "message.input_image.image_url"]
    assert client.responses.retrieve(made.id, include=shown) == made
    items = client.responses.input_items.list(made.id)
    assert [(item.type, item.role, item.content[0].text) for item in items] == [("message", "user", "Hi there")]
    assert made.conversation is not None
    with parley_system.client() as admin:
        stored = admin.get(f"/v1/sessions/{made.conversation.id}/messages").json()["data"]
    assert [message["content"] for message in stored] == ["Hi there", "echo:3:Hi there"]
    deleted = client.delete(f"/responses/{made.id}", cast_to=object)
    assert deleted == {"id": made.id, "object": "response", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_stream_is_parsed_and_stored(client: openai.OpenAI, agent: str) -> None:
    with client.responses.stream(model=agent, input="Hi there") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        made = stream.get_final_response()
    assert text == made.output_text == "echo:2:Hi there"
    assert client.responses.retrieve(made.id).output_text == text


def test_one_session_through_every_protocol(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    session = f"s-{uuid4().hex}"
    messages: Any = [{"role": "user", "content": "one"}]
    client.chat.completions.create(model=agent, messages=messages, extra_body={"session_id": session})
    second = client.responses.create(model=agent, input="two", conversation=session)
    assert second.output_text == "echo:4:two"
    assert second.conversation is not None
    assert second.conversation.id == session
    messages = [{"role": "user", "content": "three"}]
    third = client.chat.completions.create(model=agent, messages=messages, extra_body={"session_id": session})
    assert third.choices[0].message.content == "echo:6:three"


def test_functions_are_called_and_their_results_sent(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    call = ("call_1", "weather", '{"city":"Berlin"}')
    parley_system.model.script(Behaviour(text="", tool_calls=(call,), finish_reason="tool_calls"))
    first = client.responses.create(model=agent, input="How is it in Berlin?", tools=[WEATHER])
    [item] = first.output
    assert item.type == "function_call"
    assert (item.call_id, item.name, item.arguments) == call
    result: Any = {"type": "function_call_output", "call_id": item.call_id, "output": "wet"}
    parley_system.model.script(Behaviour(text="It is wet."))
    second = client.responses.create(model=agent, input=[result], previous_response_id=first.id, tools=[WEATHER])
    assert (second.output_text, second.previous_response_id) == ("It is wet.", first.id)
    roles = [message["role"] for message in parley_system.model.prompts[-1]]
    assert roles == ["system", "user", "assistant", "tool"]
    [brought] = client.responses.input_items.list(second.id)
    assert (brought.type, brought.call_id, brought.output) == ("function_call_output", "call_1", "wet")


def test_a_stateless_response_is_not_stored(client: openai.OpenAI, agent: str) -> None:
    made = client.responses.create(model=agent, input="Hi", store=False)
    assert made.conversation is None
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_busy_conversation_is_409_with_a_time(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    session = f"s-{uuid4().hex}"
    parley_system.model.script(Behaviour(text="one two three", hold_after_chunks=3))
    stream = client.responses.create(model=agent, input="one", conversation=session, stream=True)
    next(event for event in stream if event.type == "response.output_text.delta")
    with pytest.raises(openai.ConflictError) as refused:
        client.with_options(max_retries=0).responses.create(model=agent, input="two", conversation=session)
    assert refused.value.code == "session_busy"
    assert int(refused.value.response.headers["retry-after"]) >= 1
    parley_system.model.release()
    assert [event.type for event in stream][-1] == "response.completed"


def test_a_stream_on_the_wire(parley_system: System, agent: str) -> None:
    with parley_system.client() as http:
        answered = http.post("/v1/responses", json={"model": agent, "input": "Hi", "stream": True})
    events = events_of(answered.text)
    assert [events[0].type, events[1].type, events[-1].type] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]


def test_an_older_response_is_gone_on_from_in_a_conversation_of_its_own(
    parley_system: System, client: openai.OpenAI, agent: str
) -> None:
    first = client.responses.create(model=agent, input="one")
    second = client.responses.create(model=agent, input="two", previous_response_id=first.id)
    assert second.conversation == first.conversation
    other = client.responses.create(model=agent, input="three", previous_response_id=first.id)
    assert other.conversation != first.conversation
    assert [message["content"] for message in parley_system.model.prompts[-1]][1:] == ["one", "echo:2:one", "three"]
    third = client.responses.create(model=agent, input="four", previous_response_id=other.id)
    assert (third.conversation, third.output_text) == (other.conversation, "echo:6:four")
    assert client.responses.retrieve(second.id).output_text == "echo:4:two"
    elsewhere = str(parley_system.create_agent(f"agent-{uuid4().hex[:8]}")["id"])
    by_other = client.responses.create(model=elsewhere, input="five", previous_response_id=second.id)
    assert (by_other.output_text, by_other.conversation == second.conversation) == ("echo:6:five", False)
    with pytest.raises(openai.NotFoundError) as refused:
        client.responses.create(model=agent, input="x", previous_response_id="resp_nothing.nowhere")
    assert "resp_nothing.nowhere" in refused.value.message


def test_a_branch_copies_no_more_than_the_window(parley_system: System, client: openai.OpenAI) -> None:
    agent = str(parley_system.create_agent(f"agent-{uuid4().hex[:8]}", memory={"max_messages": 4})["id"])
    made = client.responses.create(model=agent, input="0")
    for number in range(1, 6):
        before, made = made, client.responses.create(model=agent, input=str(number), previous_response_id=made.id)
    branch = client.responses.create(model=agent, input="other", previous_response_id=before.id)
    assert branch.conversation is not None
    with parley_system.client() as admin:
        stored = admin.get(f"/v1/sessions/{branch.conversation.id}/messages").json()["data"]
    assert [message["content"] for message in stored if message["role"] == "user"] == ["3", "4", "other"]


def test_who_said_what_is_read_back(client: openai.OpenAI, agent: str) -> None:
    said: Any = [{"role": role, "content": role} for role in ("developer", "system", "user", "developer")]
    made = client.responses.create(model=agent, input=said)
    items = list(client.responses.input_items.list(made.id, order="asc"))
    assert [(item.role, item.content[0].text) for item in items] == [(one["role"], one["content"]) for one in said]


def test_a_conversation_is_made_shorter(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    first = client.responses.create(model=agent, input="I am Ann.")
    second = client.responses.create(model=agent, input="I am old.", previous_response_id=first.id)
    client.responses.create(model=agent, input="Not this.", previous_response_id=second.id)
    parley_system.model.script(Behaviour(text="Ann is old."))
    compacted = client.responses.compact(model=agent, previous_response_id=second.id)
    asked = str(parley_system.model.prompts[-1][-1]["content"])
    assert "user: I am Ann.\nassistant: echo:2:I am Ann.\nuser: I am old." in asked
    assert "Not this" not in asked
    assert [item.type for item in compacted.output] == ["message", "message", "compaction"]
    with warnings.catch_warnings(action="ignore"):  # the client has no type for users' messages among what is answered
        kept: Any = [*compacted.output, {"role": "user", "content": "Who am I?"}]
        client.responses.create(model=agent, input=kept)
    said = [message["content"] for message in parley_system.model.prompts[-1]]
    texts = [one if isinstance(one, str) else one[0]["text"] for one in said]
    assert texts[1:] == ["I am Ann.", "I am old.", "Summary of the conversation so far:\n\nAnn is old.", "Who am I?"]
    with pytest.raises(openai.NotFoundError):
        client.responses.compact(model=agent, previous_response_id="resp_nothing.nowhere")


def test_conversations(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    said: Any = [{"role": "user", "content": "I am Ann."}, {"role": "assistant", "content": "Hello Ann."}]
    made = client.conversations.create(metadata={"a": "b"}, items=said)
    strictly(Conversation, made.model_dump(mode="json"))
    assert made.id.startswith("conv_")
    answered = client.responses.create(model=agent, input="Who am I?", conversation=made.id)
    assert [message["content"] for message in parley_system.model.prompts[-1]][1:] == [
        "I am Ann.",
        "Hello Ann.",
        "Who am I?",
    ]
    added = client.conversations.items.create(made.id, items=[{"role": "user", "content": "By the way."}])
    strictly(ConversationItemList, added.model_dump(mode="json", exclude_unset=True))
    items = list(client.conversations.items.list(made.id, order="asc", limit=2))
    for item in items:
        strictly(CONVERSATION_ITEM, item.model_dump(mode="json", exclude_unset=True))
    texts = [item.content[0].text for item in items]
    assert texts == ["I am Ann.", "Hello Ann.", "Who am I?", answered.output_text, "By the way."]
    assert [item.id for item in client.conversations.items.list(made.id)] == [item.id for item in reversed(items)]
    assert items[3].id == answered.output[0].id
    for item in items:
        assert client.conversations.items.retrieve(item.id, conversation_id=made.id) == item
    with pytest.raises(openai.BadRequestError) as refused:
        client.conversations.items.delete(items[0].id, conversation_id=made.id)
    assert refused.value.code == "turn_not_last"
    said = [{"role": "system", "content": "S"}, {"role": "developer", "content": "D"}, {"role": "user", "content": "U"}]
    added = client.conversations.items.create(made.id, items=said)
    assert [item.role for item in added.data] == ["system", "developer", "user"]
    listed = client.conversations.items.list(made.id, limit=3, order="desc")
    assert [item.role for item in listed.data] == ["user", "developer", "system"]
    changed = client.conversations.update(made.id, metadata={"c": "d"})
    assert client.conversations.retrieve(made.id) == changed
    assert changed.metadata == {"c": "d"}
    after = client.responses.create(model=agent, input="Bye", conversation={"id": made.id})
    assert after.output_text == "echo:10:Bye"
    with parley_system.client() as admin:
        assert admin.get(f"/v1/sessions/{made.id}").json()["agent_id"] == agent
        assert made.id in [one["id"] for one in admin.get("/v1/sessions", params={"agent_id": agent}).json()["data"]]
        completions = admin.get("/v1/chat/completions", params={"model": agent})
        assert completions.status_code == 200, completions.text
    assert client.conversations.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=agent, input="Hi", conversation=made.id)


def test_a_stream_is_read_again_with_the_same_numbers(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    parley_system.model.script(Behaviour(text="one two three four"))
    asked: Any = {"resumable": True}
    made = list(client.responses.create(model=agent, input="Hi", stream=True, instructions="x", extra_body=asked))
    response_id = made[0].response.id
    assert list(client.responses.retrieve(response_id, stream=True)) == made
    assert list(client.responses.retrieve(response_id, stream=True, starting_after=3)) == made[4:]
    plain = client.responses.create(model=agent, input="Hi")
    [end] = client.responses.retrieve(plain.id, stream=True, starting_after=3)
    assert (end.type, end.sequence_number, end.response) == ("response.completed", 4, plain)
    again = list(client.responses.retrieve(plain.id, stream=True))
    assert "".join(event.delta for event in again if event.type == "response.output_text.delta") == plain.output_text


def test_a_background_response(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    parley_system.model.script(Behaviour(text="one two three", hold_after_chunks=3))
    made = client.responses.create(model=agent, input="Hi", background=True, instructions="x")
    assert (made.status, made.background, made.instructions) == ("queued", True, "x")
    parley_system.model.wait_for_requests(1)
    responses = client.with_options(max_retries=0).responses
    for refused_now in (
        lambda: responses.create(model=agent, input="x", previous_response_id=made.id),
        lambda: responses.delete(made.id),
    ):
        with pytest.raises(openai.ConflictError) as refused:
            refused_now()
        assert (refused.value.code, refused.value.response.headers["retry-after"]) == ("session_busy", "1")
    running = client.responses.retrieve(made.id)
    assert (running.status, running.instructions) == ("in_progress", "x")
    asked = list(client.responses.input_items.list(made.id))
    assert [(item.type, item.content[0].text) for item in asked] == [("message", "Hi")]
    parley_system.model.release()
    events = list(client.responses.retrieve(made.id, stream=True))
    for event in events:
        strictly(pydantic.TypeAdapter(ResponseStreamEvent), event.model_dump(mode="json", exclude_unset=True))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert (kinds[-1], events[-1].response.output_text) == ("response.completed", "one two three")
    assert client.responses.retrieve(made.id) == events[-1].response
    assert list(client.responses.input_items.list(made.id)) == asked
    assert list(client.responses.retrieve(made.id, stream=True, starting_after=4)) == events[5:]


def test_a_background_stream_and_its_cancellation(parley_system: System, client: openai.OpenAI, agent: str) -> None:
    parley_system.model.script(Behaviour(text="one two three", hold_after_chunks=3))
    stream = client.responses.create(model=agent, input="Hi", background=True, stream=True)
    created = next(iter(stream))
    parley_system.model.wait_for_requests(1)
    cancelled = client.responses.cancel(created.response.id)
    assert cancelled.status == "cancelled"
    end = list(stream)[-1]
    assert (end.type, end.response.status) == ("response.failed", "cancelled")
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=agent, input="x", previous_response_id=created.response.id)
    assert client.responses.retrieve(created.response.id).status == "cancelled"
