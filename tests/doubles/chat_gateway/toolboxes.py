"""`Toolboxes` in memory: tools do what a test says, and every call is recorded."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from chat_gateway.agents.toolbox import Toolbox, ToolCaller
from chat_gateway.model.tools import (
    GatewayTool,
    ListedTools,
    ServerTools,
    ToolOutcome,
    ToolPolicy,
    ToolResult,
    ToolsUnavailable,
)

Behaviour = Callable[[str], Awaitable[ToolResult]]
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}


@dataclass
class FakeToolboxes:
    """The tools by name, and what each does with its arguments."""

    tools: dict[str, Behaviour] = field(default_factory=dict)
    needs_approval: set[str] = field(default_factory=set)
    idempotent: set[str] = field(default_factory=set)
    server: str = "files"
    own_names: dict[str, str] = field(default_factory=dict)
    """By name: what a tool's server calls it, where that differs."""
    unavailable: tuple[ToolsUnavailable, ...] = ()
    list_errors: list[Exception] = field(default_factory=list)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, arguments and id of every call that was made."""
    callers: list[ToolCaller] = field(default_factory=list)
    open_now: int = 0
    running: int = 0
    most_running: int = 0

    def open(
        self, servers: Sequence[ServerTools], policy: ToolPolicy, caller: ToolCaller
    ) -> AbstractAsyncContextManager[Toolbox]:
        self.callers.append(caller)
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Toolbox]:
        self.open_now += 1
        try:
            yield _FakeToolbox(self)
        finally:
            self.open_now -= 1


class _FakeToolbox:
    def __init__(self, all_tools: FakeToolboxes) -> None:
        self._all = all_tools

    async def tools(self) -> ListedTools:
        if self._all.list_errors:
            raise self._all.list_errors.pop(0)
        listed = [
            GatewayTool(
                name,
                f"Does {name}.",
                SCHEMA,
                self._all.server,
                needs_approval=name in self._all.needs_approval,
                idempotent=name in self._all.idempotent,
                own_name=self._all.own_names.get(name, ""),
            )
            for name in self._all.tools
        ]
        return ListedTools(tuple(listed), self._all.unavailable)

    async def call(self, name: str, arguments: str, *, call_id: str) -> ToolResult:
        boxes = self._all
        boxes.calls.append((name, arguments, call_id))
        boxes.running += 1
        boxes.most_running = max(boxes.most_running, boxes.running)
        try:
            return await boxes.tools[name](arguments)
        finally:
            boxes.running -= 1


def says(text: str, outcome: ToolOutcome = ToolOutcome.OK) -> Behaviour:
    async def tool(arguments: str) -> ToolResult:
        return ToolResult(text, outcome)

    return tool
