"""The environment of a chat_gateway process."""

import os
from collections.abc import Iterator
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from access.settings import AccessSettings
from chat_gateway.model.rules import is_agent_id
from servicekit.environment import variable
from servicekit.settings import Port
from servicekit.tls import TlsFiles


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider. The key itself stays in the environment, under the name that `api_key_env` gives.

    `models`, where given, are all that agents may name of it; config_svc refuses others when an agent is written.
    """

    base_url: str
    api_key_env: str | None = None
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError unless the URL is one of HTTP."""
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("base_url must be an http or https URL")

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

    prefix = "PARLEY_GATEWAY_"

    grpc_port: Port = 50051
    http_port: Port = 8080
    edge_cert_file: str = ""
    edge_key_file: str = ""
    config_target: str = "127.0.0.1:50052"
    session_target: str = "127.0.0.1:50053"
    providers: Annotated[dict[str, ProviderSettings], variable("PARLEY_PROVIDERS")] = {}  # noqa: RUF012

    traces_content: Annotated[bool, variable("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")] = False
    """Whether spans carry what was said. OpenTelemetry's own name of the switch."""

    turn_timeout: Annotated[float, Meta(gt=0, le=3600)] = 600.0
    session_wait_timeout: Annotated[float, Meta(gt=0, le=3600)] = 120.0
    peer_timeout: Annotated[float, Meta(gt=0, le=60)] = 5.0
    config_read_timeout: Annotated[float, Meta(gt=0, le=60)] = 1.0
    config_max_age: Annotated[float, Meta(ge=0)] = 900.0

    connect_timeout: Annotated[float, Meta(gt=0, le=60)] = 5.0
    first_token_timeout: Annotated[float, Meta(gt=0, le=3600)] = 120.0
    between_tokens_timeout: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    answer_timeout: Annotated[float, Meta(gt=0, le=3600)] = 600.0

    max_running_turns: Annotated[int, Meta(ge=1, le=100_000)] = 256
    max_queued_turns: Annotated[int, Meta(ge=0, le=100_000)] = 512
    max_running_turns_per_agent: Annotated[int, Meta(ge=1, le=100_000)] = 128
    max_queued_turns_per_agent: Annotated[int, Meta(ge=0, le=100_000)] = 256
    max_instances: Annotated[int, Meta(ge=1)] = 10_000
    max_known_configs: Annotated[int, Meta(ge=1)] = 50_000
    lease_renew_interval: Annotated[float, Meta(gt=0, le=600)] = 4.0
    max_body_bytes: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)] = 4 * 1024 * 1024
    keep_alive_interval: Annotated[float, Meta(gt=0, le=600)] = 10.0
    providers_ttl: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    """For how long config_svc keeps what this gateway says of its providers; it is repeated three times as often."""

    @property
    def edge_tls_files(self) -> TlsFiles | None:
        """What the edges show to clients; None where they speak in the clear."""
        return TlsFiles(self.edge_cert_file, self.edge_key_file) if self.edge_cert_file else None

    def problems(self) -> Iterator[str]:
        """Yields what is wrong with the settings together."""
        yield from super().problems()
        for name, provider in self.providers.items():
            if not is_agent_id(name):
                yield f"PARLEY_PROVIDERS: provider {name!r}: a name must match [a-z]([a-z0-9-]{{0,61}}[a-z0-9])?"
            try:
                provider.api_key()
            except ValueError as error:
                yield f"PARLEY_PROVIDERS: {error}"
        if bool(self.edge_cert_file) != bool(self.edge_key_file):
            missing = "EDGE_KEY_FILE" if self.edge_cert_file else "EDGE_CERT_FILE"
            yield f"TLS of the edges is half set: PARLEY_GATEWAY_{missing} missing"
