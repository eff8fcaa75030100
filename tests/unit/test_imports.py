"""What a service does not need is not imported: it would be resident in every replica, and slow every start."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

NEVER = {"alembic", "httpx", "jwt", "typer", "parley_cli"}
"""Migrations, tokens until they are configured, the CLI.

SQLAlchemy's ORM is not among them: `sqlalchemy.ext.asyncio` imports it, and config_svc has the 6 MB for that.
"""

NOT_OURS = {
    "config_svc": {"aiohttp", "opentelemetry", "redis", "hiredis", "litestar", "uvicorn", "httptools"},
    "session_svc": {"aiohttp", "sqlalchemy", "psycopg", "jsonschema", "re2", "litestar", "uvicorn", "httptools"},
    "chat_gateway": {"opentelemetry", "sqlalchemy", "psycopg", "jsonschema", "re2", "redis", "hiredis", "a2a"},
}
"""Traces until they are configured, but for session_svc: redis-py imports OpenTelemetry where it is installed."""


def printed_by(code: str) -> list[str]:
    """Returns the words that a fresh interpreter prints for a program."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("service", NOT_OURS)
def test_a_service_imports_only_what_it_needs(service: str) -> None:
    code = f"import sys, {service}.settings, servicekit.lifecycle, {service}.wiring; print(*sys.modules)"
    imported = set(printed_by(code))
    assert f"{service}.wiring" in imported
    assert imported.isdisjoint(NEVER | NOT_OURS[service])


def test_the_gateway_makes_its_routes_without_models_of_pydantic_and_attrs() -> None:
    code = (
        "import sys, chat_gateway.wiring; from chat_gateway.http_edge.admin.application import admin_application;"
        "admin_application(); print(*sys.modules)"
    )
    imported = set(printed_by(code))
    assert "litestar.app" in imported
    assert imported.isdisjoint({"pydantic.v1", "litestar.plugins.pydantic", "litestar.plugins.attrs"})


def test_authorities_are_read_once() -> None:
    code = (
        "import gc, ssl, chat_gateway.wiring; from aiohttp import connector;"
        "from servicekit.tls import system_authorities;"
        "print(connector._SSL_CONTEXT_VERIFIED is system_authorities());"
        "made = [one for one in gc.get_objects() if isinstance(one, ssl.SSLContext)];"
        "print(sum(one.cert_store_stats()['x509'] > 0 for one in made) <= 1)"
    )
    assert printed_by(code) == ["True", "True"]


def test_tools_of_mcp_servers_load_only_the_client_half_of_the_sdk() -> None:
    code = (
        "import asyncio, sys; from chat_gateway.tools.mcp_sdk import load_sdk; asyncio.run(load_sdk());"
        "print(*sys.modules); from mcp import ClientSession; from mcp.client import Client"
    )
    imported = set(printed_by(code))
    assert "mcp.client.session" in imported
    assert imported.isdisjoint({"starlette", "cryptography", "sse_starlette", "mcp.server"})
