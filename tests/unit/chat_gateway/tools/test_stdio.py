"""The operator's own tool servers: commands that speak MCP over stdio, and URLs."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from chat_gateway.agents.toolbox import ToolCaller
from chat_gateway.model.tool_servers import OauthClientCredentials
from chat_gateway.model.tools import ServerTools, ToolOutcome
from chat_gateway.operator_tool_servers import OperatorToolServer
from chat_gateway.settings import GatewaySettings
from servicekit.settings import SettingsError
from tests.servers.mcp_server import McpServerUnderTest
from tests.unit.chat_gateway.tools.opened import Room, opened_room

ROOT = Path(__file__).resolve().parents[4]
SECRET = "planted-s3cret-of-the-operator"


def command(**fields: Any) -> OperatorToolServer:
    server = [sys.executable, "-m", "tests.servers.mcp_server"]
    env = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))}
    return OperatorToolServer.model_validate(
        {"command": server[0], "args": server[1:], "cwd": str(ROOT), "env": {**env, **fields.pop("env", {})}, **fields}
    )


async def until_ended(pid: int) -> None:
    """Waits for what was killed already: whoever is its parent now may take its time to reap it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        async with asyncio.timeout(60):
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.01)


async def call(room: Room, tool: str, arguments: str = "{}", server: str = "own", **fields: Any) -> Any:
    async with room.box(ServerTools(operator_tool_server=server, **fields)) as box:
        return await box.call(tool, arguments, call_id="c")


@pytest.mark.slow
async def test_a_command_is_run_used_started_again_and_ended(tmp_path: Path) -> None:
    (tmp_path / "_operator").mkdir()
    (tmp_path / "_operator" / "token").write_text(SECRET)
    env = {"TOKEN": {"secret": "token"}, "PARLEY_TEST_STDERR": f"starting with {SECRET}\n" + "x" * 5000 + "\n"}
    with capture_logs() as logged:
        async with opened_room(
            connect_timeout=30, secrets_dir=str(tmp_path), operators={"own": command(env=env)}, list_ttl=3600
        ) as room:
            assert (await call(room, "add", '{"a": 1, "b": 2}')).text == "3"
            shown = (await call(room, "environment", '{"name": "TOKEN"}')).text
            assert shown == "[secret]"
            # What an import of the server's sets for itself is not the gateway's.
            names = set((await call(room, "environment")).text.split(",")) - {"GRPC_VERBOSITY"}
            assert names <= {"PATH", "HOME", "LANG", "PYTHONPATH", "TOKEN", "PARLEY_TEST_STDERR", "LC_CTYPE", "PWD"}
            process = psutil.Process(int((await call(room, "process")).text.split()[0]))

            died = await call(room, "die")
            assert (died.outcome, "ended before it answered" in died.text) == (ToolOutcome.UNKNOWN, True)
            assert (await call(room, "add", '{"a": 2, "b": 2}')).text == "4"
            second = psutil.Process(int((await call(room, "process")).text.split()[0]))
            assert second.pid != process.pid

            before = list(logged)
            (tmp_path / "_operator" / "token").write_text("another-s3cret")  # a command gets it when it is started
            third = psutil.Process(int((await call(room, "process")).text.split()[0]))
            assert third.pid != second.pid
        for ended in (second, third):
            await until_ended(ended.pid)
    lines = [entry["line"] for entry in logged if entry["event"] == "tool_server_stderr"]
    assert "starting with [secret]" in lines
    assert max(map(len, lines)) <= 1000
    assert SECRET not in json.dumps(before, default=str)


@pytest.mark.slow
async def test_a_line_that_is_too_long_ends_the_command() -> None:
    async with opened_room(connect_timeout=30, operators={"own": command()}, list_ttl=3600) as room:
        got = await call(room, "big", '{"size": 11000000}')
        assert "wrote a line of more than 10 MiB" in got.text
        assert (await call(room, "add", '{"a": 1, "b": 2}')).text == "3"


@pytest.mark.slow
async def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    script = tmp_path / "deaf.sh"
    script.write_text("#!/bin/sh\ntrap '' TERM\nsleep 600 &\necho $! > child\nwhile :; do sleep 1; done\n")
    script.chmod(0o755)
    server = OperatorToolServer(command=str(script), cwd=str(tmp_path))
    async with opened_room(operators={"own": server}, connect_timeout=5) as room:
        listed = await room.listed(ServerTools(operator_tool_server="own"))
        assert listed.unavailable[0].server == "own"
        child = int((tmp_path / "child").read_text())
    await until_ended(child)


@pytest.mark.slow
async def test_a_command_that_ends_at_once_is_started_with_pauses(tmp_path: Path) -> None:
    server = OperatorToolServer(command="/bin/sh", args=("-c", f"echo x >> {tmp_path}/starts; echo no JSON; exit 1"))
    async with opened_room(operators={"own": server}) as room:
        for _ in range(5):
            listed = await room.listed(ServerTools(operator_tool_server="own"))
            assert listed.unavailable[0].reason == "ended"
    assert len((tmp_path / "starts").read_text().split()) < 3


async def test_the_operators_urls_are_allowed_by_being_named_and_projects_are_not(tmp_path: Path) -> None:
    with McpServerUnderTest() as server:
        operators = {"own": OperatorToolServer(url=server.url, headers={"X-Own": "1"})}
        async with opened_room(egress_allow=("public",), operators=operators) as room:
            assert (await call(room, "add", '{"a": 1, "b": 2}')).text == "3"
            assert server.recorder.calls[-1].headers["x-own"] == "1"
            room.put("theirs", server.url)
            assert "not allowed" in (await room.listed(ServerTools("theirs"))).unavailable[0].reason
            listed = await room.listed(ServerTools(operator_tool_server="other"))
            assert listed.unavailable[0].reason == "is not one of this gateway's"


async def test_a_user_s_token_goes_where_the_config_says_so_only() -> None:
    caller = ToolCaller("default", "ann", "s", "t", user_token="token-of-the-user")
    with McpServerUnderTest() as server:
        async with opened_room() as room:
            room.put("calc", server.url)
            await room.call("calc", "add", '{"a": 1, "b": 2}', caller=caller)
            assert "authorization" not in server.recorder.calls[-1].headers
            result = await room.call("calc", "echo_headers", caller=caller, forward_user_token=True)
            assert server.recorder.calls[-1].headers["authorization"] == "Bearer token-of-the-user"
            assert "token-of-the-user" not in result.text

            # Nor does it go where another credential of the same header does.
            oauth = OauthClientCredentials(f"{server.url}/token", "parley", "secret-name", ())
            room.put("crm", server.url, oauth)
            listed = await room.listed(ServerTools("crm", forward_user_token=True), caller=caller)
            assert "can't have the user's token" in listed.unavailable[0].reason


async def test_a_user_s_token_goes_to_the_operators_servers_where_the_config_says_so_only() -> None:
    caller = ToolCaller("default", "ann", "s", "t", user_token="token-of-the-user")
    with McpServerUnderTest() as server:
        operators = {"own": OperatorToolServer(url=server.url), "files": command()}
        async with opened_room(operators=operators) as room:
            for forwards, sent in ((False, None), (True, "Bearer token-of-the-user")):
                named = ServerTools(operator_tool_server="own", forward_user_token=forwards)
                async with room.box(named, caller=caller) as box:
                    assert (await box.call("add", '{"a": 1, "b": 2}', call_id="c")).text == "3"
                assert server.recorder.calls[-1].headers.get("authorization") == sent
            named = ServerTools(operator_tool_server="files", forward_user_token=True)
            listed = await room.listed(named, caller=caller)
            assert "can't be given the user's token" in listed.unavailable[0].reason


@pytest.mark.parametrize(
    ("servers", "complaint"),
    [
        ({"a": {}}, "one of command and url"),
        ({"a": {"command": "sh", "url": "http://x"}}, "one of command and url"),
        ({"a": {"command": "/no/such/program"}}, "is not there"),
        ({"a": {"command": "sh", "cwd": "/no/such/folder"}}, "is no directory"),
        ({"a": {"command": "sh", "env": {"A=B": "x"}}}, "can't be a variable"),
        ({"a": {"command": "sh", "env": {"A": {"secret": "../x"}}}}, "PARLEY_TOOL_SERVERS"),
        ({"a": {"command": "sh", "headers": {"A": "x"}}}, "are for a url"),
        ({"a": {"url": "ftp://x"}}, "must be an http or https URL"),
        ({"a": {"url": "http://u:p@x"}}, "must be an http or https URL"),
        ({"a": {"url": "http://x", "auth": {}}}, "one of bearer, header and oauth"),
        ({"a": {"url": "http://x", "headers": {"A": "x\ny"}}}, "can't be sent"),
        ({"A_b": {"url": "http://x"}}, "a name must be"),
    ],
)
def test_wrong_settings_are_named_at_start(servers: dict[str, Any], complaint: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("PARLEY_TOOL_SERVERS", json.dumps(servers))
    with pytest.raises(SettingsError, match=complaint):
        GatewaySettings()
    monkeypatch.setenv("PARLEY_TOOL_SERVERS", "{}")
    monkeypatch.setenv("PARLEY_GATEWAY_EGRESS_ALLOW", "public,10.0.0.1/8")
    with pytest.raises(SettingsError, match="PARLEY_GATEWAY_EGRESS_ALLOW"):
        GatewaySettings()


@pytest.mark.slow
async def test_the_group_is_killed_when_the_gateway_is_stopped(tmp_path: Path) -> None:
    async with opened_room(connect_timeout=30, operators={"own": command()}) as room:
        pid = int((await call(room, "process")).text.split()[0])
        os.kill(pid, signal.SIGSTOP)  # it can't end by itself
        closing = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - closing < 60
    await until_ended(pid)
