"""Imports the client half of the MCP SDK. Its packages import servers, too, for the names that they re-export."""

import asyncio
import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from servicekit.collector import spare_what_is_there
from servicekit.freed_memory import FreedMemory

_REEXPORTING = ("mcp", "mcp.client")
"""Packages whose own code only re-exports: without it 12 MB of Starlette, cryptography and servers stay unloaded."""

_sdk: ModuleType | None = None
_importing = threading.Lock()


async def load_sdk() -> ModuleType:
    """Returns the module that needs the SDK, at first imported on a thread: it takes half a second."""
    if (loaded := _sdk) is None:
        loaded = await asyncio.to_thread(_loaded)
        FreedMemory().note()
    return loaded


def _loaded() -> ModuleType:
    """Imports the SDK once: several turns may be the first, and it must not be imported beside itself."""
    global _sdk
    with _importing:
        if _sdk is None:
            _sdk = _imported()
            # Its 33,000 objects would make each full collection take 7 ms, in which no turn goes on.
            spare_what_is_there()
        return _sdk


def _imported() -> ModuleType:
    for name in _REEXPORTING:
        if name not in sys.modules:
            _defer(name)
    importlib.import_module("mcp_types")
    with _building_models_when_used():
        importlib.import_module("mcp_types.methods")
    return importlib.import_module("chat_gateway.tools.mcp_session")


@contextmanager
def _building_models_when_used() -> Iterator[None]:
    """Has pydantic build the validators of models that are declared meanwhile when they are first used.

    Each version of MCP has 200 models of its own, of which a client of tools uses few: 3 MB.
    """
    config, BaseModel.model_config = BaseModel.model_config, ConfigDict(defer_build=True)
    try:
        yield
    finally:
        BaseModel.model_config = config


def _defer(name: str) -> None:
    """Makes a package importable without running its code, which runs once somebody asks for a name of its own."""
    spec = find_spec(name)
    if spec is None or (loader := spec.loader) is None:
        return
    package = module_from_spec(spec)

    def load(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        del package.__dict__["__getattr__"]
        loader.exec_module(package)
        return getattr(package, attribute)

    package.__dict__["__getattr__"] = load
    sys.modules[name] = package
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own, package)
