"""Documents, schemas and answers of HTTP services that would cost minutes: each of these is done in moments."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from chat_gateway.model.tool_servers import HttpCall, HttpService
from chat_gateway.tools import argument_check, openapi
from tests.unit.chat_gateway.tools.opened import opened_room

CODECS = ("punycode", "idna", "undefined", "unicode_escape", "zlib", "no-such-charset")
SECONDS = 30.0
"""Far more than any of this needs, and far less than it took."""


@pytest.mark.parametrize(
    "parameters",
    [
        [{"in": "query", "name": f"a{n}"} for n in range(5000)],
        [{"$ref": "#/long"}] * 5000,
    ],
)
async def test_parameters_that_every_path_shares_cost_a_bounded_time(parameters: list[Any]) -> None:
    document = {
        "openapi": "3.1.0",
        "paths": {f"/{n}": {"$ref": "#/shared"} for n in range(10_000)},
        "shared": {"parameters": parameters, "get": {"operationId": "a"}},
        "long": {"$ref": "#" + "/x" * 100_000},
    }
    async with asyncio.timeout(SECONDS):
        found = await asyncio.to_thread(openapi.operations, json.dumps(document))
    assert len(found) <= 1


async def test_patterns_of_additional_arguments_are_not_run() -> None:
    schema = {"type": "object", "additionalProperties": False, "patternProperties": {"^(a+)+$": {}}}
    async with asyncio.timeout(SECONDS):
        assert await asyncio.to_thread(argument_check.problems, schema, {"a" * 60 + "!": 1}) == []
    assert argument_check.problems({"additionalProperties": False}, {"a": 1}) != []


async def test_an_answer_is_text_in_a_charset_and_in_no_other_codec() -> None:
    async def answer(request: web.Request) -> web.Response:
        codec = request.path.removeprefix("/")
        body = "é".encode("latin-1") if codec == "iso-8859-1" else b"a" * 300_000 + b"-" + b"b9" * 100_000
        return web.Response(body=body, headers={"Content-Type": f"text/plain; charset={codec}"})

    app = web.Application()
    app.router.add_get("/{codec}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    calls = tuple(HttpCall(name, name, "GET", f"/{name}") for name in (*CODECS, "iso-8859-1"))
    try:
        async with opened_room() as room, asyncio.timeout(SECONDS):
            room.put("s", HttpService(url, calls=calls))
            for codec in CODECS:
                assert (await room.call("s", codec)).text.startswith("aaaa"), codec
            assert (await room.call("s", "iso-8859-1")).text == "é"
    finally:
        await runner.cleanup()
