"""What the gateway knows of tool servers, and for how long."""

from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from chat_gateway.clients.tool_servers import ToolServerDirectory, ToolServerTimes, tool_server_from_proto
from chat_gateway.model.not_found import ToolServerNotFound
from chat_gateway.model.tool_servers import (
    BearerAuth,
    HeaderAuth,
    HttpCall,
    HttpService,
    McpServer,
    OauthClientCredentials,
    ToolServer,
)
from parley.config.v1 import tool_server_pb2 as pb
from parley.config.v1 import tool_server_service_pb2 as service_pb
from servicekit.errors import Code, RemoteError, ServiceError, Unavailable


class ConfigSvc:
    """Answers GetToolServer as a test says; counts the questions."""

    def __init__(self) -> None:
        self.servers: dict[str, pb.ToolServer] = {}
        self.failure: ServiceError | None = None
        self.asked = 0
        self.now = 0.0

    async def GetToolServer(self, request: Any, **options: Any) -> Any:  # noqa: N802
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        server = self.servers.get(request.id)
        if server is None or request.project != "acme":
            raise RemoteError("none", code=Code.NOT_FOUND, reason="TOOL_SERVER_NOT_FOUND")
        return service_pb.GetToolServerResponse(tool_server=server)

    def directory(self, **options: Any) -> ToolServerDirectory:
        stubs: Any = SimpleNamespace(tool_servers=self)
        return ToolServerDirectory(stubs, ToolServerTimes(), timeout=60.0, clock=lambda: self.now, **options)


def server(revision: int = 1, **fields: Any) -> pb.ToolServer:
    kind = fields or {"mcp": {"url": "https://mcp.example/"}}
    return pb.ToolServer(project="acme", id="one", uid="u", revision=revision, **kind)


@pytest.fixture
def config_svc() -> ConfigSvc:
    known = ConfigSvc()
    known.servers["one"] = server()
    return known


async def test_a_change_is_seen_within_five_seconds(config_svc: ConfigSvc) -> None:
    directory = config_svc.directory()
    assert (await directory.get("acme", "one")).revision == 1
    config_svc.servers["one"] = server(2)
    config_svc.now = 4.9
    assert (await directory.get("acme", "one")).revision == 1
    assert config_svc.asked == 1
    config_svc.now = 5.1
    assert (await directory.get("acme", "one")).revision == 2
    del config_svc.servers["one"]
    config_svc.now = 10.3
    with pytest.raises(ToolServerNotFound):
        await directory.get("acme", "one")
    assert len(directory) == 0


async def test_a_read_of_what_is_there_now(config_svc: ConfigSvc) -> None:
    directory = config_svc.directory()
    await directory.get("acme", "one")
    config_svc.servers["one"] = server(2)
    assert (await directory.read("acme", "one")).revision == 2
    assert (await directory.get("acme", "one")).revision == 2
    with pytest.raises(ToolServerNotFound):
        await directory.read("acme", "two")


async def test_another_project_s_is_not_there(config_svc: ConfigSvc) -> None:
    directory = config_svc.directory()
    await directory.get("acme", "one")
    with pytest.raises(ToolServerNotFound):
        await directory.get("other", "one")


async def test_while_config_svc_is_unavailable_the_known_ones_go_on_for_a_while(config_svc: ConfigSvc) -> None:
    directory = config_svc.directory()
    await directory.get("acme", "one")
    config_svc.failure = Unavailable("config_svc")
    config_svc.now = 899.0
    assert (await directory.get("acme", "one")).revision == 1
    with pytest.raises(Unavailable):
        await directory.get("acme", "two")
    config_svc.now = 902.0
    with pytest.raises(Unavailable):
        await directory.get("acme", "one")
    config_svc.failure = None
    config_svc.now = 904.0
    assert (await directory.get("acme", "one")).revision == 1


async def test_what_is_known_is_bounded(config_svc: ConfigSvc) -> None:
    directory = config_svc.directory(limit=2)
    for name in ("one", "two", "three"):
        config_svc.servers[name] = server()
        await directory.get("acme", name)
    assert len(directory) == 2


def test_what_calls_need_of_it() -> None:
    def read(**fields: Any) -> ToolServer:
        return tool_server_from_proto(server(**fields))

    mcp = {"url": "https://mcp/", "headers": {"X-Team": "cx"}}
    assert read(mcp=mcp, auth={"bearer": {"secret": "s"}}) == ToolServer(
        "acme", "one", "u", 1, McpServer("https://mcp/", {"X-Team": "cx"}), BearerAuth("s")
    )
    parameters = Struct()
    parameters.update({"type": "object", "maxProperties": 2})
    call = {"name": "get", "description": "Gets.", "method": "GET", "path": "/a", "parameters": parameters}
    http = read(http={"base_url": "http://crm", "calls": [call]}, auth={"header": {"name": "X", "secret": "s"}})
    wanted = HttpCall("get", "Gets.", "GET", "/a", {"type": "object", "maxProperties": 2})
    assert (http.kind, http.auth) == (HttpService("http://crm", calls=(wanted,)), HeaderAuth("X", "s"))
    oauth = {"token_url": "https://idp/", "client_id": "c", "client_secret": "s", "scopes": ["x"], "resource": "r"}
    document = read(http={"base_url": "http://crm", "openapi": "{}"}, auth={"oauth": oauth})
    assert document.kind == HttpService("http://crm", openapi="{}")
    assert document.auth == OauthClientCredentials("https://idp/", "c", "s", ("x",), "r")
    assert read().auth is None
