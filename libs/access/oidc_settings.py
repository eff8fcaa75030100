"""Settings of identity providers: whose tokens are accepted, and how their claims are read."""

from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from access.caller import KEY_SCOPES
from contract.fields import RESOURCE_ID_RULE, is_resource_id
from servicekit.settings import Seconds, is_loopback

ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""Accepted signature algorithms. Public keys only: `none` proves nothing, and a verifier of HS* can also sign."""


class OidcIssuer(BaseModel):
    """One issuer of `PARLEY_OIDC`, a JSON list."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    issuer: str = Field(min_length=1, description="The claim `iss`, an https URL, compared as it is written.")
    audience: str = Field(min_length=1, description="The claim `aud`, or one of it, compared as it is written.")
    jwks_url: str | None = Field(
        default=None,
        description="Where the issuer's keys are (https); unset: where its discovery document says (OpenID Connect "
        "Discovery 1.0).",
    )
    algorithms: tuple[str, ...] = Field(
        default=("RS256", "ES256"),
        description=f"Signatures that are accepted, some of {', '.join(sorted(ALGORITHMS))}.",
    )
    project: str | None = Field(default=None, description="The project of every token; this or `project_claim`.")
    project_claim: str | None = Field(default=None, description="The claim that names a token's project.")
    user_claim: str | None = Field(
        default=None, description="The claim that names the only user that a token may act for; unset: any user."
    )
    scopes: tuple[str, ...] | None = Field(
        default=None, description="The scopes of every token; this or `scopes_claim`."
    )
    scopes_claim: str | None = Field(
        default=None, description="The claim that names a token's scopes: a list, or words in one text."
    )
    client_id: str | None = Field(
        default=None,
        min_length=1,
        description="The public client as which the console logs people in (authorization code with PKCE); unset: it "
        "offers no login with this issuer ([console.md](console.md)).",
    )
    login_scopes: tuple[str, ...] = Field(default=("openid",), description="What that login asks for.")
    authorization_url: str | None = Field(
        default=None, description="Where people log in; unset: where the issuer's discovery document says."
    )
    token_url: str | None = Field(
        default=None,
        description="Where the console exchanges the code; unset: where the discovery document says, which has to be "
        "at the issuer's own origin then.",
    )
    leeway: Seconds = Field(default=30.0, ge=0, le=300, description="By how much clocks may differ.")

    @model_validator(mode="after")
    def _trustworthy(self) -> Self:
        """Raises ValueError for an untrustworthy issuer, or claims that do not determine project and scopes."""
        _check_url("issuer", self.issuer)
        if self.jwks_url is not None:
            _check_url("jwks_url", self.jwks_url)
        for name in ("authorization_url", "token_url"):
            if (url := getattr(self, name)) is not None:
                _check_url(name, url)
        if not self.algorithms or not ALGORITHMS.issuperset(self.algorithms):
            raise ValueError(f"algorithms must be some of {', '.join(sorted(ALGORITHMS))}")
        if (self.project is None) == (self.project_claim is None):
            raise ValueError("one of project and project_claim is required")
        if (self.scopes is None) == (self.scopes_claim is None):
            raise ValueError("one of scopes and scopes_claim is required")
        if self.project is not None and not is_resource_id(self.project):
            raise ValueError(f"project {RESOURCE_ID_RULE}")
        if self.scopes is not None and not KEY_SCOPES.issuperset(self.scopes):
            raise ValueError(f"scopes must be some of {', '.join(sorted(KEY_SCOPES))}")
        return self


def _check_url(name: str, url: str) -> None:
    parts = urlsplit(url)
    local = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or not (parts.scheme == "https" or local):
        raise ValueError(f"{name} must be an https URL")
