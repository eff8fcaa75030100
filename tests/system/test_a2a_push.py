"""Push notifications of tasks, by the protocol's own client and a server that receives them."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx
import jwt
import pytest
import redis
from a2a.types import a2a_pb2 as pb
from a2a.utils import errors
from aiohttp import web
from google.protobuf.json_format import ParseDict

from tests.servers.a2a import BINDINGS, answer_of, client_of, data, made, message, task_of
from tests.servers.mock_model import Behaviour
from tests.servers.receiver import Notification, Receiver, receiving
from tests.servers.system import System

TEXT = "one two three four"
CALLED = Behaviour(text="", tool_calls=(("c1", "weather", "{}"),), finish_reason="tool_calls")
TOOLS = [{"client": {"name": "weather", "parameters": {"type": "object"}}}]


@pytest.fixture(autouse=True)
def _forgetful(guarded_system: System) -> Iterator[None]:
    guarded_system.model.reset()
    yield
    guarded_system.model.reset()


@pytest.fixture(params=BINDINGS)
def binding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


def config(receiver: Receiver, path: str = "/hook", **fields: object) -> pb.TaskPushNotificationConfig:
    return pb.TaskPushNotificationConfig(url=receiver.url + path, **fields)  # type: ignore[arg-type]


def asked(text: str, push: pb.TaskPushNotificationConfig, *, at_once: bool = False, **fields: object) -> object:
    said = pb.SendMessageConfiguration(return_immediately=at_once, task_push_notification_config=push)
    return message(text, configuration=said, **fields)


def task_in(notification: Notification) -> pb.Task:
    return ParseDict(notification.json, pb.StreamResponse()).task


async def verified(system: System, notification: Notification, audience: str) -> dict[str, object]:
    """Return the claims of the signature, as a receiver checks it with what any gateway publishes."""
    async with httpx.AsyncClient(base_url=system.gateways[-1].http_url, timeout=60, trust_env=False) as http:
        keys = (await http.get("/a2a/.well-known/jwks.json")).raise_for_status().json()["keys"]
    signature = notification.headers["a2a-notification-signature"]
    named = jwt.get_unverified_header(signature)["kid"]
    [key] = [jwt.PyJWK(one) for one in keys if one["kid"] == named]
    claims: dict[str, object] = jwt.decode(signature, key, ["ES256"], audience=audience)
    assert claims["request_body_sha256"] == hashlib.sha256(notification.body).hexdigest()
    return claims


async def test_a_message_names_where_its_task_is_notified_of(
    guarded_system: System, binding: str, receiver: Receiver
) -> None:
    agent = made(guarded_system)
    secret = pb.AuthenticationInfo(scheme="Bearer", credentials="push-me-1")
    push = config(receiver, id="mine", token="push-me-2", authentication=secret)
    async with client_of(guarded_system, agent, binding) as client:
        task = await task_of(client, asked("hello", push))  # type: ignore[arg-type]
        [notification] = await receiver.wait_for(1)
        kept = await client.get_task_push_notification_config(
            pb.GetTaskPushNotificationConfigRequest(task_id=task.id, id="mine")
        )
    sent = task_in(notification)
    assert (sent.id, sent.context_id, sent.status.state) == (task.id, task.context_id, pb.TASK_STATE_COMPLETED)
    assert answer_of(sent) == "echo:2:hello"
    headers = notification.headers
    assert headers["authorization"] == "Bearer push-me-1"
    assert headers["x-a2a-notification-token"] == headers["a2a-notification-token"] == "push-me-2"
    assert headers["content-type"] == "application/json"
    claims = await verified(guarded_system, notification, receiver.url)
    assert claims["task_id"] == task.id
    # What is secret is neither returned, nor logged, nor readable in the store.
    assert (kept.url, kept.task_id, kept.authentication.scheme) == (push.url, task.id, "Bearer")
    assert (kept.token, kept.authentication.credentials) == ("", "")
    for service in guarded_system.services:
        assert "push-me" not in service.log.read_text()
    with redis.Redis.from_url(guarded_system.redis_url) as store:
        stored = store.hget(f"{{default:{task.context_id}}}:meta", "push")
    assert stored
    assert b"push-me" not in stored


async def test_configurations_are_made_read_listed_and_deleted(
    guarded_system: System, binding: str, receiver: Receiver
) -> None:
    agent = made(guarded_system)
    guarded_system.model.script(Behaviour(text=TEXT, hold_after_chunks=2))
    at_once = pb.SendMessageConfiguration(return_immediately=True)
    async with (
        client_of(guarded_system, agent, binding) as client,
        client_of(guarded_system, agent, binding, gateway=1) as other,
    ):
        task = await task_of(client, message("hello", configuration=at_once))
        await guarded_system.model.received(1)
        for name in ("a", "b", "c"):
            push = config(receiver, f"/{name}", id=name, task_id=task.id)
            assert (await other.create_task_push_notification_config(push)).id == name
        again = await client.create_task_push_notification_config(config(receiver, "/d", id="a", task_id=task.id))
        assert again.url == receiver.url + "/d"
        named = {"task_id": task.id}
        first = await other.list_task_push_notification_configs(
            pb.ListTaskPushNotificationConfigsRequest(**named, page_size=2)
        )
        assert [one.id for one in first.configs] == ["a", "b"]
        rest = await client.list_task_push_notification_configs(
            pb.ListTaskPushNotificationConfigsRequest(**named, page_token=first.next_page_token)
        )
        assert ([one.id for one in rest.configs], rest.next_page_token) == (["c"], "")
        for _ in range(2):
            await client.delete_task_push_notification_config(
                pb.DeleteTaskPushNotificationConfigRequest(**named, id="b")
            )
        with pytest.raises(errors.TaskNotFoundError):
            await client.get_task_push_notification_config(pb.GetTaskPushNotificationConfigRequest(**named, id="b"))
        assert receiver.received == []
        guarded_system.model.release()
        await receiver.wait_for(1, "/c")
        await receiver.wait_for(1, "/d")
        assert {one.path for one in receiver.received} == {"/c", "/d"}
        # A task that has ended is notified of at once.
        made_later = await client.create_task_push_notification_config(config(receiver, "/late", **named))
        assert made_later.id
        [late] = await receiver.wait_for(1, "/late")
        assert task_in(late).status.state == pb.TASK_STATE_COMPLETED


async def test_what_can_not_be_kept_is_refused(guarded_system: System, binding: str, receiver: Receiver) -> None:
    agent, stranger = made(guarded_system), made(guarded_system)
    async with (
        client_of(guarded_system, agent, binding) as client,
        client_of(guarded_system, stranger, binding) as other,
    ):
        task = await task_of(client, message("hello"))
        wrong = {
            "url": [
                {"url": url}
                for url in ("", "ftp://x", "https://10.0.0.1/", "http://169.254.169.254/", "https://[::1]/")
            ],
            "token": [{"token": "a\r\nX-Evil: 1"}, {"token": "x" * 600}],
            "scheme": [{"authentication": pb.AuthenticationInfo(scheme="Be arer")}],
            "credentials": [{"authentication": pb.AuthenticationInfo(scheme="Basic", credentials="a\nb")}],
            "id": [{"id": "a/b"}],
        }
        for field, cases in wrong.items():
            for case in cases:
                push = config(receiver, task_id=task.id)
                push.MergeFrom(pb.TaskPushNotificationConfig(**case))  # type: ignore[arg-type]
                if field == "url":
                    push.url = str(case["url"])
                with pytest.raises(errors.InvalidParamsError, match=field):
                    await client.create_task_push_notification_config(push)
                with pytest.raises(errors.InvalidParamsError, match=field):
                    push.task_id = ""
                    await task_of(client, asked("hello", push))  # type: ignore[arg-type]
        for missing in ("nothing", "a.b", task.id + "x"):
            with pytest.raises(errors.TaskNotFoundError):
                await client.create_task_push_notification_config(config(receiver, task_id=missing))
            with pytest.raises(errors.TaskNotFoundError):
                await client.list_task_push_notification_configs(
                    pb.ListTaskPushNotificationConfigsRequest(task_id=missing)
                )
            with pytest.raises(errors.TaskNotFoundError):
                await client.delete_task_push_notification_config(
                    pb.DeleteTaskPushNotificationConfigRequest(task_id=missing, id="a")
                )
        with pytest.raises(errors.TaskNotFoundError):
            await other.create_task_push_notification_config(config(receiver, task_id=task.id))
        for number in range(8):
            await client.create_task_push_notification_config(config(receiver, id=str(number), task_id=task.id))
        with pytest.raises(errors.InvalidParamsError, match="as many"):
            await client.create_task_push_notification_config(config(receiver, id="more", task_id=task.id))
    assert len(guarded_system.model.requests) == 1


async def test_each_end_of_a_task_is_notified_of(guarded_system: System, receiver: Receiver) -> None:
    agent = made(guarded_system, tools=TOOLS)
    async with client_of(guarded_system, agent, "JSONRPC", streaming=True) as client:
        # A failure, of a session that goes with it.
        guarded_system.model.script(Behaviour(text=TEXT, chunks_before_cut=3))
        _ = [one async for one in client.send_message(asked("x", config(receiver, "/failed")))]  # type: ignore[arg-type]
        [failed] = await receiver.wait_for(1, "/failed")
        assert task_in(failed).status.state == pb.TASK_STATE_FAILED
        # It waits, and then has its answer: two notifications with ids of their own.
        guarded_system.model.script(CALLED, Behaviour(text="Sunny."))
        push = config(receiver, "/waits")
        events = [one async for one in client.send_message(asked("x", push))]  # type: ignore[arg-type]
        [waits] = await receiver.wait_for(1, "/waits")
        assert task_in(waits).status.state == pb.TASK_STATE_INPUT_REQUIRED
        results = data(tool_results=[{"id": "c1", "content": "20"}])
        named = events[0].task.id
        _ = [one async for one in client.send_message(message(task_id=named, parts=[results]))]
        both = await receiver.wait_for(2, "/waits")
        assert task_in(both[1]).status.state == pb.TASK_STATE_COMPLETED
        assert {task_in(one).id for one in both} == {named}
        ids = [(await verified(guarded_system, one, receiver.url))["jti"] for one in both]
        assert len(set(ids)) == 2
        # Cancelled while it runs, from another gateway.
        guarded_system.model.script(Behaviour(text=TEXT, hold_after_chunks=2))
        async with client_of(guarded_system, agent, "GRPC", gateway=1) as other:
            task = await task_of(other, asked("x", config(receiver, "/gone"), at_once=True))  # type: ignore[arg-type]
            await guarded_system.model.received(4)
            await other.cancel_task(pb.CancelTaskRequest(id=task.id))
        [gone] = await receiver.wait_for(1, "/gone")
        assert task_in(gone).status.state == pb.TASK_STATE_CANCELED


async def test_deliveries_are_repeated_within_a_bound_and_follow_nothing(
    guarded_system: System, receiver: Receiver
) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(receiver.url + "/elsewhere")

    agent = made(guarded_system)
    receiver.answers = [503, 200]
    async with client_of(guarded_system, agent, "JSONRPC") as client:
        await task_of(client, asked("hello", config(receiver, "/again")))  # type: ignore[arg-type]
        first, second = await receiver.wait_for(2, "/again")
        assert first.body == second.body
        claims = [await verified(guarded_system, one, receiver.url) for one in (first, second)]
        assert claims[0]["jti"] == claims[1]["jti"]
        receiver.answers = [elsewhere]
        await task_of(client, asked("hello", config(receiver, "/redirect")))  # type: ignore[arg-type]
        await receiver.wait_for(1, "/redirect")
        receiver.answers = [400]
        await task_of(client, asked("hello", config(receiver, "/refused")))  # type: ignore[arg-type]
        await receiver.wait_for(1, "/refused")
        await task_of(client, asked("hello", config(receiver, "/last")))  # type: ignore[arg-type]
        await receiver.wait_for(1, "/last")
    assert [len(receiver.at(path)) for path in ("/elsewhere", "/redirect", "/refused")] == [0, 1, 1]


async def test_users_have_configurations_of_their_own(guarded_system: System, receiver: Receiver) -> None:
    agent = made(guarded_system)
    ann, bob = {"X-User-ID": f"ann-{uuid4().hex}"}, {"X-User-ID": f"bob-{uuid4().hex}"}
    async with (
        client_of(guarded_system, agent, "GRPC", **ann) as anns,
        client_of(guarded_system, agent, "GRPC", **bob) as bobs,
    ):
        task = await task_of(anns, asked("hello", config(receiver)))  # type: ignore[arg-type]
        assert task_in((await receiver.wait_for(1))[0]).id == task.id
        with pytest.raises(errors.TaskNotFoundError):
            await bobs.create_task_push_notification_config(config(receiver, task_id=task.id))
        with pytest.raises(errors.TaskNotFoundError):
            await bobs.list_task_push_notification_configs(pb.ListTaskPushNotificationConfigsRequest(task_id=task.id))
