"""The MCP SDK is imported when the first turn needs it."""

import asyncio
import gc
import time
from types import ModuleType

import pytest

from chat_gateway.tools import mcp_sdk


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


async def test_the_garbage_collector_does_not_look_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = ModuleType("sdk")
    monkeypatch.setattr(mcp_sdk, "_sdk", None)
    monkeypatch.setattr(mcp_sdk, "_imported", lambda: sdk)
    assert any(one is sdk for one in gc.get_objects())
    await mcp_sdk.load_sdk()
    assert not any(one is sdk for one in gc.get_objects())
