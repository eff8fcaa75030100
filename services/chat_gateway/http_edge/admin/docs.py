"""/docs: Swagger UI, served from its wheel, and the OpenAPI document."""

import functools
from pathlib import Path

from litestar import Litestar, Response, get
from litestar.params import FromPath
from swagger_ui_bundle import swagger_ui_path

from chat_gateway.http_edge.admin.openapi import document
from chat_gateway.http_edge.admin.routing import Injected, JsonRequest
from chat_gateway.http_edge.wire.auth import OPEN
from chat_gateway.http_edge.wire.errors import RouteNotFound

DOCUMENT_PATH = "/docs/openapi.json"

_FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_PAGE = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>Parley</title>
    <link rel="stylesheet" href="/docs/swagger-ui.css">
    <link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="/docs/swagger-ui-bundle.js"></script>
    <script src="/docs/start.js"></script>
  </body>
</html>
"""
_START = f"""SwaggerUIBundle({{
  url: "{DOCUMENT_PATH}",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
}});
"""
_HEADERS = {"Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"}


@get("/docs", include_in_schema=False, media_type="text/html", scope=OPEN)
async def docs_page() -> Response[str]:
    """Returns the page, which loads nothing from elsewhere."""
    return Response(_PAGE, headers=_HEADERS, media_type="text/html")


@get(["/docs/openapi.json", "/openapi.json"], include_in_schema=False, scope=OPEN)
async def openapi_document(request: JsonRequest, deps: Injected) -> Response[bytes]:
    """Returns the OpenAPI document, built on first use."""
    return Response(_document(request.app, deps.authenticated), media_type="application/json")


@get("/docs/{name:str}", include_in_schema=False, sync_to_thread=True, scope=OPEN)
def docs_file(name: FromPath[str]) -> Response[bytes]:
    """Returns a file of Swagger UI."""
    if name == "start.js":
        return Response(_START.encode(), media_type="text/javascript")
    if name not in _FILES:
        raise RouteNotFound("GET", f"/docs/{name}")
    content = (Path(str(swagger_ui_path)) / name).read_bytes()
    return Response(content, headers={"Cache-Control": "max-age=86400"}, media_type=_FILES[name])


@functools.cache
def _document(app: Litestar, authenticated: bool) -> bytes:
    return document(app, authenticated=authenticated)
