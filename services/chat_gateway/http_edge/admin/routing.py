"""Shared by the routes: parameters, lists, responses and the strict request body."""

import asyncio
import enum
from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from litestar import Request, Response
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, QueryParameter, SkipValidation

from chat_gateway.http_edge.dependencies import DEPENDENCIES, Dependencies, HttpSettings
from chat_gateway.http_edge.wire.bodies import SMALL_BODY, check_width, decode, is_large, read_body, unpack
from servicekit.errors import InvalidArgument, Violation

T = TypeVar("T")
R = TypeVar("R")

VERB = "~"
"""The prefix of a custom verb in a route's path: `/v1/sessions/{id}:fork` is routed as `/v1/sessions/{id}/~fork`, since
the framework's path parameters are whole segments. No id can begin with it."""

HELD_BYTES = "parley.held_bytes"
"""Where in the scope of a request is what it holds of the memory budget."""
_MAX_PACKED = 1032
"""How many times its size gzip unpacks to at most."""

Injected = NamedDependency[SkipValidation[Dependencies]]
Project = NamedDependency[str]
"""The project that a request is about."""
PageSize = Annotated[
    int, QueryParameter(ge=0, le=2**31 - 1, description="How many to return; the service's default when 0.")
]
PageToken = Annotated[str, QueryParameter(description="The next_page_token of the previous page.")]
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", description="The etag that must be current.")]
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key", description="A UUID: a repeat within 24 hours returns the result of the first request."
    ),
]
Filter = Annotated[str, QueryParameter(description="A subset of AIP-160.")]
OrderBy = Annotated[
    str, QueryParameter(description="`id`, `create_time` or `update_time`; ` desc` reverses the order.")
]
Etag = Annotated[str, QueryParameter(description="The etag that must be the current one.")]
UserId = Annotated[
    str | None, HeaderParameter(name="X-User-ID", description="If given, only this user's sessions are visible.")
]

ValidateOnly = Annotated[bool, QueryParameter(description="Validate only, and store nothing.")]
Comment = Annotated[str, QueryParameter(description="A note kept with the revision.")]

JSON_LINES = "application/x-ndjson"
"""The media type of what is streamed as one JSON value per line."""


class JsonLines(enum.Enum):
    """Whether a route answers with JSON lines: its option `json_lines`, for the OpenAPI document."""

    ONLY = "only"
    ON_REQUEST = "on request"


ETAG_HEADER = [
    ResponseHeader(name="ETag", value='""', description="The current state's etag.", documentation_only=True)
]


_encode = msgspec.json.Encoder().encode


class Page(msgspec.Struct, Generic[T], kw_only=True):
    """A page of a list."""

    data: list[T]
    next_page_token: str = ""
    """Empty on the last page."""
    object: str = "list"


def dependencies_of(scope: Any) -> Dependencies:
    """Returns what a request's route uses of the rest of the gateway."""
    dependencies: Dependencies = scope[DEPENDENCIES]
    return dependencies


class JsonRequest(Request[Any, Any, Any]):
    """A request whose JSON body is read within the edge's bounds and decoded straight into the handler's type."""

    _whole: bytes | None = None
    _held: int = 0

    async def body(self) -> bytes:
        """Returns the body. Raises `MessageTooLarge`, `BodyTimeout`, `ClientGone`; for a large one `TurnQueueFull`."""
        if self._whole is None:
            settings = self._settings
            limit = settings.max_admin_body_bytes
            body = await read_body(self.receive, limit, settings.body_timeout, self._hold)
            if encoding := self.headers.get("content-encoding", "").encode("latin-1"):
                if len(body) > SMALL_BODY // _MAX_PACKED:
                    await self._hold()  # nobody knows how large it will be
                body = await asyncio.to_thread(unpack, body, encoding, limit)
            self._whole = body
        return self._whole

    async def json(self) -> Any:
        """Returns the body, strictly decoded. Raises `MalformedBody` that names the field that is wrong."""
        field = self.route_handler.parsed_data_field
        decoder = msgspec.json.Decoder(Any if field is None else field.annotation)

        def decoded(body: bytes) -> Any:
            check_width(body)
            return decode(decoder.decode, body)

        body = await self.body()
        if not is_large(body):
            return decoded(body)
        async with self._settings.decoding.held(len(body)):
            return await asyncio.to_thread(decoded, body)

    @property
    def _settings(self) -> HttpSettings:
        return dependencies_of(self.scope).settings

    async def _hold(self) -> None:
        """Has a large body count in the memory budget, until the request is over: the edge releases it."""
        if not self._held:
            self._held = await self._settings.memory.take(self._settings.max_admin_body_bytes)
            self.scope[HELD_BYTES] = self._held  # type: ignore[literal-required]


def json_line(value: Any) -> bytes:
    """Returns a value as one line of JSON."""
    return _encode(value) + b"\n"


def merged_etag(if_match: str | None, in_body: str | None) -> str:
    """Returns the etag that must be current, `""` for any. Raises `InvalidArgument` where header and body differ."""
    header = "" if if_match is None or if_match.strip() == "*" else if_match.strip().removeprefix("W/").strip('"')
    if header and in_body and header != in_body:
        raise InvalidArgument([Violation("etag", "must be the same in the body and in If-Match")])
    return in_body or header


def with_etag(content: R, etag: str, headers: Mapping[str, str] | None = None) -> Response[R]:
    """Returns a response that carries the object's etag as a header, too."""
    return Response(content, headers={"ETag": f'"{etag}"', **(headers or {})})
