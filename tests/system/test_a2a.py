"""Agents as A2A has them, by the protocol's own client, over its three bindings."""

from typing import Any
from unittest.mock import ANY
from uuid import uuid4

import pytest
from a2a.types import a2a_pb2 as pb
from a2a.utils import errors
from google.protobuf.json_format import MessageToDict

from tests.servers.a2a import (
    BINDINGS,
    answer_of,
    client_of,
    data,
    events_of,
    made,
    message,
    states,
    streamed,
    task_of,
    wanted,
)
from tests.servers.mock_model import Behaviour
from tests.servers.system import System

pytestmark = pytest.mark.usefixtures("forgetful_model")

TEXT = "one two three four"


@pytest.fixture(params=BINDINGS)
def binding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_message_is_a_turn_of_a_session(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    async with client_of(parley_system, agent, binding) as client:
        task = await task_of(client, message("hello"))
        again = await client.get_task(pb.GetTaskRequest(id=task.id))
        next_one = await task_of(client, message("more", context_id=task.context_id))
    assert task.status.state == pb.TASK_STATE_COMPLETED
    assert answer_of(task) == answer_of(again) == "echo:2:hello"
    assert [part.text for one in again.history for part in one.parts] == ["hello"]
    assert task.history[0].parts == again.history[0].parts
    assert answer_of(next_one) == "echo:4:more"
    assert next_one.context_id == task.context_id
    assert next_one.id != task.id
    with parley_system.client() as http:
        stored = http.get(f"/v1/sessions/{task.context_id}/messages").json()["data"]
    assert [one["content"] for one in stored] == ["hello", "echo:2:hello", "more", "echo:4:more"]


async def test_a_stream_begins_with_the_task_and_ends_with_its_state(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    parley_system.model.script(Behaviour(text=TEXT))
    async with client_of(parley_system, agent, binding, streaming=True) as client:
        events = await events_of(client, message("hello", context_id=f"c:{uuid4().hex}"))
        task = await client.get_task(pb.GetTaskRequest(id=events[0].task.id))
    assert events[0].task.status.state == pb.TASK_STATE_WORKING
    assert streamed(events) == TEXT == answer_of(task)
    assert states(events) == [pb.TASK_STATE_COMPLETED]
    assert events[-1].HasField("status_update")


async def test_a_model_that_fails_is_a_failed_task(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    async with client_of(parley_system, agent, binding, streaming=True) as client:
        parley_system.model.script(Behaviour(text=TEXT, chunks_before_cut=3))
        events = await events_of(client, message("hello"))
        assert states(events) == [pb.TASK_STATE_FAILED]
        task = await client.get_task(pb.GetTaskRequest(id=events[0].task.id))
        assert task.status.state == pb.TASK_STATE_FAILED
        with pytest.raises(errors.UnsupportedOperationError):
            _ = [event async for event in client.subscribe(pb.SubscribeToTaskRequest(id=task.id))]
    async with client_of(parley_system, agent, binding) as client:
        parley_system.model.script(Behaviour(text=TEXT, chunks_before_cut=3))
        task = await task_of(client, message("hello"))
        assert task.status.state == pb.TASK_STATE_FAILED
        assert task.status.message.parts


async def test_a_task_is_returned_at_once_and_watched_from_another_gateway(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    parley_system.model.script(Behaviour(text=TEXT, hold_after_chunks=2))
    at_once = pb.SendMessageConfiguration(return_immediately=True)
    last = len(parley_system.gateways) - 1
    async with (
        client_of(parley_system, agent, binding) as client,
        client_of(parley_system, agent, binding, gateway=last, streaming=True) as other,
    ):
        task = await task_of(client, message("hello", configuration=at_once))
        assert task.status.state in (pb.TASK_STATE_SUBMITTED, pb.TASK_STATE_WORKING)
        assert [part.text for part in task.history[0].parts] == ["hello"]
        await parley_system.model.received(1)
        running = await other.get_task(pb.GetTaskRequest(id=task.id))
        assert running.status.state == pb.TASK_STATE_WORKING
        watched = []
        async for event in other.subscribe(pb.SubscribeToTaskRequest(id=task.id)):
            watched.append(event)
            if len(watched) == 2:
                parley_system.model.release()
        assert watched[0].task.status.state == pb.TASK_STATE_WORKING
        assert streamed(watched) == TEXT
        assert states(watched) == [pb.TASK_STATE_COMPLETED]
        done = await other.get_task(pb.GetTaskRequest(id=task.id))
        assert answer_of(done) == TEXT
        with pytest.raises(errors.UnsupportedOperationError):
            _ = [event async for event in other.subscribe(pb.SubscribeToTaskRequest(id=task.id))]


async def test_a_task_is_cancelled_from_another_gateway(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    parley_system.model.script(Behaviour(text=TEXT, hold_after_chunks=2))
    at_once = pb.SendMessageConfiguration(return_immediately=True)
    last = len(parley_system.gateways) - 1
    async with (
        client_of(parley_system, agent, binding) as client,
        client_of(parley_system, agent, binding, gateway=last) as other,
    ):
        task = await task_of(client, message("hello", configuration=at_once))
        await parley_system.model.received(1)
        ended = await other.cancel_task(pb.CancelTaskRequest(id=task.id))
        assert (ended.id, ended.status.state) == (task.id, pb.TASK_STATE_CANCELED)
        parley_system.model.release()
        read = await client.get_task(pb.GetTaskRequest(id=task.id))
        assert read.status.state == pb.TASK_STATE_CANCELED
        done = await task_of(client, message("hello"))
        for named in (task.id, done.id):
            with pytest.raises(errors.TaskNotCancelableError):
                await client.cancel_task(pb.CancelTaskRequest(id=named))
        with pytest.raises(errors.TaskNotFoundError):
            await client.cancel_task(pb.CancelTaskRequest(id="nothing.here"))


async def test_a_task_waits_for_the_callers_tools(parley_system: System, binding: str) -> None:
    tools = [{"client": {"name": "weather", "parameters": {"type": "object"}}}]
    agent = made(parley_system, tools=tools)
    called = Behaviour(text="", tool_calls=(("c1", "weather", '{"city":"Rome"}'),), finish_reason="tool_calls")
    parley_system.model.script(called, called, Behaviour(text="Sunny."), Behaviour(text="Rain."))
    async with client_of(parley_system, agent, binding) as client:
        task = await task_of(client, message("weather?"))
        assert task.status.state == pb.TASK_STATE_INPUT_REQUIRED
        assert wanted(task) == {"tool_calls": [{"id": "c1", "name": "weather", "arguments": '{"city":"Rome"}'}]}
        # The same call again: what waits twice is one task.
        results = data(tool_results=[{"id": "c1", "content": {"unknown": True}}])
        again = await task_of(client, message(task_id=task.id, parts=[results]))
        assert (again.id, again.status.state) == (task.id, pb.TASK_STATE_INPUT_REQUIRED)
        assert (await client.get_task(pb.GetTaskRequest(id=task.id))).status.state == pb.TASK_STATE_INPUT_REQUIRED
        done = await task_of(client, message("20 degrees", task_id=task.id, context_id=task.context_id))
        assert (done.id, answer_of(done)) == (task.id, "Sunny.")
        read = await client.get_task(pb.GetTaskRequest(id=task.id))
        assert answer_of(read) == "Sunny."
        assert len(read.history) == 5
        listed = await client.list_tasks(pb.ListTasksRequest(context_id=task.context_id))
        assert [one.id for one in listed.tasks] == [task.id]
        for ended in (task.id, "nothing"):
            with pytest.raises((errors.UnsupportedOperationError, errors.TaskNotFoundError)):
                await task_of(client, message("more", task_id=ended))


async def test_a_task_waits_for_an_approval(parley_system: System, binding: str) -> None:
    helper = made(parley_system)
    ask = {"agent_id": helper, "name": "expert", "description": "Knows.", "approval": "always"}
    agent = made(parley_system, tools=[{"agent": ask}])
    called = Behaviour(text="", tool_calls=(("c1", "expert", '{"message":"why?"}'),), finish_reason="tool_calls")
    async with client_of(parley_system, agent, binding) as client:
        parley_system.model.script(called, Behaviour(text="Because."), Behaviour(text="It is so."))
        task = await task_of(client, message("why?"))
        assert task.status.state == pb.TASK_STATE_INPUT_REQUIRED
        assert [one["name"] for one in wanted(task)["requires_approval"]] == ["expert"]
        with pytest.raises(Exception, match="approvals"):
            await task_of(client, message("yes", task_id=task.id))
        approvals = data(approvals=[{"id": "c1", "approve": True}])
        done = await task_of(client, message(task_id=task.id, parts=[approvals]))
        assert (done.id, answer_of(done)) == (task.id, "It is so.")
        # A session that goes on without an answer has left its task.
        parley_system.model.script(called, Behaviour(text="Other."))
        left = await task_of(client, message("why?"))
        await task_of(client, message("never mind", context_id=left.context_id))
        gone = await client.get_task(pb.GetTaskRequest(id=left.id))
        assert gone.status.state == pb.TASK_STATE_CANCELED


async def test_a_task_that_waits_is_cancelled(parley_system: System, binding: str) -> None:
    helper = made(parley_system)
    ask = {"agent_id": helper, "name": "expert", "description": "Knows.", "approval": "always"}
    agent = made(parley_system, tools=[{"agent": ask}, {"client": {"name": "weather"}}])
    last = len(parley_system.gateways) - 1
    async with (
        client_of(parley_system, agent, binding) as client,
        client_of(parley_system, agent, binding, gateway=last, streaming=True) as other,
    ):
        for tool, arguments in (("expert", '{"message":"why?"}'), ("weather", "{}")):
            called = Behaviour(text="", tool_calls=(("c1", tool, arguments),), finish_reason="tool_calls")
            parley_system.model.script(called, Behaviour(text="Well."))
            task = await task_of(client, message("why?"))
            assert task.status.state == pb.TASK_STATE_INPUT_REQUIRED
            ended = await other.cancel_task(pb.CancelTaskRequest(id=task.id))
            assert (ended.id, ended.status.state) == (task.id, pb.TASK_STATE_CANCELED)
            with pytest.raises(errors.TaskNotCancelableError):
                await client.cancel_task(pb.CancelTaskRequest(id=task.id))
            approvals = data(approvals=[{"id": "c1", "approve": True}])
            with pytest.raises(errors.UnsupportedOperationError):
                await task_of(client, message(task_id=task.id, parts=[approvals]))
            with pytest.raises(errors.UnsupportedOperationError):
                _ = [event async for event in other.subscribe(pb.SubscribeToTaskRequest(id=task.id))]
            listed = await other.list_tasks(pb.ListTasksRequest(context_id=task.context_id))
            assert [one.status.state for one in listed.tasks] == [pb.TASK_STATE_CANCELED]
            with parley_system.client() as http:
                body = {"model": agent, "session_id": task.context_id}
                approved = {**body, "approvals": [{"tool_call_id": "c1", "approve": True}]}
                assert http.post("/v1/chat/completions", json=approved).status_code == 400
            # The context goes on, without the calls, and the task stays as it was.
            done = await task_of(client, message("never mind", context_id=task.context_id))
            assert answer_of(done) == "Well."
            read = await client.get_task(pb.GetTaskRequest(id=task.id))
            assert read.status.state == pb.TASK_STATE_CANCELED


async def test_tools_of_the_gateway_show_in_the_stream(parley_system: System, binding: str) -> None:
    helper = made(parley_system)
    agent = made(parley_system, tools=[{"agent": {"agent_id": helper, "name": "expert", "description": "Knows."}}])
    called = Behaviour(text="", tool_calls=(("c1", "expert", '{"message":"why?"}'),), finish_reason="tool_calls")
    parley_system.model.script(called, Behaviour(text="Because."), Behaviour(text="It is so."))
    async with client_of(parley_system, agent, binding, streaming=True) as client:
        events = await events_of(client, message("why?"))
    shown = [MessageToDict(event.status_update.metadata) for event in events if event.HasField("status_update")]
    assert "tool_call_started" in shown[0]["parley"]
    assert shown[1]["parley"]["tool_call_finished"]["outcome"] == "ok"
    assert streamed(events) == "It is so."


async def test_lists_are_in_pages_and_filtered(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    context = f"c-{uuid4().hex}"
    async with client_of(parley_system, agent, binding) as client:
        ids = [(await task_of(client, message(str(number), context_id=context))).id for number in range(3)]
        other = (await task_of(client, message("other"))).id
        whole = await client.list_tasks(pb.ListTasksRequest(include_artifacts=True, history_length=0))
        assert [task.id for task in whole.tasks] == [other, *reversed(ids)]
        assert [answer_of(task) for task in whole.tasks][-1] == "echo:2:0"
        assert not any(task.history for task in whole.tasks)
        first = await client.list_tasks(pb.ListTasksRequest(context_id=context, page_size=2))
        assert [task.id for task in first.tasks] == [ids[2], ids[1]]
        assert not any(task.artifacts for task in first.tasks)
        second = await client.list_tasks(
            pb.ListTasksRequest(context_id=context, page_size=2, page_token=first.next_page_token)
        )
        assert ([task.id for task in second.tasks], second.next_page_token) == ([ids[0]], "")
        since = first.tasks[0].status.timestamp
        later = await client.list_tasks(pb.ListTasksRequest(context_id=context, status_timestamp_after=since))
        assert [task.id for task in later.tasks] == [ids[2]]
        none = await client.list_tasks(pb.ListTasksRequest(status=pb.TASK_STATE_FAILED))
        assert not none.tasks
        with pytest.raises(Exception, match="page_size"):
            await client.list_tasks(pb.ListTasksRequest(page_size=101))


async def test_what_the_protocol_refuses(parley_system: System, binding: str) -> None:
    agent, stranger = made(parley_system), made(parley_system)
    async with (
        client_of(parley_system, agent, binding) as client,
        client_of(parley_system, stranger, binding) as other,
    ):
        task = await task_of(client, message("hello"))
        for missing in ("nothing", "a.b", task.id + "x"):
            with pytest.raises(errors.TaskNotFoundError):
                await client.get_task(pb.GetTaskRequest(id=missing))
            with pytest.raises(errors.TaskNotFoundError):
                await task_of(client, message("hi", task_id=missing))
        with pytest.raises(errors.TaskNotFoundError):
            await other.get_task(pb.GetTaskRequest(id=task.id))
        with pytest.raises(errors.UnsupportedOperationError):
            await task_of(client, message("more", task_id=task.id))
        with pytest.raises(Exception, match="context_id"):
            await task_of(client, message("more", task_id=task.id, context_id="other"))
        with pytest.raises(errors.ContentTypeNotSupportedError):
            await task_of(client, message(parts=[pb.Part(raw=b"tck", media_type="application/x-unsupported")]))
        only_images = pb.SendMessageConfiguration(accepted_output_modes=["image/png"])
        with pytest.raises(errors.ContentTypeNotSupportedError):
            await task_of(client, message("hi", configuration=only_images))
        with pytest.raises(Exception, match="role"):
            await task_of(client, pb.SendMessageRequest(message=pb.Message(message_id="m", parts=[pb.Part(text="x")])))


async def test_a_message_that_is_sent_again_has_the_first_outcome(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    request = message("hello", context_id=f"c-{uuid4().hex}")
    async with client_of(parley_system, agent, binding) as client:
        first, again = await task_of(client, request), await task_of(client, request)
    assert (first.id, answer_of(first)) == (again.id, answer_of(again))
    assert len(parley_system.model.requests) == 1


def test_a_message_id_names_one_message(parley_system: System) -> None:
    agent, said = made(parley_system), {"messageId": "m1", "contextId": uuid4().hex, "role": "ROLE_USER"}
    with parley_system.client() as http:

        def send(text: str) -> Any:
            params = {"message": {**said, "parts": [{"text": text}]}}
            document = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
            return http.post(f"/a2a/{agent}", json=document, headers={"A2A-Version": "1.0"}).json()

        assert send("one")["result"]["task"] == {**send("one")["result"]["task"], "status": ANY}
        error = send("two")["error"]
    assert (error["code"], error["data"][0]["reason"]) == (-32602, "IDEMPOTENCY_KEY_REUSED")
    assert "message id 'm1'" in error["message"]


def test_what_is_no_message_of_the_protocol_is_named(parley_system: System) -> None:
    agent = made(parley_system)
    part = {"text": "x", "kind": "text"}
    params = {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [part]}}
    document = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
    with parley_system.client() as http:
        by_rpc = http.post(f"/a2a/{agent}", json=document, headers={"A2A-Version": "1.0"}).json()["error"]
        by_rest = http.post(f"/a2a/{agent}/message:send", json=params, headers={"A2A-Version": "1.0"}).json()["error"]
    assert by_rpc["code"] == -32602
    for error in (by_rpc, by_rest):
        assert '"kind"' in error["message"]


def test_the_card_says_what_the_agent_is(parley_system: System) -> None:
    labels = {"a2a.description": "Answers.", "a2a.skill/refunds": "Handles refunds."}
    agent = made(parley_system, name="Support", labels=labels)
    path = f"/a2a/{agent}/.well-known/agent-card.json"
    with parley_system.client() as client:
        answer = client.get(path)
        card = answer.json()
        assert (card["name"], card["description"], card["version"]) == ("Support", "Answers.", "1")
        assert [skill["id"] for skill in card["skills"]] == ["chat", "refunds"]
        assert {one["protocolBinding"] for one in card["supportedInterfaces"]} == {"JSONRPC", "HTTP+JSON"}
        assert all(one["url"] == f"{parley_system.http_url}/a2a/{agent}" for one in card["supportedInterfaces"])
        assert "max-age" in answer.headers["cache-control"]
        assert client.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
        assert client.get("/a2a/nobody/.well-known/agent-card.json").status_code == 404
        assert client.post(path).status_code == 405


def test_json_rpc_and_rest_refuse_in_their_own_words(parley_system: System) -> None:
    agent = made(parley_system)
    version = {"A2A-Version": "1.0"}
    sent: list[tuple[Any, dict[str, str], int]] = [
        (b"{", version, -32700),
        ([], version, -32600),
        ({"jsonrpc": "1.0", "id": 1, "method": "GetTask"}, version, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "message/send"}, version, -32601),
        ({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": []}, version, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"idd": "x"}}, version, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x", "tenant": "y"}}, version, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}, version, -32001),
        ({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}, {}, -32009),
        ({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}, {"A2A-Version": "9.9"}, -32009),
    ]
    with parley_system.client() as client:
        for body, headers, code in sent:
            given = {"content": body} if isinstance(body, bytes) else {"json": body}
            answer = client.post(f"/a2a/{agent}", headers=headers, **given)
            assert (answer.status_code, answer.json()["error"]["code"]) == (200, code), body
            assert answer.json()["id"] == (body["id"] if isinstance(body, dict) else None)
        missing = client.get(f"/a2a/{agent}/tasks/x", headers=version)
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/a2a+json")
        error = missing.json()["error"]
        assert (error["code"], error["status"]) == (404, "NOT_FOUND")
        assert error["details"][0]["reason"] == "TASK_NOT_FOUND"
        assert error["details"][0]["domain"] == "a2a-protocol.org"
        assert client.get(f"/a2a/{agent}/tasks?pageSize=2&A2A-Version=1.0").json()["nextPageToken"] == ""
        for path, status in (("/tasks?page_size=2", 400), ("/nothing", 404), ("/message:send", 405)):
            assert client.get(f"/a2a/{agent}{path}", headers=version).status_code == status


async def test_images_are_parts_of_the_turn(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    picture = b"\x89PNG\r\n\x1a\n" + bytes(96 * 1024)
    parts = [pb.Part(text="what is it?"), pb.Part(raw=picture, media_type="image/png"), data(size=3)]
    async with client_of(parley_system, agent, binding) as client:
        task = await task_of(client, message(parts=parts))
    assert task.status.state == pb.TASK_STATE_COMPLETED
    asked = parley_system.model.prompts[0][-1]["content"]
    assert [part["type"] for part in asked] == ["text", "image_url", "text"]
    assert asked[1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert asked[2]["text"] == '{"size":3}'
