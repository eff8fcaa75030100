"""Tool servers as stored by config_svc. Values only; secrets by name, never by value."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from chat_gateway.model.tools import GatewayTool
from servicekit.values import value


@value
class McpServer:
    """An MCP server over streamable HTTP. `headers` are not secret."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


@value
class HttpCall:
    """One HTTP call that is a tool; `{name}` in `path` is filled from the arguments.

    `parameters` is the JSON Schema of the arguments, empty where there is none. `idempotent` holds for GET, PUT and
    DELETE, too.
    """

    name: str
    description: str
    method: str
    path: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    idempotent: bool = False


@value
class HttpService:
    """A service whose operations are tools: those of an OpenAPI 3 document (JSON text), or `calls`."""

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    openapi: str = ""
    calls: tuple[HttpCall, ...] = ()


@value
class A2aAgent:
    """A remote A2A agent, by the URL below which its card is. `headers` are not secret."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


@value
class BearerAuth:
    """`Authorization: Bearer` and the secret of this name."""

    secret: str


@value
class HeaderAuth:
    """The secret of this name in a header of its own."""

    name: str
    secret: str


@value
class OauthClientCredentials:
    """A token by OAuth 2.0 client credentials (RFC 6749 4.4); `client_secret` is the name of a secret."""

    token_url: str
    client_id: str
    client_secret: str
    scopes: tuple[str, ...] = ()
    resource: str = ""


ToolServerAuth = BearerAuth | HeaderAuth | OauthClientCredentials


@value
class ToolServer:
    """One snapshot of a project's tool server.

    `uid` and `revision` together say which: another content is another pair, so connections and lists of tools that
    were made for one pair are not used for another.
    """

    project: str
    id: str
    uid: str
    revision: int
    kind: McpServer | HttpService | A2aAgent
    auth: ToolServerAuth | None = None


@value
class ToolServerTest:
    """The result of testing a tool server: its tools, or the `problem`."""

    tools: tuple[GatewayTool, ...]
    problem: str = ""
    """A text that follows the server's id; empty if tools were listed."""
    left_out: int = 0
    """How many more tools there are."""
