"""What the A2A specification and its compatibility kit ask for beside the ordinary course, over the three bindings."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import grpc
import pytest
from a2a.types import a2a_pb2 as pb
from a2a.types import a2a_pb2_grpc
from a2a.utils import errors
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.servers.a2a import BINDINGS, answer_of, client_of, events_of, made, message, states, streamed, task_of
from tests.servers.mock_model import Behaviour
from tests.servers.system import System

pytestmark = pytest.mark.usefixtures("forgetful_model")

TEXT = "one two three four"
AT_ONCE = pb.SendMessageConfiguration(return_immediately=True)
VERSION = {"A2A-Version": "1.0"}


@pytest.fixture(params=BINDINGS)
def binding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_every_stream_of_a_task_has_the_same_events(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    parley_system.model.script(Behaviour(text=TEXT, hold_after_chunks=2))
    last = len(parley_system.gateways) - 1
    async with (
        client_of(parley_system, agent, binding, streaming=True) as one,
        client_of(parley_system, agent, binding, gateway=last, streaming=True) as other,
        client_of(parley_system, agent, binding) as client,
    ):
        task = await task_of(client, message("hello", configuration=AT_ONCE))
        await parley_system.model.received(1)
        begun = [asyncio.Event() for _ in range(3)]

        async def watch(number: int, *, leave: bool = False) -> list[pb.StreamResponse]:
            seen = []
            async for event in (one, other, other)[number].subscribe(pb.SubscribeToTaskRequest(id=task.id)):
                seen.append(event)
                begun[number].set()
                if leave:
                    break
            return seen

        watches = [asyncio.create_task(watch(number, leave=number == 2)) for number in range(3)]
        async with asyncio.timeout(60):
            for event in begun:
                await event.wait()
        parley_system.model.release()
        first, second, left = await asyncio.gather(*watches)
    assert len(left) == 1
    assert first[0].task.id == second[0].task.id == task.id
    assert streamed(first) == streamed(second) == TEXT
    assert states(first) == states(second) == [pb.TASK_STATE_COMPLETED]


async def test_a_stream_of_a_task_that_is_not_there(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    async with client_of(parley_system, agent, binding, streaming=True) as client:
        for missing in ("nothing", "a.b", "", "a/b"):
            with pytest.raises((errors.TaskNotFoundError, errors.InvalidParamsError, errors.MethodNotFoundError)):
                _ = [event async for event in client.subscribe(pb.SubscribeToTaskRequest(id=missing))]


async def test_what_is_another_users_is_not_there(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    ann, bob = {"X-User-ID": f"ann-{uuid4().hex}"}, {"X-User-ID": f"bob-{uuid4().hex}"}
    parley_system.model.script(Behaviour(), Behaviour(text=TEXT, hold_after_chunks=2))
    async with (
        client_of(parley_system, agent, binding, **ann) as anns,
        client_of(parley_system, agent, binding, streaming=True, **bob) as bobs,
    ):
        done = await task_of(anns, message("hello"))
        task = await task_of(anns, message("more", configuration=AT_ONCE))
        await parley_system.model.received(2)
        for named in (done.id, task.id):
            with pytest.raises(errors.TaskNotFoundError):
                await bobs.get_task(pb.GetTaskRequest(id=named))
            with pytest.raises(errors.TaskNotFoundError):
                await bobs.cancel_task(pb.CancelTaskRequest(id=named))
            with pytest.raises(errors.TaskNotFoundError):
                _ = [event async for event in bobs.subscribe(pb.SubscribeToTaskRequest(id=named))]
            with pytest.raises(errors.TaskNotFoundError):
                await events_of(bobs, message("mine?", task_id=named))
        assert not (await bobs.list_tasks(pb.ListTasksRequest())).tasks
        assert not (await bobs.list_tasks(pb.ListTasksRequest(context_id=done.context_id))).tasks
        assert [one.id for one in (await anns.list_tasks(pb.ListTasksRequest())).tasks] == [done.id]
        with pytest.raises(Exception, match=r"user|session|not found"):
            await events_of(bobs, message("mine?", context_id=done.context_id))
        parley_system.model.release()


async def test_a_context_is_kept_named_or_refused(parley_system: System, binding: str) -> None:
    agent, stranger = made(parley_system), made(parley_system)
    context = f"ctx-{uuid4().hex}"
    async with (
        client_of(parley_system, agent, binding) as client,
        client_of(parley_system, stranger, binding) as other,
    ):
        first = await task_of(client, message("a", context_id=context))
        second = await task_of(client, message("b", context_id=context))
        unnamed = [await task_of(client, message("c")) for _ in range(2)]
        assert first.context_id == second.context_id == context
        assert first.id != second.id
        assert len({one.context_id for one in unnamed} | {context, ""}) == 4
        with pytest.raises(Exception, match="agent"):
            await task_of(other, message("d", context_id=context))
        with pytest.raises(errors.InvalidParamsError, match="context_id"):
            await task_of(client, message("d", context_id="a/b c"))


async def test_history_is_as_long_as_it_is_asked_for(parley_system: System, binding: str) -> None:
    tools = [{"client": {"name": "weather", "parameters": {"type": "object"}}}]
    agent = made(parley_system, tools=tools)
    called = Behaviour(text="", tool_calls=(("c1", "weather", "{}"),), finish_reason="tool_calls")
    parley_system.model.script(called, Behaviour(text="Sunny."), Behaviour(), Behaviour())
    async with client_of(parley_system, agent, binding) as client:
        task = await task_of(client, message("weather?"))
        await task_of(client, message("20 degrees", task_id=task.id))
        whole = (await client.get_task(pb.GetTaskRequest(id=task.id))).history
        assert len(whole) > 2
        for length in (0, 1, 2, 100):
            read = await client.get_task(pb.GetTaskRequest(id=task.id, history_length=length))
            assert list(read.history) == list(whole)[len(whole) - min(length, len(whole)) :]
            listed = await client.list_tasks(pb.ListTasksRequest(history_length=length))
            assert len(listed.tasks[0].history) == min(length, len(whole))
        none = pb.SendMessageConfiguration(history_length=0)
        assert not (await task_of(client, message("x", configuration=none))).history
        with pytest.raises(errors.InvalidParamsError, match="history_length"):
            await client.get_task(pb.GetTaskRequest(id=task.id, history_length=-1))


async def test_no_extended_card_where_nobody_is_authenticated(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    version = pb.GetExtendedAgentCardRequest()
    if binding == "GRPC":
        async with grpc.aio.insecure_channel(parley_system.grpc_target) as channel:
            stub = a2a_pb2_grpc.A2AServiceStub(channel)
            version.tenant = agent
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.GetExtendedAgentCard(version, metadata=(("a2a-version", "1.0"),))
            assert reason_of(raised.value) == ("UNSUPPORTED_OPERATION", "a2a-protocol.org")
        return
    with parley_system.client() as http:
        body = {"jsonrpc": "2.0", "id": 1, "method": "GetExtendedAgentCard"}
        if binding == "JSONRPC":
            answer = http.post(f"/a2a/{agent}", json=body, headers=VERSION).json()
            assert answer["error"]["code"] == -32004
        else:
            assert http.get(f"/a2a/{agent}/extendedAgentCard", headers=VERSION).status_code == 400
        card = http.get(f"/a2a/{agent}/.well-known/agent-card.json").json()
    assert not card["capabilities"]["extendedAgentCard"]
    assert card["capabilities"]["pushNotifications"]
    assert card["capabilities"]["streaming"]


async def test_the_extended_card_names_tools(guarded_system: System, binding: str) -> None:
    plain = made(guarded_system)
    agent = made(guarded_system, tools=[{"client": {"name": "weather", "description": "Says the weather."}}])
    async with client_of(guarded_system, agent, binding) as client:
        card = await client.get_extended_agent_card(pb.GetExtendedAgentCardRequest())
    assert "tool-weather" in [skill.id for skill in card.skills]
    assert card.security_requirements
    assert card.security_schemes["bearer"].http_auth_security_scheme.scheme == "Bearer"
    with guarded_system.client() as http:
        # Without tools the card says that there is no other.
        body = {"jsonrpc": "2.0", "id": 1, "method": "GetExtendedAgentCard"}
        assert http.post(f"/a2a/{plain}", json=body, headers=VERSION).json()["error"]["code"] == -32004


def test_an_id_that_every_event_would_repeat_is_bounded(parley_system: System) -> None:
    agent = made(parley_system)
    with parley_system.client() as http:
        for given, kept in (("x" * 256, "x" * 256), (12, 12), ("x" * 257, None), (10**300, None)):
            body = {"jsonrpc": "2.0", "id": given, "method": "GetExtendedAgentCard"}
            answer = http.post(f"/a2a/{agent}", json=body, headers=VERSION).json()
            assert (answer["id"], answer["error"]["code"]) == (kept, -32600 if kept is None else -32004)


def reason_of(error: Any) -> tuple[str, str]:
    """Return reason and domain of the first detail of an error of gRPC."""
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    assert status is not None
    assert status.details[0].Unpack(info)
    return info.reason, info.domain


async def test_grpc_says_errors_as_the_protocol_does(parley_system: System) -> None:
    agent = made(parley_system)
    async with grpc.aio.insecure_channel(parley_system.grpc_target) as channel:
        stub = a2a_pb2_grpc.A2AServiceStub(channel)
        asked = pb.GetTaskRequest(tenant=agent, id="nothing")
        expected = {
            (("a2a-version", "1.0"),): (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND"),
            (("a2a-version", "1.0.7"),): (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND"),
            (("a2a-version", "2.0"),): (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_NOT_SUPPORTED"),
            (("a2a-version", ""),): (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_NOT_SUPPORTED"),
            (): (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_NOT_SUPPORTED"),
        }
        for metadata, (code, reason) in expected.items():
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.GetTask(asked, metadata=metadata)
            assert raised.value.code() is code
            assert reason_of(raised.value) == (reason, "a2a-protocol.org")


async def test_a_tenant_never_names_a_project(parley_system: System) -> None:
    """Whatever is given for it is an agent of the caller's project, or nothing."""
    agent = made(parley_system)
    async with grpc.aio.insecure_channel(parley_system.grpc_target) as channel:
        stub = a2a_pb2_grpc.A2AServiceStub(channel)
        version = (("a2a-version", "1.0"),)
        request = message("hello")
        for tenant in (f"default/{agent}", f"other/{agent}", f"projects/default/{agent}", "default", "*", "../x"):
            request.tenant = tenant
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.SendMessage(request, metadata=version)
            assert raised.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
        request.tenant = agent
        answer = await stub.SendMessage(request, metadata=version)
        assert answer.task.status.state == pb.TASK_STATE_COMPLETED
        # The task's id says enough, and another agent's tenant finds nothing.
        assert (await stub.GetTask(pb.GetTaskRequest(id=answer.task.id), metadata=version)).id == answer.task.id
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetTask(pb.GetTaskRequest(id=answer.task.id, tenant=made(parley_system)), metadata=version)
        elsewhere = (*version, ("x-project-id", "elsewhere"))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetTask(pb.GetTaskRequest(id=answer.task.id, tenant=agent), metadata=elsewhere)


def test_rest_streams_are_server_sent_events(parley_system: System) -> None:
    agent = made(parley_system)
    body = {"message": {"messageId": uuid4().hex, "role": "ROLE_USER", "parts": [{"text": "hello"}]}}
    with parley_system.client() as http:
        for kind in ("application/a2a+json", "application/json"):
            body["message"]["messageId"] = uuid4().hex  # type: ignore[index]
            sent = {**VERSION, "Content-Type": kind}
            answer = http.post(f"/a2a/{agent}/message:stream", content=json.dumps(body), headers=sent)
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in answer.text.splitlines() if line.startswith("data:")]
            events = [json.loads(line.removeprefix("data:")) for line in lines]
            assert "task" in events[0]
            assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
        plain = http.post(f"/a2a/{agent}/message:send", json=body | {"unknownField": 1}, headers=VERSION)
        assert plain.status_code == 400
        assert http.get(f"/a2a/{agent}/tasks?context_id=x", headers=VERSION).status_code == 400
        assert http.delete(f"/a2a/{agent}/tasks/x", headers=VERSION).status_code == 405


async def test_parts_that_are_files_by_url_and_bytes(parley_system: System, binding: str) -> None:
    agent = made(parley_system)
    async with client_of(parley_system, agent, binding) as client:
        parts = [
            pb.Part(text="look"),
            pb.Part(url="https://pictures.example/a.png", media_type="image/png", filename="a.png"),
            pb.Part(raw=b'{"a": 1}', media_type="application/json"),
            pb.Part(raw=b"%PDF-1.7", media_type="application/pdf", filename="a.pdf"),
            pb.Part(raw=b"plain", media_type="text/plain; charset=utf-8"),
        ]
        task = await task_of(client, message(parts=parts))
        assert task.status.state == pb.TASK_STATE_COMPLETED
        asked = parley_system.model.prompts[0][-1]["content"]
        assert [part["type"] for part in asked] == ["text", "image_url", "text", "file", "text"]
        again = await client.get_task(pb.GetTaskRequest(id=task.id))
        assert [part.WhichOneof("content") for part in again.history[0].parts] == ["text", "url", "text", "raw", "text"]
        for refused in (
            pb.Part(url="https://x.example/a.pdf", media_type="application/pdf"),
            pb.Part(raw=b"x", media_type="application/octet-stream"),
            pb.Part(raw=b"x"),
            pb.Part(text="x", media_type="image/png"),
        ):
            with pytest.raises(errors.ContentTypeNotSupportedError):
                await task_of(client, message(parts=[refused]))
        for wrong in (pb.Part(), pb.Part(raw=b"\xff", media_type="text/plain"), pb.Part(url="file:///etc/passwd")):
            with pytest.raises(errors.InvalidParamsError):
                await task_of(client, message(parts=[wrong]))
        assert answer_of(task)
