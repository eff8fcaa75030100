"""How the gateway authenticates at a tool server. Secrets by name only."""

import re
from dataclasses import dataclass, fields

from config_svc.model import rules
from config_svc.model.outgoing_http import check_header_name, check_url
from servicekit.errors import Violations

MAX_SCOPES = 32
_SECRET = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")


@dataclass(frozen=True, slots=True)
class BearerAuth:
    """A bearer token."""

    secret: str = ""

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        _check_secret(found, f"{path}.secret", self.secret)


@dataclass(frozen=True, slots=True)
class HeaderAuth:
    """A secret in a header."""

    name: str = ""
    secret: str = ""

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        check_header_name(found, f"{path}.name", self.name)
        _check_secret(found, f"{path}.secret", self.secret)


@dataclass(frozen=True, slots=True)
class OauthClientCredentials:
    """OAuth 2.0 client credentials."""

    token_url: str = ""
    client_id: str = ""
    client_secret: str = ""
    scopes: tuple[str, ...] = ()
    resource: str = ""

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        check_url(found, f"{path}.token_url", self.token_url)
        rules.check_text(found, f"{path}.client_id", self.client_id, maximum=256, required=True)
        _check_secret(found, f"{path}.client_secret", self.client_secret)
        if len(self.scopes) > MAX_SCOPES:
            found.add(f"{path}.scopes", f"must have at most {MAX_SCOPES} entries")
        for index, scope in enumerate(self.scopes[:MAX_SCOPES]):
            if not _SCOPE.fullmatch(scope):
                found.add(f"{path}.scopes[{index}]", "must be a scope of OAuth (RFC 6749 3.3), at most 256 characters")
        if self.resource:
            check_url(found, f"{path}.resource", self.resource)


@dataclass(frozen=True, slots=True)
class ToolServerAuth:
    """How the gateway authenticates: at most one is set."""

    bearer: BearerAuth | None = None
    header: HeaderAuth | None = None
    oauth: OauthClientCredentials | None = None

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        for scheme in fields(self):
            if (one := getattr(self, scheme.name)) is not None:
                one.check(found, f"{path}.{scheme.name}")


def _check_secret(found: Violations, path: str, name: str) -> None:
    if not _SECRET.fullmatch(name):
        found.add(
            path,
            "must be the name of a secret: letters, digits and '.', '_', '-', with a letter or digit at both ends, "
            "at most 128 characters; never its value",
        )


NO_AUTH = ToolServerAuth()
