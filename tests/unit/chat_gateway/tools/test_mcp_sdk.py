"""The SDK's models of older protocols are loaded once a server speaks one, and are then what the SDK would have."""

import asyncio
import subprocess
import sys
import time
from types import ModuleType
from typing import Any

import pytest

from chat_gateway.tools import mcp_sdk
from tests.servers.mcp_server import McpServerUnderTest

CHECK = """
import asyncio, sys
from chat_gateway.tools.mcp_sdk import load_legacy_models, load_sdk
asyncio.run(load_sdk())
from mcp_types import methods
LEGACY = "mcp_types._v2025_11_25"
listed = {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}
modern = {**listed, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
methods.validate_server_result("tools/list", "2026-07-28", modern)
assert ("ping", "2025-11-25") in methods.SERVER_REQUESTS
assert ("ping", "2026-07-28") not in methods.SERVER_REQUESTS
print(LEGACY in sys.modules)
asyncio.run(load_legacy_models())
print(LEGACY in sys.modules)
methods.validate_server_result("tools/list", "2025-11-25", listed)
import importlib
legacy = importlib.import_module(LEGACY)
assert methods.SERVER_RESULTS["tools/list", "2025-11-25"] is legacy.ListToolsResult
assert methods.parse_server_request("ping", "2025-11-25", None).method == "ping"
try:
    methods.validate_server_result("tools/list", "2025-11-25", {"tools": 1})
except ValueError:
    print("refused")
from mcp.client.session import _later_revision_fields
print(sorted(_later_revision_fields("tools/list", "2025-11-25")))
"""


def test_models_of_older_protocols_are_loaded_when_one_is_spoken() -> None:
    assert _lines(CHECK) == ["False", "True", "refused", "['cacheScope', 'resultType', 'ttlMs']"]


def test_every_table_is_as_the_sdk_has_it() -> None:
    dump = """
tables = {name: table for name, table in vars(methods).items() if name.isupper() and hasattr(table, "items")}
for name, table in sorted(tables.items()):
    for key, row in table.items():
        print(name, key, row)
for name, made in sorted(vars(methods).items()):
    for keyword, default in sorted((getattr(made, "__kwdefaults__", None) or {}).items()):
        print(name, keyword, [one for one in sorted(tables) if tables[one] is default])
"""
    ours = "import asyncio; from chat_gateway.tools.mcp_sdk import load_sdk; asyncio.run(load_sdk())\n"
    assert _lines(ours + "from mcp_types import methods" + dump) == _lines("from mcp_types import methods" + dump)


def test_a_release_of_the_sdk_that_needs_them_at_once_has_them() -> None:
    code = """
import mcp_types, sys
from chat_gateway.tools import mcp_sdk
def refuse(name): raise TypeError(name)
mcp_sdk._Model = refuse
mcp_sdk._imported()
from mcp_types import methods
print(methods.SERVER_RESULTS["tools/list", "2025-11-25"].__name__, "mcp_types._v2025_11_25" in sys.modules)
"""
    assert _lines(code) == ["ListToolsResult True"]


def _lines(code: str) -> list[Any]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("modern", "loaded"), [(True, "False"), (False, "True")], ids=["2026-07-28", "2025-11-25"])
def test_tools_of_both_eras_are_listed_and_called(modern: bool, loaded: str) -> None:
    code = """
import asyncio, sys
from chat_gateway.model.tools import ServerTools
from tests.unit.chat_gateway.tools.opened import opened_room
async def main():
    async with opened_room() as room:
        room.put("calc", URL)
        listed = await room.listed(ServerTools("calc"))
        called = await room.call("calc", "add", '{"a": 20, "b": 22}')
        print("add" in {tool.name for tool in listed.tools}, called.text)
asyncio.run(main())
print("mcp_types._v2025_11_25" in sys.modules)
"""
    with McpServerUnderTest(modern=modern) as server:
        assert _lines(code.replace("URL", repr(server.url))) == ["True 42", loaded]


async def test_turns_that_need_it_at_once_import_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[ModuleType] = []

    def importing() -> ModuleType:
        imported.append(ModuleType("sdk"))
        time.sleep(0.1)  # so that the others come meanwhile
        return imported[-1]

    monkeypatch.setattr(mcp_sdk, "_sdk", None)
    monkeypatch.setattr(mcp_sdk, "_imported", importing)
    loaded = await asyncio.gather(*(mcp_sdk.load_sdk() for _ in range(4)))
    assert len(imported) == 1
    assert loaded == imported * 4
