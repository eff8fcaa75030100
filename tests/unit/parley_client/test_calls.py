"""Channels: deadlines, credentials, repeats, health, TLS; threads and asyncio alike."""

import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from parley.chat.v1 import chat_service_pb2 as pb
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.config.v1 import access_service_pb2, agent_config_service_pb2
from parley.session.v1 import session_service_pb2
from parley_client import (
    AsyncClient,
    Client,
    NotFound,
    Servers,
    Tls,
    Unavailable,
    async_objects,
    objects,
    open_async_channel,
    open_channel,
)
from parley_client.channels import target_uri
from parley_client.promises import CALL_SECONDS, TURN_SECONDS
from tests.servers.certificates import Authority, CertificateFolder
from tests.unit.parley_client.scripted import Scripted, fails, gives, reason

DOWN = fails(grpc.StatusCode.UNAVAILABLE, reason("PEER_UNAVAILABLE", peer="Redis"))
ROUNDING = 1.0
"""What a deadline may grow by on its way, as a timeout of whole units."""
DONE = gives(pb.CompleteResponse())


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as running:
        yield running


@pytest.fixture
def client(server: Scripted) -> Iterator[Client]:
    with Client(Servers(server.target, server.target, server.target)) as opened:
        yield opened


@pytest.fixture
async def async_client(server: Scripted) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(Servers(server.target, server.target, server.target)) as opened:
        yield opened


def test_what_may_be_repeated_is(server: Scripted, client: Client) -> None:
    server.answers["Complete"] = [DOWN, DOWN, DONE]
    client.complete("support", "hi")
    keys = {request.input.request_id for request in server.requests("Complete")}
    assert len(server.requests("Complete")) == 3
    assert len(keys) == 1  # all three tries are one request
    assert keys != {""}
    client.complete("support", "again")
    assert server.requests("Complete")[-1].input.request_id not in keys
    client.complete("support", "again", request_id="mine")
    assert server.requests("Complete")[-1].input.request_id == "mine"


async def test_what_may_be_repeated_is_with_asyncio(server: Scripted, async_client: AsyncClient) -> None:
    server.answers["Complete"] = [DOWN, DOWN, DONE]
    await async_client.complete("support", "hi")
    assert len({request.input.request_id for request in server.requests("Complete")}) == 1
    assert len(server.requests("Complete")) == 3


def test_what_may_not_is_made_once(server: Scripted, client: Client) -> None:
    server.answers["CreateApiKey"] = [DOWN, gives(access_service_pb2.CreateApiKeyResponse())]
    with pytest.raises(Unavailable) as caught:
        client.access.CreateApiKey(access_service_pb2.CreateApiKeyRequest())
    assert (caught.value.reason, caught.value.metadata) == ("PEER_UNAVAILABLE", {"peer": "Redis"})
    assert len(server.requests("CreateApiKey")) == 1


def test_the_callers_request_is_not_changed(server: Scripted, client: Client) -> None:
    server.answers["CreateAgentConfig"] = [gives(agent_config_service_pb2.CreateAgentConfigResponse())]
    request = agent_config_service_pb2.CreateAgentConfigRequest()
    client.agent_configs.CreateAgentConfig(request)
    assert request.request_id == ""
    assert server.requests("CreateAgentConfig")[0].request_id != ""


def test_retries_can_be_turned_off(server: Scripted) -> None:
    server.answers["Complete"] = [DOWN, DONE]
    with Client(Servers(server.target, retry=False)) as client, pytest.raises(Unavailable):
        client.complete("support", "hi")
    assert [request.input.request_id for request in server.requests("Complete")] == [""]


def test_every_call_has_a_deadline(server: Scripted, client: Client) -> None:
    server.answers["Complete"] = [DONE]
    server.answers["GetSession"] = [gives(session_service_pb2.GetSessionResponse())]
    client.complete("support", "hi")
    assert CALL_SECONDS + ROUNDING < (server.remaining or math.inf) <= TURN_SECONDS + ROUNDING
    client.sessions.GetSession(session_service_pb2.GetSessionRequest(id="s"))
    assert (server.remaining or math.inf) <= CALL_SECONDS + ROUNDING
    client.sessions.GetSession(session_service_pb2.GetSessionRequest(id="s"), timeout=20)
    assert (server.remaining or math.inf) <= 20 + ROUNDING
    for endless in (math.inf, 0, -1, math.nan):
        with pytest.raises(ValueError, match="deadline"):
            client.complete("support", "hi", timeout=endless)


def test_the_key_is_shown_and_asked_for_anew(server: Scripted) -> None:
    server.answers["Complete"] = [DONE]
    keys = iter(["first", "second"])
    with Client(Servers(server.target, api_key=lambda: next(keys))) as client:
        for key in ("first", "second"):
            client.complete("support", "hi")
            assert server.metadata["authorization"] == f"Bearer {key}"
        with open_channel(server.target) as channel:
            ChatServiceStub(channel).Complete(pb.CompleteRequest(), metadata=[("x-trace", "1")])
    assert server.metadata["x-trace"] == "1"
    assert "authorization" not in server.metadata


def test_calls_go_to_replicas_that_serve() -> None:
    with Scripted() as serving, Scripted() as stopping:
        for one in (serving, stopping):
            one.answers["Complete"] = [DONE]
        stopping.health.set("parley.chat.v1.ChatService", health_pb2.HealthCheckResponse.NOT_SERVING)
        with Client(f"{serving.target},{stopping.target}") as client:
            for _ in range(10):
                client.complete("support", "hi", timeout=30)
            assert (len(serving.asked), len(stopping.asked)) == (10, 0)
            assert client.is_serving(service="parley.chat.v1.ChatService")
            serving.health.set("parley.chat.v1.ChatService", health_pb2.HealthCheckResponse.NOT_SERVING)
            assert not client.is_serving(service="parley.chat.v1.ChatService")


def pages(*_: object) -> list[object]:
    listed = session_service_pb2.ListSessionsResponse
    first, second = listed(next_page_token="more"), listed()
    for page, ids in ((first, ("a", "b")), (second, ("c",))):
        for one in ids:
            page.sessions.add(id=one)
    return [gives(first), gives(second)]


def test_lists_are_read_page_by_page(server: Scripted, client: Client) -> None:
    server.answers["ListSessions"] = pages()  # type: ignore[assignment]
    request = session_service_pb2.ListSessionsRequest(page_size=2)
    listing = objects(client.sessions.ListSessions, request)
    assert next(listing).id == "a"
    assert len(server.asked) == 1
    assert [one.id for one in listing] == ["b", "c"]
    assert [one.page_token for one in server.requests("ListSessions")] == ["", "more"]
    assert request.page_token == ""


async def test_lists_are_read_page_by_page_with_asyncio(server: Scripted, async_client: AsyncClient) -> None:
    server.answers["ListSessions"] = pages()  # type: ignore[assignment]
    request = session_service_pb2.ListSessionsRequest(page_size=2)
    assert [one.id async for one in async_objects(async_client.sessions.ListSessions, request)] == ["a", "b", "c"]


async def test_errors_and_a_closed_channel_with_asyncio(server: Scripted, async_client: AsyncClient) -> None:
    server.answers["Complete"] = [fails(grpc.StatusCode.NOT_FOUND, reason("AGENT_NOT_FOUND"))]
    with pytest.raises(NotFound):
        await async_client.complete("nobody", "hi")
    assert await async_client.is_serving()
    server.answers["WatchAgentConfigs"] = [lambda _request, context: iter(_until_gone(context))]
    watch = async_client.agent_configs.WatchAgentConfigs(agent_config_service_pb2.WatchAgentConfigsRequest())
    arriving = aiter(watch)
    await anext(arriving)
    await async_client.close()
    with pytest.raises(Unavailable):
        await anext(arriving)


def _until_gone(context: grpc.ServicerContext) -> Iterator[object]:
    yield agent_config_service_pb2.WatchAgentConfigsResponse()
    yield agent_config_service_pb2.WatchAgentConfigsResponse() if context.is_active() else None
    while context.is_active():
        context.time_remaining()


def test_a_client_without_a_target_says_so() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(ValueError, match="no target is given for session"):
        client.sessions.GetSession(session_service_pb2.GetSessionRequest())
    with pytest.raises(AttributeError):
        client.nothing  # type: ignore[attr-defined] # noqa: B018


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        ("gateway:50051", "dns:///gateway:50051"),
        ("10.0.0.1:1, 10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
        ("dns:///a.example:443", "dns:///a.example:443"),
    ],
)
def test_targets(target: str, uri: str) -> None:
    assert target_uri(target) == uri


@pytest.mark.parametrize("target", ["gateway", "gateway:0", ":1", "10.0.0.1:1,[::1]:1", "a:1,b:1", ""])
def test_what_is_no_target(target: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        target_uri(target)


async def test_mutual_tls(tmp_path: Path) -> None:
    authority = Authority()
    files = CertificateFolder(tmp_path / "server", authority, "gateway.parley")
    mine = CertificateFolder(tmp_path / "client", authority, "application")
    pairs = [(files.key.read_bytes(), files.cert.read_bytes())]
    credentials = grpc.ssl_server_credentials(pairs, files.ca.read_bytes(), require_client_auth=True)
    tls = Tls(mine.ca, mine.cert, mine.key, server_name="gateway.parley")
    with Scripted(credentials) as server:
        server.answers["Complete"] = [DONE]
        with Client(Servers(server.target, tls=tls)) as client:
            client.complete("support", "hi")
        async with open_async_channel(server.target, tls=tls) as channel:
            await ChatServiceStub(channel).Complete(pb.CompleteRequest())
        for wrong in (Tls(mine.ca, server_name="gateway.parley"), Tls(mine.ca, mine.cert, mine.key)):
            with Client(Servers(server.target, tls=wrong, retry=False)) as client, pytest.raises(Unavailable):
                client.complete("support", "hi")
    with pytest.raises(ValueError, match="come together"):
        Tls(certificate=mine.cert).credentials()
