"""Where tools are and how to reach them, as config_svc has it. Values only; secrets by name, never by value."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from chat_gateway.model.tools import GatewayTool
from servicekit.values import value


@value
class McpServer:
    """A server that speaks MCP over streamable HTTP. `headers` are no secrets."""

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
    """An agent elsewhere that speaks A2A, by the URL that its card is below. `headers` are no secrets."""

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
    """What came of trying a tool server out: the tools that it offers, or why none can be had (`problem`)."""

    tools: tuple[GatewayTool, ...]
    problem: str = ""
    """In words, after the server's id; empty where tools were listed."""
    left_out: int = 0
    """How many more tools there are."""
