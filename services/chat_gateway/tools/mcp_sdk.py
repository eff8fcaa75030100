"""Imports the client half of the MCP SDK. Its packages import servers, too, for the names that they re-export."""

import asyncio
import importlib
import sys
import threading
from collections.abc import Iterator, Mapping
from importlib.util import find_spec, module_from_spec
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from servicekit.freed_memory import FreedMemory

_REEXPORTING = ("mcp", "mcp.client")
"""Packages whose own code only re-exports: without it 12 MB of Starlette, cryptography and servers stay unloaded."""

_METHODS = "mcp_types.methods"
_LEGACY_MODELS = "mcp_types._v2025_11_25"
"""The models of servers of protocol 2025-11-25 and before: 3 MB that servers of today's protocol do not need."""

_sdk: ModuleType | None = None
_importing = threading.Lock()


async def load_sdk() -> ModuleType:
    """Returns the module that needs the SDK, at first imported on a thread: it takes half a second."""
    if (loaded := _sdk) is None:
        loaded = await asyncio.to_thread(_loaded)
        FreedMemory().note()
    return loaded


async def load_legacy_models() -> None:
    """Loads what a session of protocol 2025-11-25 or before needs, on a thread: it takes a tenth of a second."""
    if _LEGACY_MODELS not in sys.modules:
        await asyncio.to_thread(importlib.import_module, _LEGACY_MODELS)


def _loaded() -> ModuleType:
    """Imports the SDK once: several turns may be the first, and it must not be imported beside itself."""
    global _sdk
    with _importing:
        if _sdk is None:
            _sdk = _imported()
        return _sdk


def _imported() -> ModuleType:
    for name in _REEXPORTING:
        if name not in sys.modules:
            _defer(name)
    if _METHODS not in sys.modules:
        _defer_legacy_models()
    return importlib.import_module("chat_gateway.tools.mcp_session")


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


class _Model(NamedTuple):
    """The name of a legacy model, in its place in the SDK's tables."""

    name: str


class _Table(Mapping[Any, Any]):
    """One of the SDK's tables of models by method and protocol; a legacy one is loaded once it is looked up."""

    def __init__(self, rows: Mapping[Any, Any]) -> None:
        self._rows = rows

    def __getitem__(self, key: Any) -> Any:
        row = self._rows[key]
        return getattr(importlib.import_module(_LEGACY_MODELS), row.name) if isinstance(row, _Model) else row

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _defer_legacy_models() -> None:
    """Imports the SDK's tables of models without the legacy ones."""
    parent = importlib.import_module(_METHODS.partition(".")[0])
    names = ModuleType(_LEGACY_MODELS)
    names.__dict__["__getattr__"] = _Model
    sys.modules[_LEGACY_MODELS] = names
    try:
        methods = importlib.import_module(_METHODS)
    except Exception:
        # Another release of the SDK does more with them than to keep them: it gets them.
        del sys.modules[_LEGACY_MODELS]
        sys.modules.pop(_METHODS, None)
        importlib.import_module(_METHODS)
        return
    del sys.modules[_LEGACY_MODELS]
    if vars(parent).get(_LEGACY_MODELS.rpartition(".")[2]) is names:
        delattr(parent, _LEGACY_MODELS.rpartition(".")[2])
    methods.__dict__.pop("v2025", None)
    tables = {
        id(table): _Table(table)
        for table in vars(methods).values()
        if isinstance(table, MappingProxyType) and any(isinstance(row, _Model) for row in table.values())
    }
    for name, value in list(vars(methods).items()):
        if id(value) in tables:
            setattr(methods, name, tables[id(value)])
        defaults = getattr(value, "__kwdefaults__", None) or {}
        for keyword, default in list(defaults.items()):
            defaults[keyword] = tables.get(id(default), default)
