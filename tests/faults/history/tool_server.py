"""An MCP server that counts: every call that it carries out is noted, with the mark that makes it unique in the run."""

import asyncio
import itertools
import random
import time
from collections import Counter
from typing import Any

from aiohttp import web

from parley_cli.processes.ports import LOOPBACK
from tests.faults.history.records import Execution

READ, CHARGE, GUARDED = "read", "charge", "transfer"
"""One that may be repeated, one that must not, and one that must not and needs an approval."""
HANG_SECONDS = 30.0
_SCHEMA = {"type": "object", "properties": {"mark": {"type": "string"}}, "required": ["mark"]}


class CountingToolServer:
    """Speaks MCP of 2025-11-25 in plain JSON, in this event loop. While `faulty`, some calls fail, before or after."""

    def __init__(self, seed: int) -> None:
        self.executions: list[Execution] = []
        self.faults: Counter[str] = Counter()
        self.faulty = False
        self.port = 0
        self._random = random.Random(f"{seed}:tools")
        self._numbers = itertools.count(1)
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_route("*", "/mcp", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, 0).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Close the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            return web.Response(status=405)
        message = await request.json()
        match message.get("method"):
            case "initialize":
                about = {"name": "counting", "version": "1"}
                value = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": about}
                return _result(message, value)
            case "tools/list":
                return _result(message, {"tools": [_tool(READ, repeatable=True), _tool(CHARGE), _tool(GUARDED)]})
            case "tools/call":
                return await self._call(request, message)
            case "ping":
                return _result(message, {})
        if "id" in message:
            error = {"code": -32601, "message": "Method not found"}
            return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})
        return web.Response(status=202)

    async def _call(self, request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
        fault = self._fault()
        if fault == "error status":
            return web.json_response({"error": "mock"}, status=500)
        params = message["params"]
        mark = params["arguments"]["mark"]
        execution = Execution(params["name"], mark, f"r{next(self._numbers)} of {mark}", time.monotonic())
        self.executions.append(execution)
        if fault == "silence":
            await asyncio.sleep(HANG_SECONDS)
        if fault == "cut" and request.transport is not None:
            request.transport.abort()
        if fault == "no JSON":
            return web.Response(text="<html>", content_type="application/json")
        await asyncio.sleep(self._random.random() * 0.05 if self._random.random() < 0.9 else 0.4)
        return _result(message, {"content": [{"type": "text", "text": execution.result}]})

    def _fault(self) -> str:
        if not self.faulty or self._random.random() > 0.08:
            return ""
        fault = self._random.choice(("error status", "cut", "silence", "no JSON"))
        self.faults[fault] += 1
        return fault


def _tool(name: str, *, repeatable: bool = False) -> dict[str, Any]:
    hints = {"readOnlyHint": True} if repeatable else {"destructiveHint": True, "idempotentHint": False}
    return {"name": name, "description": f"Does {name}.", "inputSchema": _SCHEMA, "annotations": hints}


def _result(message: dict[str, Any], value: dict[str, Any]) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": value})
