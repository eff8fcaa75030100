"""Tool servers: where tools are and how to reach them, snapshot by snapshot. Secrets by name only."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

from config_svc.model import rules
from config_svc.model.json_form import encoded
from config_svc.model.rules import KIB, Json
from config_svc.model.tools import check_tool_name
from servicekit.errors import Violations

MAX_CALLS = 128
MAX_CALLS_BYTES = 512 * KIB
MAX_HEADERS = 32
MAX_OPENAPI_BYTES = 1024 * KIB
MAX_SCHEMA_BYTES = 64 * KIB
MAX_SCOPES = 32
MAX_URL = 2048
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,1024}")
_SECRET = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")
_URL = re.compile(r"[\x21-\x7e]+")
_PATH = re.compile(r"/[\x21-\x22\x24-\x3e\x40-\x7e]*")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

_OF_THE_PROTOCOL = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that the gateway sets by itself."""


def check_url(found: Violations, path: str, url: str) -> None:
    """Reports what is no absolute `http:` or `https:` URL without credentials and fragment."""
    if not url:
        found.add(path, "is required")
    elif len(url) > MAX_URL:
        found.add(path, f"must have at most {MAX_URL} characters")
    elif not _is_url(url):
        found.add(path, "must be a URL of http: or https: with a host, without credentials and fragment")


def check_headers(found: Violations, path: str, headers: Mapping[str, str]) -> None:
    """Reports too many headers, names that are none or the gateway's to set, and values that are not printable."""
    if len(headers) > MAX_HEADERS:
        found.add(path, f"must have at most {MAX_HEADERS} entries")
    seen: set[str] = set()
    for name, value in sorted(headers.items()):
        _check_header_name(found, path, name)
        if name.lower() == "authorization":
            found.add(path, "must not hold Authorization: `auth` says how to authenticate")
        if name.lower() in seen:
            found.add(path, f"{name[:80]!r} is a duplicate: names of headers are the same in upper and lower case")
        seen.add(name.lower())
        if not _HEADER_VALUE.fullmatch(value):
            found.add(f"{path}.{name[:80]}", "must have at most 1024 characters, printable ASCII")


@dataclass(frozen=True, slots=True)
class McpServer:
    """A server that speaks MCP over streamable HTTP."""

    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        check_url(found, f"{path}.url", self.url)
        check_headers(found, f"{path}.headers", self.headers)


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One HTTP call that is a tool. That `parameters` is a JSON Schema is checked with the document."""

    name: str = ""
    description: str = ""
    method: str = ""
    path: str = ""
    parameters: dict[str, Json] = field(default_factory=dict)
    idempotent: bool = False

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        check_tool_name(found, f"{path}.name", self.name)
        rules.check_text(found, f"{path}.description", self.description, maximum=4096, required=True)
        if self.method not in METHODS:
            found.add(f"{path}.method", f"must be one of {', '.join(METHODS)}")
        rules.check_json(found, f"{path}.parameters", self.parameters, maximum=MAX_SCHEMA_BYTES)
        self._check_path(found, f"{path}.path")

    def _check_path(self, found: Violations, path: str) -> None:
        if len(self.path) > MAX_URL or not _PATH.fullmatch(self.path):
            found.add(path, f"must begin with '/', have at most {MAX_URL} characters, and neither '?', '#' nor spaces")
            return
        if any(part in (".", "..") for part in self.path.split("/")):
            found.add(path, "must not hold '.' or '..' as a part: it stays below base_url")
        names = _PLACEHOLDER.findall(self.path)
        if "{" in _PLACEHOLDER.sub("", self.path) or "}" in _PLACEHOLDER.sub("", self.path):
            found.add(path, "must close each '{' with a '}'")
        properties = self.parameters.get("properties")
        known = properties if isinstance(properties, dict) else {}
        for name in dict.fromkeys(names):
            if name not in known:
                found.add(path, f"nothing fills {{{name[:80]}}}: it is not a property of parameters")


@dataclass(frozen=True, slots=True)
class HttpService:
    """A service whose operations are tools."""

    base_url: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    openapi: str = ""
    calls: tuple[HttpCall, ...] = ()

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`; what the document says is checked by the use case."""
        check_url(found, f"{path}.base_url", self.base_url)
        check_headers(found, f"{path}.headers", self.headers)
        if bool(self.openapi) == bool(self.calls):
            found.add(path, "exactly one of openapi and calls is required")
        rules.check_bytes(found, f"{path}.openapi", self.openapi, maximum=MAX_OPENAPI_BYTES)
        if len(self.calls) > MAX_CALLS:
            found.add(f"{path}.calls", f"must have at most {MAX_CALLS} entries")
        names: set[str] = set()
        for index, call in enumerate(self.calls[:MAX_CALLS]):
            call.check(found, f"{path}.calls[{index}]")
            if call.name in names:
                found.add(f"{path}.calls[{index}].name", "is a duplicate")
            names.add(call.name)
        if len(rules.canonical([encoded(call) for call in self.calls]).encode()) > MAX_CALLS_BYTES:
            found.add(f"{path}.calls", f"must have at most {MAX_CALLS_BYTES} bytes as JSON")


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
        _check_header_name(found, f"{path}.name", self.name)
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


NO_AUTH = ToolServerAuth()


@dataclass(frozen=True, slots=True)
class ToolServerSpec:
    """All that a caller may write of a tool server; the content of a revision."""

    display_name: str = ""
    mcp: McpServer | None = None
    http: HttpService | None = None
    auth: ToolServerAuth = NO_AUTH
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """`mcp`, `http`, or empty where neither is set."""
        return "mcp" if self.mcp is not None else "http" if self.http is not None else ""

    @property
    def weight(self) -> int:
        """About how many bytes it takes in a message, or a little less."""
        openapi = len(self.http.openapi) if self.http is not None else 0
        return openapi + rules.JSON_OVERHEAD * (len(rules.canonical(encoded(self))) - openapi)

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`; what an OpenAPI document says is checked by the use case."""
        rules.check_text(found, f"{path}.display_name", self.display_name, maximum=200)
        if (self.mcp is None) == (self.http is None):
            found.add(f"{path}.mcp", "exactly one of mcp and http is required")
        for server in (self.mcp, self.http):
            if server is not None:
                server.check(found, f"{path}.{self.kind}")
                self._check_auth_header(found, path, server.headers)
        self.auth.check(found, f"{path}.auth")
        rules.check_labels(found, f"{path}.labels", self.labels)

    def _check_auth_header(self, found: Violations, path: str, headers: Mapping[str, str]) -> None:
        own = self.auth.header
        if own is not None and own.name.lower() in {name.lower() for name in headers}:
            found.add(f"{path}.auth.header.name", "is a duplicate: `headers` has it, too")


@dataclass(frozen=True, slots=True)
class ToolServer:
    """One snapshot of a tool server. Times are UTC."""

    project: str
    id: str
    uid: str
    spec: ToolServerSpec
    revision: int
    create_time: datetime
    update_time: datetime

    ETAG_BYTES: ClassVar[int] = 9

    @property
    def etag(self) -> str:
        """Opaque token of the state: another after every write that changed something (AIP-154)."""
        return hashlib.blake2b(f"{self.uid}/{self.revision}".encode(), digest_size=self.ETAG_BYTES).hexdigest()

    def with_spec(self, spec: ToolServerSpec, now: datetime) -> "ToolServer":
        """Returns the next revision, with this content."""
        return replace(self, spec=spec, revision=self.revision + 1, update_time=max(now, self.update_time))


@dataclass(frozen=True, slots=True)
class ToolServerRevision:
    """One immutable snapshot's content, and who wrote it (AIP-162)."""

    number: int
    spec: ToolServerSpec
    create_time: datetime
    author: str = ""
    comment: str = ""
    changed_fields: tuple[str, ...] = ()


NOT_WRITABLE = frozenset({"project", "id", "uid", "revision", "etag", "create_time", "update_time"})
"""Output only, and `id`, which says which tool server is meant: a mask may name them, and they stay (AIP-203)."""

WRITABLE = frozenset(member.name for member in fields(ToolServerSpec))


def merge(found: Violations, current: ToolServerSpec, given: ToolServerSpec, paths: Sequence[str]) -> ToolServerSpec:
    """Returns `current` with the fields that `paths` name taken from `given`; `*` takes everything.

    `mcp.url`, `labels.k` and the like take over one field, or entry. Reports every path that names no field.
    """
    if "*" in paths:
        if len(paths) > 1:
            found.add("update_mask", "'*' must be the only path")
        return given
    merged: Any = current
    for path in paths:
        if path in NOT_WRITABLE:
            continue
        taken = _take(merged, given, path)
        if taken is None:
            found.add("update_mask", f"{path[:200]!r} is not a field of a tool server")
        else:
            merged = taken
    result: ToolServerSpec = merged
    return result


def differences(old: ToolServerSpec, new: ToolServerSpec) -> tuple[str, ...]:
    """Returns the paths of the fields that differ, in the order of the contract; empty when nothing does."""
    changed: list[str] = []
    for member in fields(ToolServerSpec):
        before, after = getattr(old, member.name), getattr(new, member.name)
        if member.name in _PARTS and before is not None and after is not None:
            changed += [
                f"{member.name}.{inner.name}"
                for inner in fields(before)
                if not _same(getattr(before, inner.name), getattr(after, inner.name))
            ]
        elif not _same(before, after):
            changed.append(member.name)
    return tuple(changed)


_PARTS: dict[str, type[Any]] = {"mcp": McpServer, "http": HttpService, "auth": ToolServerAuth}


@dataclass(frozen=True, slots=True)
class _Box:
    value: Any = None


def _same(one: Any, other: Any) -> bool:
    # Plain comparison takes True for 1.
    return rules.canonical(encoded(_Box(one))) == rules.canonical(encoded(_Box(other)))


def _take(merged: ToolServerSpec, given: ToolServerSpec, path: str) -> ToolServerSpec | None:
    head, dot, rest = path.partition(".")
    if head not in WRITABLE:
        return None
    if not dot:
        return _with(merged, head, getattr(given, head))
    if head == "labels" and rest:
        key = rest[1:-1] if len(rest) > 2 and rest[0] == rest[-1] == "`" else rest
        left = {other: value for other, value in merged.labels.items() if other != key}
        return replace(merged, labels=left | ({key: given.labels[key]} if key in given.labels else {}))
    part = _PARTS.get(head)
    if part is None or rest not in {member.name for member in fields(part)}:
        return None
    source = getattr(given, head)
    current: Any = getattr(merged, head)
    changes: dict[str, Any] = {rest: getattr(source if source is not None else part(), rest)}
    return _with(merged, head, replace(current if current is not None else part(), **changes))


def _with(spec: ToolServerSpec, name: str, value: Any) -> ToolServerSpec:
    changes: dict[str, Any] = {name: value}
    return replace(spec, **changes)


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            _URL.fullmatch(url) is not None
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and "@" not in parts.netloc
            and "#" not in url
            and "\\" not in url
        )
    except ValueError:
        return False


def _check_header_name(found: Violations, path: str, name: str) -> None:
    if not _TOKEN.fullmatch(name):
        found.add(path, f"{name[:80]!r} is not the name of a header (RFC 9110): 1 to 128 letters, digits and '-'")
    elif name.lower() in _OF_THE_PROTOCOL:
        found.add(path, f"{name!r} is set by the gateway itself")


def _check_secret(found: Violations, path: str, name: str) -> None:
    if not _SECRET.fullmatch(name):
        found.add(
            path,
            "must be the name of a secret: letters, digits and '.', '_', '-', with a letter or digit at both ends, "
            "at most 128 characters; never its value",
        )
