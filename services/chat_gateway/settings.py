"""The environment of a chat_gateway process."""

from __future__ import annotations

import os
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from access.settings import AccessSettings
from chat_gateway.rules import is_agent_id
from servicekit.tls import TlsFiles


class ProviderSettings(BaseModel):
    """One provider. The key itself stays in the environment, under the name that `api_key_env` gives.

    `models`, where given, are all that agents may name of it; config_svc refuses others when an agent is written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: HttpUrl
    api_key_env: str | None = None
    models: tuple[str, ...] = ()

    def api_key(self) -> str | None:
        """Returns the key. Raises `ValueError` when the variable that is to hold it is not set."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env)
        if not key:
            raise ValueError(f"{self.api_key_env} is to hold a provider's key and is not set")
        return key


class GatewaySettings(AccessSettings):
    """Settings of chat_gateway. Times are in seconds, sizes in bytes, limits of turns in turns.

    With the `edge_` files both edges, HTTP and gRPC, speak TLS to the clients; without, what stands before them does
    (an ingress), and the certificates between services are none of theirs.
    """

    edge: ClassVar[bool] = True

    model_config = SettingsConfigDict(env_prefix="PARLEY_GATEWAY_", frozen=True, hide_input_in_errors=True)

    grpc_port: int = Field(default=50051, ge=0, le=65535)
    http_port: int = Field(default=8080, ge=0, le=65535)
    edge_cert_file: str = ""
    edge_key_file: str = ""
    config_target: str = "127.0.0.1:50052"
    session_target: str = "127.0.0.1:50053"
    providers: dict[str, ProviderSettings] = Field(default_factory=dict, validation_alias="PARLEY_PROVIDERS")

    traces_content: bool = Field(default=False, validation_alias="OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")
    """Whether spans carry what was said. OpenTelemetry's own name of the switch."""

    turn_timeout: float = Field(default=600.0, gt=0, le=3600)
    session_wait_timeout: float = Field(default=120.0, gt=0, le=3600)
    peer_timeout: float = Field(default=5.0, gt=0, le=60)
    config_read_timeout: float = Field(default=1.0, gt=0, le=60)
    config_max_age: float = Field(default=900.0, ge=0)

    connect_timeout: float = Field(default=5.0, gt=0, le=60)
    first_token_timeout: float = Field(default=120.0, gt=0, le=3600)
    between_tokens_timeout: float = Field(default=60.0, gt=0, le=3600)
    answer_timeout: float = Field(default=600.0, gt=0, le=3600)

    max_running_turns: int = Field(default=256, ge=1, le=100_000)
    max_queued_turns: int = Field(default=512, ge=0, le=100_000)
    max_running_turns_per_agent: int = Field(default=128, ge=1, le=100_000)
    max_queued_turns_per_agent: int = Field(default=256, ge=0, le=100_000)
    max_instances: int = Field(default=10_000, ge=1)
    max_known_configs: int = Field(default=50_000, ge=1)
    lease_renew_interval: float = Field(default=4.0, gt=0, le=600)
    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    keep_alive_interval: float = Field(default=10.0, gt=0, le=600)
    providers_ttl: float = Field(default=60.0, ge=1, le=3600)
    """For how long config_svc keeps what this gateway says of its providers; it is repeated three times as often."""

    @field_validator("providers")
    @classmethod
    def _check_names(cls, providers: dict[str, ProviderSettings]) -> dict[str, ProviderSettings]:
        for name, provider in providers.items():
            if not is_agent_id(name):
                raise ValueError(f"provider {name!r}: a name must match [a-z]([a-z0-9-]{{0,61}}[a-z0-9])?")
            provider.api_key()
        return providers

    @property
    def edge_tls_files(self) -> TlsFiles | None:
        """What the edges show to clients; None where they speak in the clear."""
        return TlsFiles(self.edge_cert_file, self.edge_key_file) if self.edge_cert_file else None

    @model_validator(mode="after")
    def _refuse_half_of_an_edge(self) -> Self:
        if bool(self.edge_cert_file) != bool(self.edge_key_file):
            missing = "EDGE_KEY_FILE" if self.edge_cert_file else "EDGE_CERT_FILE"
            raise ValueError(f"TLS of the edges is half set: PARLEY_GATEWAY_{missing} missing")
        return self
