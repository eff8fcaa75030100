"""The MCP SDK is imported when the first turn needs it."""

import asyncio
import gc
import json
import subprocess
import sys
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


MODELS_OF_VERSIONS = """
import json, sys
from pydantic import BaseModel
from chat_gateway.tools import mcp_sdk

mcp_sdk._loaded()
models = {
    one for name, module in list(sys.modules.items()) if name.startswith("mcp_types._v")
    for one in vars(module).values() if isinstance(one, type) and issubclass(one, BaseModel) and one is not BaseModel
}
built = sum(model.__pydantic_complete__ for model in models)
for model in models:
    model.model_rebuild()
usable = sum(model.__pydantic_complete__ for model in models)
print(json.dumps({"models": len(models), "built": built, "usable": usable, "left": BaseModel.model_config}))
"""


def test_models_that_only_one_version_has_are_built_when_they_are_used() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MODELS_OF_VERSIONS], capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert found["models"] > 200
    assert found["built"] < found["models"] / 10
    assert found["usable"] == found["models"]
    assert found["left"] == {}
