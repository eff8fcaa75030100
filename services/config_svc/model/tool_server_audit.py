"""What the audit log shows of a tool server: names of secrets and headers, never a value that could be a secret."""

import hashlib
from urllib.parse import urlsplit, urlunsplit

from config_svc.model.json_form import encoded
from config_svc.model.rules import Json
from config_svc.model.tool_server import ToolServer

_URLS = frozenset({"url", "base_url", "token_url", "resource"})


def audited(server: ToolServer) -> dict[str, Json]:
    """Returns the state of a tool server as the audit log has it."""
    state: dict[str, Json] = {"id": server.id, "uid": server.uid, "revision": server.revision}
    return state | {name: _audited(name, value) for name, value in encoded(server.spec).items()}


def _audited(name: str, value: Json) -> Json:
    if name == "headers" and isinstance(value, dict):
        names: list[Json] = [*sorted(value)]
        return names
    if name == "openapi" and isinstance(value, str):
        content = value.encode()
        return f"{len(content)} bytes, sha256:{hashlib.sha256(content).hexdigest()}"
    if name in _URLS and isinstance(value, str):
        return _without_query(value)
    if isinstance(value, dict) and name not in ("labels", "parameters"):
        return {inner: _audited(inner, one) for inner, one in value.items()}
    if isinstance(value, list):
        return [_audited("", one) for one in value]
    return value


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="…" if parts.query else ""))
