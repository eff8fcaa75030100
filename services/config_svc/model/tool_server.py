"""Tool servers: where tools are and how to reach them, snapshot by snapshot. Secrets by name only."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, ClassVar

from config_svc.model import rules
from config_svc.model.json_form import encoded
from config_svc.model.outgoing_http import MAX_URL, check_headers, check_url
from config_svc.model.rules import KIB, Json
from config_svc.model.tool_server_auth import NO_AUTH, ToolServerAuth
from config_svc.model.tools import check_tool_name
from servicekit.errors import Violations

MAX_CALLS = 128
MAX_CALLS_BYTES = 512 * KIB
MAX_OPENAPI_BYTES = 1024 * KIB
MAX_SCHEMA_BYTES = 64 * KIB
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

KINDS = ("mcp", "http", "a2a")
"""What a tool server may speak."""

_PATH = re.compile(r"/[\x21-\x22\x24-\x3e\x40-\x7e]*")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


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
class A2aAgent:
    """An agent elsewhere that speaks A2A."""

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
class ToolServerSpec:
    """All that a caller may write of a tool server; the content of a revision."""

    display_name: str = ""
    mcp: McpServer | None = None
    http: HttpService | None = None
    auth: ToolServerAuth = NO_AUTH
    labels: dict[str, str] = field(default_factory=dict)
    a2a: A2aAgent | None = None

    @property
    def kind(self) -> str:
        """`mcp`, `http` or `a2a`; empty where none is set."""
        return next((name for name in KINDS if getattr(self, name) is not None), "")

    @property
    def weight(self) -> int:
        """The approximate number of bytes that it takes in a message, rather too low than too high."""
        openapi = len(self.http.openapi) if self.http is not None else 0
        return openapi + rules.JSON_OVERHEAD * (len(rules.canonical(encoded(self))) - openapi)

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`; what an OpenAPI document says is checked by the use case."""
        rules.check_text(found, f"{path}.display_name", self.display_name, maximum=200)
        servers = [one for one in (self.mcp, self.http, self.a2a) if one is not None]
        if len(servers) != 1:
            found.add(f"{path}.mcp", "exactly one of mcp, http and a2a is required")
        for name in KINDS:
            server: McpServer | HttpService | A2aAgent | None = getattr(self, name)
            if server is not None:
                server.check(found, f"{path}.{name}")
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


_PARTS: dict[str, type[Any]] = {"mcp": McpServer, "http": HttpService, "a2a": A2aAgent, "auth": ToolServerAuth}


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
