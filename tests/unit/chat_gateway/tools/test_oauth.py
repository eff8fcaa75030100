"""Tokens by OAuth client credentials, as tools of a service get them."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import web

from chat_gateway.model.tool_servers import BearerAuth, HttpService, OauthClientCredentials
from chat_gateway.model.tools import ServerTools, ToolOutcome
from chat_gateway.operator_tool_servers import OperatorToolServer
from tests.unit.chat_gateway.tools.opened import opened_room
from tests.unit.chat_gateway.tools.recorded_service import Recorded, call, recording, with_secrets


@pytest.fixture
async def recorded() -> AsyncIterator[Recorded]:
    async with recording() as served:
        yield served


async def test_oauth_tokens_are_fetched_once_kept_and_renewed_when_they_are_refused(
    recorded: Recorded, tmp_path: Any
) -> None:
    auth = OauthClientCredentials(f"{recorded.url}/token", "parley", "client", ("a", "b"), "https://api.example.com/")
    async with with_secrets(tmp_path, client="s3cret client/+") as room:
        room.put("crm", HttpService(recorded.url, calls=(call("guarded"), call("echo"))), auth)
        results = await asyncio.gather(*(room.call("crm", "guarded") for _ in range(5)))
        assert {result.text for result in results} == {"ok"}
        assert recorded.tokens == 1
        _, _, form, headers = next(one for one in recorded.requests if one[1] == "/token")
        assert form == "grant_type=client_credentials&scope=a+b&resource=https%3A%2F%2Fapi.example.com%2F"
        pair = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
        assert unquote(pair.replace("+", " ")) == "parley:s3cret client/+"
        recorded.valid = "revoked-by-the-issuer"
        assert (await room.call("crm", "guarded")).text == "ok"
        assert recorded.tokens == 2
        shown = (await room.call("crm", "echo")).text
        assert "token-number" not in shown


async def test_the_operators_token_endpoints_are_allowed_by_being_named(recorded: Recorded, tmp_path: Path) -> None:
    (tmp_path / "_operator").mkdir()
    (tmp_path / "_operator" / "key").write_text("s3cret")
    oauth = {"token_url": f"{recorded.url}/token", "client_id": "parley", "client_secret": "key"}
    own = OperatorToolServer.model_validate({"url": f"{recorded.url}/mcp", "auth": {"oauth": oauth}})
    async with opened_room(egress_allow=("public",), operators={"own": own}, secrets_dir=str(tmp_path)) as room:
        await room.listed(ServerTools(operator_tool_server="own"))
    assert recorded.tokens == 1
    assert any(headers.get("Authorization") == "Bearer token-number-1" for *_, headers in recorded.requests)


async def test_a_token_endpoint_that_refuses_is_named_and_not_asked_again_at_once(
    recorded: Recorded, tmp_path: Any
) -> None:
    recorded.token_answers = [
        web.json_response({"error": "invalid_client", "error_description": "s3cret-client is wrong"}, status=401)
        for _ in range(2)
    ]
    async with with_secrets(tmp_path, client="s3cret-client") as room:
        auth = OauthClientCredentials(f"{recorded.url}/token", "parley", "client")
        room.put("crm", HttpService(recorded.url, calls=(call("guarded"),)), auth)
        for _ in range(3):
            result = await room.call("crm", "guarded")
            assert (result.outcome, "invalid_client" in result.text) == (ToolOutcome.UNAVAILABLE, True)
            assert "s3cret" not in result.text
        assert [one[1] for one in recorded.requests] == ["/token", "/token"]


async def test_a_token_endpoint_that_answers_what_can_not_be_read_is_named(recorded: Recorded, tmp_path: Any) -> None:
    deep = '{"x": ' + "[" * 20_000 + "]" * 20_000 + "}"
    recorded.token_answers = [web.Response(text=deep, content_type="application/json")]
    async with with_secrets(tmp_path, client="s3cret-client") as room:
        auth = OauthClientCredentials(f"{recorded.url}/token", "parley", "client")
        room.put("crm", HttpService(recorded.url, calls=(call("guarded"),)), auth)
        result = await room.call("crm", "guarded")
        assert (result.outcome, "does not answer as OAuth says" in result.text) == (ToolOutcome.UNAVAILABLE, True)


@pytest.mark.parametrize("status", [302, 307])
async def test_no_redirect_of_a_token_endpoint_or_an_mcp_server_leads_to_another_origin(
    recorded: Recorded, tmp_path: Path, status: int
) -> None:
    async with recording() as other, with_secrets(tmp_path, client="s3cret-client") as room:
        location = {"Location": f"{other.url}/taken"}
        recorded.token_answers = [web.Response(status=status, headers=location)]
        auth = OauthClientCredentials(f"{recorded.url}/token", "parley", "client")
        room.put("crm", HttpService(recorded.url, calls=(call("guarded"),)), auth)
        result = await room.call("crm", "guarded")
        assert result.outcome is ToolOutcome.UNAVAILABLE
        assert "s3cret" not in result.text
        recorded.token_answers = [web.Response(status=status, headers=location) for _ in range(9)]
        room.put("mcp", f"{recorded.url}/token", BearerAuth("client"))
        listed = await room.listed(ServerTools("mcp"))
        assert [one.server for one in listed.unavailable] == ["mcp"]
        assert other.requests == []


async def test_a_secret_that_is_replaced_counts_from_the_next_turn_on(recorded: Recorded, tmp_path: Path) -> None:
    async with with_secrets(tmp_path, key="value-0") as room:
        room.put("crm", HttpService(recorded.url, calls=(call("echo"),)), BearerAuth("key"))
        for number in (1, 2):
            (tmp_path / "default" / "key").write_text(f"value-{number}-of-the-key")
            result = await room.call("crm", "echo")
            assert result.outcome is ToolOutcome.OK
            assert "of-the-key" not in result.text
    sent = [headers["Authorization"] for *_, headers in recorded.requests]
    assert sent == ["Bearer value-1-of-the-key", "Bearer value-2-of-the-key"]
