"""The operator's tool servers (`PARLEY_TOOL_SERVERS`): commands that gateways run, and URLs."""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from chat_gateway.model.tool_servers import BearerAuth, HeaderAuth, OauthClientCredentials, ToolServerAuth
from contract.fields import RESOURCE_ID_RULE, is_resource_id
from servicekit.egress import EgressDenied, target_of

_SECRET_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SecretName(_Strict):
    """A secret by its name."""

    secret: str = Field(pattern=_SECRET_NAME, description="The name of the secret.")


class SecretHeader(SecretName):
    """A header that holds a secret."""

    name: str = Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$", description="The name of the header.")


class OauthClient(_Strict):
    """OAuth 2.0 client credentials."""

    token_url: str = Field(description="The token endpoint.")
    client_id: str = Field(min_length=1, max_length=256, description="The client.")
    client_secret: str = Field(pattern=_SECRET_NAME, description="The name of the client's secret.")
    scopes: tuple[str, ...] = Field(default=(), max_length=32, description="Scopes of the token.")
    resource: str = Field(default="", description="OAuth's `resource` (RFC 8707).")


class OperatorAuth(_Strict):
    """How the gateway authenticates; exactly one of the three."""

    bearer: SecretName | None = Field(default=None, description="`Authorization: Bearer` and the secret.")
    header: SecretHeader | None = Field(default=None, description="The secret in a header of its own.")
    oauth: OauthClient | None = Field(default=None, description="A token by OAuth client credentials.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(one is not None for one in (self.bearer, self.header, self.oauth)) != 1:
            raise ValueError("one of bearer, header and oauth is required")
        return self

    def scheme(self) -> ToolServerAuth:
        """Returns the authentication in the form of a project's tool server."""
        if self.bearer is not None:
            return BearerAuth(self.bearer.secret)
        if self.header is not None:
            return HeaderAuth(self.header.name, self.header.secret)
        if self.oauth is None:
            raise AssertionError
        oauth = self.oauth
        return OauthClientCredentials(
            oauth.token_url, oauth.client_id, oauth.client_secret, oauth.scopes, oauth.resource
        )


class OperatorToolServer(_Strict):
    """One MCP server of `PARLEY_TOOL_SERVERS`, a JSON object of them by name: a command, or a URL."""

    command: str = Field(default="", description="What is run, and speaks MCP over its standard input and output.")
    args: tuple[str, ...] = Field(default=(), max_length=256, description="Arguments of the command.")
    env: dict[str, str | SecretName] = Field(
        default={},
        description='Its environment beside `PATH`, `HOME` and `LANG`: texts, or `{"secret": NAME}`.',
    )
    cwd: str = Field(default="", description="The directory that it is run in; unset: `/`.")
    url: str = Field(default="", description="Where a server speaks MCP over streamable HTTP.")
    headers: dict[str, str] = Field(default={}, max_length=32, description="Headers of every request.")
    auth: OperatorAuth | None = Field(
        default=None,
        description="How the gateway authenticates: `bearer`, `header` or `oauth`, as tool servers of projects.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("one of command and url is required")
        if self.url and (self.args or self.env or self.cwd):
            raise ValueError("args, env and cwd are for a command")
        if self.command and (self.headers or self.auth):
            raise ValueError("headers and auth are for a url")
        return self

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs that are allowed because the operator configured them."""
        token_url = self.auth.oauth.token_url if self.auth is not None and self.auth.oauth is not None else ""
        return tuple(filter(None, (self.url, token_url)))

    def problems(self) -> Iterator[str]:
        """Yields problems with it on this machine."""
        for url in self.urls:
            try:
                target_of(url)
            except EgressDenied:
                yield f"{url.partition('?')[0][:200]!r} must be an http or https URL without credentials"
        for name, text in self.headers.items():
            if not _HEADER.fullmatch(name) or not text.isascii() or not text.isprintable():
                yield f"header {name[:128]!r} can't be sent"
        for name, given in self.env.items():
            if not _VARIABLE.fullmatch(name) or (isinstance(given, str) and "\0" in given):
                yield f"env {name[:128]!r} can't be a variable"
        if self.command and shutil.which(self.command) is None:
            yield f"command {self.command!r} is not there, or is no program"
        if self.cwd and not Path(self.cwd).is_dir():
            yield f"cwd {self.cwd!r} is no directory"


def problems_of(servers: Mapping[str, OperatorToolServer]) -> Iterator[str]:
    """Yields problems with the tool servers, each with its name."""
    for name, server in servers.items():
        if not is_resource_id(name):
            yield f"tool server {name!r}: a name {RESOURCE_ID_RULE}"
        for problem in server.problems():
            yield f"tool server {name!r}: {problem}"
