"""The environment of a chat_gateway process."""

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from access.settings import AccessSettings
from chat_gateway.model.parts import MIN_KEPT_CHARACTERS
from chat_gateway.model.rules import LARGE_PART_BYTES, MAX_MESSAGES_BYTES, MAX_PARTS_BYTES, RequestBounds
from chat_gateway.model.watches import WatchBounds
from chat_gateway.operator_tool_servers import OperatorToolServer, problems_of
from chat_gateway.providers.resilience_settings import ProviderTimeouts
from chat_gateway.providers.settings import ProviderSettings
from contract.fields import RESOURCE_ID_RULE, is_resource_id
from servicekit.egress import PUBLIC, EgressRules
from servicekit.settings import FROM_JSON, Bytes, GrpcTarget, Port, Seconds, Words, variables_after
from servicekit.tls import TlsFiles

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


class GatewaySettings(AccessSettings, ProviderTimeouts):
    """Settings of one chat_gateway process, from `PARLEY_GATEWAY_…`.

    With the `edge_` files both edges, HTTP and gRPC, use TLS; without them, an ingress terminates TLS. The certificates
    between services are separate.
    """

    model_config = SettingsConfigDict(alias_generator=variables_after("PARLEY_GATEWAY_"))

    edge: ClassVar[bool] = True

    grpc_port: Port = Field(default=50051, description="Port of the gRPC API; 0: any free one.")
    http_port: Port = Field(default=8080, description="Port of the HTTP API; 0: any free one.")
    edge_cert_file: str = Field(
        default="",
        description="Certificate (PEM) that both APIs show to clients; without, they are served without TLS.",
    )
    edge_key_file: str = Field(default="", description="Private key (PEM) of that certificate.")
    max_streams_per_connection: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="gRPC calls that one connection of a client has open at a time; further ones wait in the client. "
        "What bounds HTTP/2 rapid reset ([security.md](security.md)).",
    )
    max_calls_per_source: int = Field(
        default=2048,
        ge=1,
        le=1_000_000,
        description="gRPC calls that one address has open at a time, until their answers are read. Behind a load "
        "balancer, whose address all connections have, as many as `PARLEY_GATEWAY_MAX_CONCURRENT_RPCS`.",
    )
    config_target: GrpcTarget = Field(default="127.0.0.1:50052", description="gRPC address of config_svc.")
    session_target: GrpcTarget = Field(default="127.0.0.1:50053", description="gRPC address of session_svc.")
    providers: Annotated[dict[str, ProviderSettings], FROM_JSON] = Field(
        default={},
        validation_alias="PARLEY_PROVIDERS",
        description="Providers of models: a JSON object of them, by the name that agents give ([fields](#a-provider)).",
    )
    show_provider_errors: bool = Field(
        default=True,
        description="Whether callers see what a provider says of a request that it refuses; the log has it.",
    )
    traces_content: bool = Field(
        default=False,
        validation_alias="OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        description="Whether spans carry what was said. OpenTelemetry's own switch.",
    )

    a2a_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s/?#]+(/[^\s?#]*)?)?$",
        description="Where callers reach the HTTP API, as [agent cards](a2a.md) have it, such as "
        "`https://api.example`; without, the host that a card is asked of.",
    )
    a2a_grpc_url: str = Field(
        default="",
        max_length=256,
        pattern=r"^[!-~]*$",
        description="Where callers reach the gRPC API, as agent cards and `/v1/auth` have it, such as "
        "`api.example:443`; without, cards leave gRPC out.",
    )

    turn_timeout: Seconds = Field(
        default=600.0, gt=0, le=3600, description="How long a turn may take, unless its agent says otherwise."
    )
    session_wait_timeout: Seconds = Field(
        default=120.0, gt=0, le=3600, description="How long a turn may wait for its session while another one runs."
    )
    peer_timeout: Seconds = Field(
        default=5.0, gt=0, le=60, description="How long session_svc, and config_svc for the admin API, may take."
    )
    config_read_timeout: Seconds = Field(
        default=1.0, gt=0, le=60, description="How long a turn waits for config_svc to answer for an agent config."
    )
    config_max_age: Seconds = Field(
        default=900.0,
        ge=0,
        le=31_622_400,
        description="How old an agent config may be that is used while config_svc is unavailable.",
    )
    max_running_turns: int = Field(default=256, ge=1, le=100_000, description="Turns that use a model at a time.")
    max_queued_turns: int = Field(default=512, ge=0, le=100_000, description="Turns that may wait for that.")
    max_running_turns_per_agent: int = Field(default=128, ge=1, le=100_000, description="The same for one agent.")
    max_queued_turns_per_agent: int = Field(default=256, ge=0, le=100_000, description="The same for one agent.")
    max_background_turns: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="Turns without a caller that this gateway runs at a time: background turns, and those of "
        "gateways that were lost.",
    )
    max_instances: int = Field(
        default=10_000, ge=1, le=10_000_000, description="Agent instances that are kept in memory."
    )
    max_known_configs: int = Field(
        default=50_000, ge=1, le=10_000_000, description="Agent configs that are kept in memory."
    )
    lease_renew_interval: Seconds = Field(
        default=4.0,
        gt=0,
        le=600,
        description="How long each renewal of a turn lease is held open; at most a third of `PARLEY_SESSION_LEASE`.",
    )
    max_body_bytes: Bytes = Field(
        default=20 * 1024 * 1024,
        ge=1024,
        le=80 * 1024 * 1024,
        description="The largest request that asks for a turn, over HTTP and over gRPC; other HTTP requests have "
        "at most 4 MiB.",
    )
    max_large_bytes: Bytes = Field(
        default=64 * 1024 * 1024,
        ge=1024 * 1024,
        le=16 * 1024 * 1024 * 1024,
        description="What requests of more than 64 KiB may have together, and, counted apart, images and files of "
        "earlier turns that are being sent. Each takes up to five times its size of memory; more wait up to "
        "10 s. Smaller requests are always read. gRPC requests may take four times as much while they arrive.",
    )
    max_parts_bytes: Bytes = Field(
        default=MAX_PARTS_BYTES,
        ge=64 * 1024,
        le=64 * 1024 * 1024,
        description="Large images, sounds and files of one request in a session; a stateless one is bounded by its "
        "body alone. `PARLEY_SESSION_MAX_MESSAGE_BYTES` must be 2 MiB more.",
    )
    large_part_bytes: Bytes = Field(
        default=LARGE_PART_BYTES,
        ge=0,
        le=512 * 1024,
        description="From this size on, at least 1 KiB, images, sounds and files are stored once beside the turns of "
        "their session; 0: never, as releases before it want it, which can't read such turns "
        "([operations/upgrade.md](operations/upgrade.md)).",
    )
    window_parts_bytes: Bytes = Field(
        default=16 * 1024 * 1024,
        ge=0,
        le=64 * 1024 * 1024,
        description="Of those of earlier turns, what a window sends, newest first; agents bound their number "
        "(`memory.max_parts`).",
    )
    max_messages_per_request: int = Field(
        default=1000,
        ge=1,
        le=10_000,
        description="New messages of one request in a session; a stateless one is bounded by its body alone.",
    )
    max_messages_bytes: Bytes = Field(
        default=MAX_MESSAGES_BYTES,
        ge=1024,
        le=960 * 1024,
        description="The same in bytes, large images, sounds and files aside. session_svc stores 1 MiB a turn: what is "
        "left is for the answer.",
    )
    max_connections: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="HTTP connections at a time; more are served health checks alone. Fewer where the process may not "
        "open twice as many files.",
    )
    max_connections_per_source: int = Field(
        default=2048,
        ge=1,
        le=1_000_000,
        description="The same for one address (of IPv6 its first 64 bits). Behind a load balancer, whose address all "
        "connections have, as many as in all.",
    )
    max_watches: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Watches of turns (`/v1/chat/completions/{id}/events`, `WatchTurn`) that this gateway has open.",
    )
    max_watches_per_project: int = Field(default=500, ge=1, le=100_000, description="The same for one project.")
    max_watches_per_session: int = Field(default=32, ge=1, le=100_000, description="The same for one session.")
    cors_origins: Words = Field(
        default=(),
        description="Origins whose pages may call the HTTP API from browsers (CORS), such as "
        "`https://app.example.com`; `*`: all. None: no page of another origin.",
    )
    console: bool = Field(
        default=True, description="Whether the console is served at `/console` ([console.md](console.md))."
    )
    replicas: Words = Field(
        default=(),
        description="HTTP addresses of all gateways, such as `http://chat-gateway-http:8080`, for `/v1/replicas` and "
        "the console; a name is all of its addresses. None: a gateway knows itself alone.",
    )
    keep_alive_interval: Seconds = Field(
        default=10.0, gt=0, le=600, description="Time between comments in a stream while the model is silent."
    )
    tool_servers: Annotated[dict[str, OperatorToolServer], FROM_JSON] = Field(
        default={},
        validation_alias="PARLEY_TOOL_SERVERS",
        description="The operator's own MCP servers, commands among them, for agents of all projects: a JSON object of "
        "them, by the name that agents give ([fields](#a-tool-server)).",
    )
    egress_allow: Words = Field(
        default=(PUBLIC,),
        description="Where tool servers, token endpoints and their redirects may be: `public` (public addresses over "
        "https), networks, hosts, each of them by `http://` or on ports ([tools.md](tools.md#egress)). What is not "
        "named is refused, private and link-local addresses among it.",
    )
    secrets_dir: str = Field(
        default="",
        description="Directory of the secrets of tool servers, in files `<project>/<name>`, which are read again when "
        "they change; unset: there are none.",
    )
    tools_connect_timeout: Seconds = Field(
        default=10.0, gt=0, le=60, description="How long connecting to a tool server and its handshake may take."
    )
    tools_list_ttl: Seconds = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="How long the tools of a server are used before they are listed again; a server that says that "
        "they have changed is asked at once.",
    )
    max_tool_connections: int = Field(
        default=256, ge=1, le=10_000, description="Tool servers that are kept connected at a time."
    )
    tools_idle_timeout: Seconds = Field(
        default=300.0, gt=0, le=86_400, description="How long a tool server stays connected that no turn uses."
    )
    providers_ttl: Seconds = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="How long config_svc keeps what this gateway published of its providers; published again three "
        "times as often.",
    )

    @property
    def request_bounds(self) -> RequestBounds:
        """Bounds on the new messages of one turn of a session."""
        return RequestBounds(
            self.max_messages_per_request, self.max_messages_bytes, self.max_parts_bytes, self.large_part_bytes
        )

    @property
    def watch_bounds(self) -> WatchBounds:
        """How many watches of turns may be open."""
        return WatchBounds(self.max_watches, self.max_watches_per_project, self.max_watches_per_session)

    @property
    def provider_models(self) -> dict[str, tuple[str, ...]]:
        """The models that agents may name, by provider; none means any."""
        return {name: provider.models for name, provider in self.providers.items()}

    @property
    def edge_tls_files(self) -> TlsFiles | None:
        """The certificate files of the edges; None without TLS."""
        return TlsFiles(self.edge_cert_file, self.edge_key_file) if self.edge_cert_file else None

    def problems(self) -> Iterator[str]:
        """Yields problems with combinations of settings."""
        yield from super().problems()
        for name, provider in self.providers.items():
            if not is_resource_id(name):
                yield f"PARLEY_PROVIDERS: provider {name!r}: a name {RESOURCE_ID_RULE}"
            try:
                provider.api_key()
            except ValueError as error:
                yield f"PARLEY_PROVIDERS: {error}"
        for problem in problems_of(self.tool_servers):
            yield f"PARLEY_TOOL_SERVERS: {problem}"
        for rule in self.egress_allow:
            try:
                EgressRules([rule])
            except ValueError as error:
                yield f"PARLEY_GATEWAY_EGRESS_ALLOW: {error}"
        if self.cors_origins != ("*",):
            for origin in self.cors_origins:
                if not _ORIGIN.fullmatch(origin):
                    yield (
                        f"PARLEY_GATEWAY_CORS_ORIGINS: {origin!r} must be an origin, such as https://app.example.com, "
                        "in lower case and without a path, or '*' alone"
                    )
        yield from self._place_problems()
        yield from self._size_problems()
        if bool(self.edge_cert_file) != bool(self.edge_key_file):
            missing = "EDGE_KEY_FILE" if self.edge_cert_file else "EDGE_CERT_FILE"
            yield f"TLS of the edges is incomplete: PARLEY_GATEWAY_{missing} missing"

    def _place_problems(self) -> Iterator[str]:
        if self.a2a_url and not _is_address(self.a2a_url):
            yield "PARLEY_GATEWAY_A2A_URL must name a host, such as https://api.example"
        for url in self.replicas:
            if not re.fullmatch(r"https?://[^/\s?#@]+", url) or not _is_address(url):
                yield f"PARLEY_GATEWAY_REPLICAS: {url!r} must be an http(s) address without a path, such as http://host:8080"

    def _size_problems(self) -> Iterator[str]:
        if 0 < self.large_part_bytes < MIN_KEPT_CHARACTERS:
            yield f"PARLEY_GATEWAY_LARGE_PART_BYTES must be 0, or at least {MIN_KEPT_CHARACTERS}"
        if self.max_large_bytes < max(self.max_body_bytes, self.window_parts_bytes):
            yield (
                "PARLEY_GATEWAY_MAX_LARGE_BYTES must be at least PARLEY_GATEWAY_MAX_BODY_BYTES and "
                "PARLEY_GATEWAY_WINDOW_PARTS_BYTES"
            )


def _is_address(url: str) -> bool:
    """Returns whether a URL names a host, and a port that can be one where it names one."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
