"""Functions of a template's code as tools."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, get_type_hints

import msgspec
import structlog

from chat_gateway.model.tools import GatewayTool, ToolOutcome, ToolResult
from servicekit.errors import ServiceError
from servicekit.values import value

log = structlog.get_logger(__name__)

SERVER = "template"
"""The name for functions in events and metrics."""

A = TypeVar("A")


@value
class FunctionTool:
    """A function that the model may call, and its description as a tool."""

    tool: GatewayTool
    arguments: type[Any]
    function: Callable[[Any], Awaitable[str]]

    async def call(self, arguments: str) -> ToolResult:
        """Runs the function with the model's arguments.

        An exception becomes a result, with its text only in the log.
        """
        try:
            given = msgspec.json.decode(arguments, type=self.arguments)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            return ToolResult(f"The arguments are not valid: {error}", ToolOutcome.INVALID_ARGUMENTS)
        try:
            return ToolResult(await self.function(given))
        except ServiceError as error:
            return ToolResult(f"The tool failed: {error.message}", ToolOutcome.ERROR)
        except Exception as error:
            log.error("function_tool_failed", tool=self.tool.name, exc_info=error)
            return ToolResult("The tool failed.", ToolOutcome.ERROR)


def function_tool(
    function: Callable[[A], Awaitable[str]], *, needs_approval: bool = False, idempotent: bool = False
) -> FunctionTool:
    """Returns an async function of one argument as a tool. The argument is a msgspec.Struct, or what msgspec decodes as
    one.

    The tool's name is the function's, its description the docstring, its parameters the argument's fields. Raises
    `TypeError` for any other function.
    """
    name = getattr(function, "__name__", "")
    hints = get_type_hints(function)
    names = list(inspect.signature(function).parameters)
    if len(names) != 1 or names[0] not in hints or not inspect.getdoc(function):
        raise TypeError(f"{name!r}: a tool is an async function of one annotated argument, with a docstring")
    arguments = hints[names[0]]
    tool = GatewayTool(
        name=name,
        description=inspect.getdoc(function) or "",
        parameters=schema_of(arguments),
        server=SERVER,
        idempotent=idempotent,
        needs_approval=needs_approval,
    )
    return FunctionTool(tool, arguments, function)


def schema_of(parameters: type[Any]) -> Mapping[str, Any]:
    """Returns the JSON Schema (2020-12) of a msgspec.Struct, of type object."""
    [root], others = msgspec.json.schema_components([parameters], ref_template="#/$defs/{name}")
    name = str(root.get("$ref", "")).rpartition("/")[2]
    schema = dict(others.pop(name)) if name else dict(root)
    if schema.get("type") != "object":
        raise TypeError(f"{parameters!r} is no object in JSON")
    schema.pop("title", None)
    return schema | ({"$defs": others} if others else {})
