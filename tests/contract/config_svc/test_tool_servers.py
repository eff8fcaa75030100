"""Tool servers: writes, lists, revisions, and what agent configs say of them."""

import asyncio
import itertools
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from config_svc.access.projects import Projects
from config_svc.agents.configs import AgentConfigs
from config_svc.audit.log import AuditLog
from config_svc.metrics import Metrics
from config_svc.model.agent import AgentSpec
from config_svc.model.audit import AuditQuery
from config_svc.model.errors import (
    IdempotencyKeyReused,
    ProjectNotFound,
    ToolServerAlreadyExists,
    ToolServerChanged,
    ToolServerInUse,
    ToolServerNotFound,
)
from config_svc.model.note import Note
from config_svc.model.tool_server import HttpCall, HttpService, McpServer, ToolServerSpec
from config_svc.model.tool_server_auth import BearerAuth, ToolServerAuth
from config_svc.model.tools import AgentCall, AgentTool, ServerTools
from config_svc.ports.store import Store
from config_svc.tool_servers.servers import ToolServers
from servicekit.errors import InvalidArgument
from tests.contract.config_svc.conftest import Clock, calling, spec

MCP = ToolServerSpec(
    display_name="GitHub",
    mcp=McpServer("https://mcp.example/mcp?key=planted-in-url", {"X-Team": "planted-in-header"}),
    auth=ToolServerAuth(bearer=BearerAuth("github-token")),
    labels={"team": "cx"},
)
HTTP = ToolServerSpec(
    http=HttpService(
        "https://crm.example/v1",
        calls=(
            HttpCall(
                "get_customer",
                "Reads a customer.",
                "GET",
                "/customers/{id}",
                {"type": "object", "properties": {"id": {"type": "string"}, "one": {"const": True}}},
            ),
        ),
    )
)


@pytest.fixture
def servers(store: Store, clock: Clock, metrics: Metrics) -> ToolServers:
    return ToolServers(store, clock=clock, metrics=metrics)


def using(*tool_servers: str, kind: str = "mcp") -> AgentSpec:
    tools: list[Any] = [AgentTool(**{kind: ServerTools(one)}) for one in tool_servers]
    return spec(tools=tuple(tools))


def calling_agents(*agents: str) -> AgentSpec:
    return spec(tools=tuple(AgentTool(agent=AgentCall(one, "", "Helps.")) for one in agents))


def broken(error: Any) -> list[str]:
    return [violation.field for violation in error.value.violations]


async def test_a_tool_server_is_written_read_and_deleted(servers: ToolServers, clock: Clock) -> None:
    made = await servers.create("mine", "github", MCP, note=Note("me", "why"))
    assert (made.revision, made.spec) == (1, MCP)
    assert await servers.get("mine", "github") == made
    with pytest.raises(ToolServerNotFound):
        await servers.get("other", "github")
    with pytest.raises(ToolServerAlreadyExists):
        await servers.create("mine", "github", HTTP)
    clock.advance(seconds=1)
    change = replace(MCP, display_name="New", labels={})
    changed = await servers.update("mine", "github", change, ["display_name", "labels.team"], etag=made.etag)
    assert (changed.revision, changed.spec, changed.update_time) == (2, change, clock())
    assert changed.etag != made.etag
    assert await servers.update("mine", "github", change, ["*"]) == changed
    with pytest.raises(ToolServerChanged):
        await servers.update("mine", "github", change, ["*"], etag=made.etag)
    _, page, token = await servers.revisions("mine", "github", size=1, token="")
    assert [(one.number, one.changed_fields) for one in page] == [(2, ("display_name", "labels"))]
    _, page, token = await servers.revisions("mine", "github", size=1, token=token)
    assert [(one.number, one.spec, one.author, one.comment) for one in page] == [(1, MCP, "me", "why")]
    assert token == ""
    with pytest.raises(ToolServerChanged):
        await servers.delete("mine", "github", etag=made.etag)
    await servers.delete("mine", "github", etag=changed.etag)
    with pytest.raises(ToolServerNotFound):
        await servers.delete("mine", "github")
    await servers.delete("mine", "github", allow_missing=True)
    again = await servers.create("mine", "github", HTTP)
    assert again.uid != made.uid
    assert (await servers.get("mine", "github")).spec == HTTP


async def test_a_mask_reaches_into_the_kind_which_stays_what_it_is(servers: ToolServers) -> None:
    await servers.create("mine", "github", MCP)
    given = ToolServerSpec(mcp=McpServer("https://other.example/"))
    changed = await servers.update("mine", "github", given, ["mcp.url"])
    assert changed.spec.mcp == McpServer("https://other.example/", {"X-Team": "planted-in-header"})
    for paths in (["http"], ["*"], ["http.base_url"]):
        with pytest.raises(InvalidArgument) as error:
            await servers.update("mine", "github", HTTP, paths)
        assert set(broken(error)) & {"tool_server.mcp", "tool_server.http"}
    with pytest.raises(InvalidArgument) as error:
        await servers.update("mine", "github", given, ["nothing", "mcp.nothing", "labels."])
    assert broken(error) == ["update_mask"] * 3


async def test_validate_only_stores_nothing(servers: ToolServers) -> None:
    would = await servers.create("mine", "github", MCP, validate_only=True)
    assert would.uid == ""
    with pytest.raises(ToolServerNotFound):
        await servers.get("mine", "github")
    made = await servers.create("mine", "github", MCP)
    with pytest.raises(ToolServerAlreadyExists):
        await servers.create("mine", "github", MCP, validate_only=True)
    would = await servers.update("mine", "github", replace(MCP, display_name="x"), ["*"], validate_only=True)
    assert would.revision == 2
    assert await servers.get("mine", "github") == made
    with pytest.raises(ProjectNotFound):
        await servers.create("nowhere", "github", MCP, validate_only=True)


async def test_a_request_id_makes_one(servers: ToolServers, agents: AgentConfigs, clock: Clock) -> None:
    request_id = str(uuid.uuid4())
    made = await servers.create("mine", "github", MCP, request_id=request_id)
    assert await servers.create("mine", "github", MCP, request_id=request_id) == made
    with pytest.raises(IdempotencyKeyReused):
        await servers.create("mine", "github", HTTP, request_id=request_id)
    await agents.create("mine", "github", spec(), request_id=request_id)  # of another kind
    await servers.delete("mine", "github")
    clock.advance(hours=25)
    assert (await servers.create("mine", "github", MCP, request_id=request_id)).uid != made.uid


async def test_lists(servers: ToolServers, clock: Clock) -> None:
    for index, one in enumerate(("c", "a", "b")):
        await servers.create("mine", one, HTTP if one == "b" else replace(MCP, labels={"n": str(index)}))
        clock.advance(seconds=1)
    await servers.create("other", "d", MCP)

    async def listed(filter_text: str = "", order_by: str = "") -> list[str]:
        ids: list[str] = []
        token = ""
        while True:
            page, token = await servers.list("mine", size=2, token=token, filter_text=filter_text, order_by=order_by)
            ids += [one.id for one in page]
            if not token:
                return ids

    assert await listed() == ["a", "b", "c"]
    assert await listed(order_by="create_time desc") == ["b", "a", "c"]
    assert await listed("kind = http") == ["b"]
    assert await listed("NOT kind = http AND labels.n = 1") == ["a"]
    with pytest.raises(InvalidArgument):
        await listed("provider = x")


async def test_audit_events_hold_names_and_never_what_could_be_a_secret(
    servers: ToolServers, audit: AuditLog, store: Store
) -> None:
    openapi = '{"openapi": "3.1.0", "paths": {"/a": {"get": {"operationId": "planted-in-document"}}}}'
    with calling(id="key_1"):
        await servers.create("mine", "github", MCP)
        await servers.update("mine", "github", replace(MCP, display_name="x"), ["*"])
        await servers.delete("mine", "github")
        await servers.create("mine", "crm", ToolServerSpec(http=HttpService("https://crm.example", openapi=openapi)))
    events = await store.audit_events(AuditQuery("mine"), None, 10)
    assert [(one.action, one.resource, one.actor) for one in events] == [
        ("tool_servers.create", "tool_servers/crm", "key_1"),
        ("tool_servers.delete", "tool_servers/github", "key_1"),
        ("tool_servers.update", "tool_servers/github", "key_1"),
        ("tool_servers.create", "tool_servers/github", "key_1"),
    ]
    assert "planted" not in str(events)
    assert "github-token" in str(events)
    assert "X-Team" in str(events)


async def test_an_agent_names_tool_servers_that_are_there_and_of_the_kind(
    servers: ToolServers, agents: AgentConfigs
) -> None:
    with pytest.raises(InvalidArgument) as error:
        await agents.create("mine", "a", using("github"))
    assert broken(error) == ["agent_config.tools[0].mcp.tool_server"]
    await servers.create("other", "github", MCP)
    with pytest.raises(InvalidArgument):
        await agents.create("mine", "a", using("github"), validate_only=True)
    await servers.create("mine", "github", MCP)
    with pytest.raises(InvalidArgument) as error:
        await agents.create("mine", "a", replace(using("github", "no", kind="http"), display_name="x" * 201))
    assert sorted(broken(error)) == [
        "agent_config.display_name",
        "agent_config.tools[0].http.tool_server",
        "agent_config.tools[1].http.tool_server",
    ]
    await agents.create("mine", "a", using("github"))
    with pytest.raises(InvalidArgument):
        await agents.update("mine", "a", using("github", "crm"), ["tools"])
    with pytest.raises(InvalidArgument) as error:
        await agents.create("mine", "b", calling_agents("nobody"))
    assert broken(error) == ["agent_config.tools[0].agent.agent_id"]


async def test_a_tool_server_in_use_is_not_deleted(servers: ToolServers, agents: AgentConfigs) -> None:
    await servers.create("mine", "github", MCP)
    for index in range(12):
        await agents.create("mine", f"a{index:02}", using("github"))
    await agents.create("mine", "b", spec())
    with pytest.raises(ToolServerInUse) as error:
        await servers.delete("mine", "github")
    assert error.value.metadata == {
        "tool_server_id": "github",
        "agent_ids": ",".join(f"a{index:02}" for index in range(10)),
        "agent_count": "12",
    }
    for index in range(11):
        await agents.update("mine", f"a{index:02}", spec(), ["tools"])
    with pytest.raises(ToolServerInUse):
        await servers.delete("mine", "github")
    await agents.delete("mine", "a11")
    await servers.delete("mine", "github")
    with pytest.raises(InvalidArgument) as error:
        await agents.undelete("mine", deleted_id="a11")
    assert broken(error) == ["agent_config.tools[0].mcp.tool_server"]
    with pytest.raises(InvalidArgument):
        await agents.rollback("mine", "a00", 1)


async def test_agents_do_not_call_each_other_in_a_circle(agents: AgentConfigs) -> None:
    for one in ("a", "b", "c"):
        await agents.create("mine", one, spec())
    with pytest.raises(InvalidArgument) as error:
        await agents.update("mine", "a", calling_agents("a"), ["tools"])
    assert "a -> a" in str(error.value)
    await agents.update("mine", "a", calling_agents("b"), ["tools"])
    await agents.update("mine", "b", calling_agents("c"), ["tools"])
    with pytest.raises(InvalidArgument) as error:
        await agents.update("mine", "c", calling_agents("a"), ["tools"])
    assert broken(error) == ["agent_config.tools[0].agent.agent_id"]
    assert "c -> a -> b -> c" in str(error.value)
    with pytest.raises(InvalidArgument):
        await agents.create("mine", "self", calling_agents("self"))
    # One that is deleted calls nobody; brought back, it would.
    await agents.delete("mine", "a")
    again = await agents.create("mine", "a", spec())
    await agents.update("mine", "c", calling_agents("a"), ["tools"])
    await agents.delete("mine", "a")
    with pytest.raises(InvalidArgument):
        await agents.undelete("mine", (await first_of(agents, "a", again.uid)))


async def first_of(agents: AgentConfigs, agent_id: str, but: str) -> str:
    page, _ = await agents.list("mine", size=10, token="", filter_text="", order_by="", show_deleted=True)
    return next(one.uid for one in page if one.id == agent_id and one.uid != but)


async def test_a_callee_that_was_deleted_keeps_nobody_from_other_changes(agents: AgentConfigs) -> None:
    await agents.create("mine", "b", spec())
    await agents.create("mine", "a", calling_agents("b"))
    await agents.delete("mine", "b")
    changed = replace(calling_agents("b"), display_name="New")
    assert (await agents.update("mine", "a", changed, ["*"])).revision == 2


async def test_of_writes_at_once_none_closes_a_circle(agents: AgentConfigs) -> None:
    ring = ("a", "b", "c")
    for attempt in range(3):
        for one in ring:
            await agents.create("mine", f"{one}{attempt}", spec())
        pairs = itertools.pairwise([*ring, ring[0]])
        writes = [
            agents.update("mine", f"{one}{attempt}", calling_agents(f"{other}{attempt}"), ["tools"])
            for one, other in pairs
        ]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(one) for one in outcomes].count(InvalidArgument) == 1, outcomes


async def test_of_a_deletion_and_an_agent_that_names_it_one_wins(servers: ToolServers, agents: AgentConfigs) -> None:
    for attempt in range(5):
        await servers.create("mine", "github", MCP)
        outcomes = await asyncio.gather(
            servers.delete("mine", "github"),
            agents.create("mine", f"a{attempt}", using("github")),
            return_exceptions=True,
        )
        lost = [type(one) for one in outcomes if isinstance(one, Exception)]
        assert lost in ([ToolServerInUse], [InvalidArgument]), outcomes
        if lost == [ToolServerInUse]:
            await agents.delete("mine", f"a{attempt}")
            await servers.delete("mine", "github")


async def test_a_project_goes_with_its_tool_servers(
    servers: ToolServers, agents: AgentConfigs, projects: Projects, store: Store, clock: Clock, metrics: Metrics
) -> None:
    few = Projects(store, clock=clock, metrics=metrics, agents_per_step=2)
    await servers.create("mine", "kept", MCP)
    await projects.create("gone", "")
    for index in range(5):
        await servers.create("gone", f"s{index}", MCP)
    await agents.create("gone", "a", using("s1"))
    await few.delete("gone")
    await projects.create("gone", "")
    assert await servers.list("gone", size=10, token="", filter_text="", order_by="") == ([], "")
    assert (await servers.get("mine", "kept")).spec == MCP
    deleted = [
        one.resource
        for one in await store.audit_events(AuditQuery("gone"), None, 100)
        if one.action == "tool_servers.delete"
    ]
    assert sorted(deleted) == [f"tool_servers/s{index}" for index in range(5)]


async def test_request_ids_are_forgotten(servers: ToolServers, store: Store, clock: Clock) -> None:
    await servers.create("mine", "github", MCP, request_id=str(uuid.uuid4()))
    assert await store.forget_claims(clock() + timedelta(seconds=1)) == 1
