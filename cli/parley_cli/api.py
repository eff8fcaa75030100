"""A client of the gateway's HTTP API, for people at a terminal."""

import json
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from parley_cli.errors import LocalError
from parley_cli.processes.ports import is_loopback_url

DEFAULT_URL = "http://127.0.0.1:8080"
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 120.0
"""How long the server may be silent, without even a keep-alive."""

Json = dict[str, Any]

_PAGE_SIZE = 100
_FAILED = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL)
_ENDS = {"length": "[cut at the limit]", "content_filter": "[stopped by the content filter]"}
"""What there is to say of an answer by its finish reason."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that the server refused."""

    field: str
    description: str


class ApiError(LocalError):
    """The server refused, or its answer is invalid; one line with its code."""

    def __init__(self, code: str, message: str, status: int = 0, violations: Sequence[FieldViolation] = ()) -> None:
        self.message = " ".join(message.split())
        super().__init__(f"{code}: {self.message}")
        self.code = code
        self.status = status
        self.violations = tuple(violations)


class Unreachable(LocalError):
    """No server answers at the address."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"cannot reach {url} ({why}); is `parley up` running? PARLEY_URL names another address")


class NotUtf8(LocalError):
    """Text of the caller's that can't be sent."""

    def __init__(self) -> None:
        super().__init__("text that is not UTF-8 can't be sent")


@dataclass(slots=True)
class Answer:
    """One streamed answer: iterate `pieces`; `session_id` is known before the first one, `notes` after the last.

    A note is what is not text: a call of the caller's tools, or that the answer was cut. Calls that the gateway makes
    are reported while they happen.
    """

    session_id: str
    pieces: Iterator[str] = field(repr=False)
    notes: list[str] = field(default_factory=list)


def api_key() -> str | None:
    """Returns the API key in PARLEY_API_KEY; None where there is none. Raises LocalError for what can be no key."""
    key = os.environ.get("PARLEY_API_KEY", "")
    _check_header("PARLEY_API_KEY", key)
    return key or None


def path_of(*parts: str) -> str:
    """Returns a path below /v1 with each part quoted. Raises LocalError for a part that is not an id."""
    for part in parts:
        if part in ("", ".", ".."):
            raise LocalError(f"{part!r} is not an id")
    try:
        return "/".join(("/v1", *(quote(part, safe=":") for part in parts)))
    except UnicodeError:
        raise NotUtf8 from None


class Api:
    """The HTTP API at `url` (PARLEY_URL, or this machine). Every method raises ApiError or Unreachable.

    The API key in PARLEY_API_KEY, where there is one, goes with every request.

    A proxy in the environment is used for other machines only.
    """

    def __init__(self, url: str | None = None, *, project: str | None = None, timeout: float = SILENCE_SECONDS) -> None:
        key = api_key()
        _check_header("--project", project or "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url = (url or os.environ.get("PARLEY_URL") or DEFAULT_URL).rstrip("/")
        try:
            loopback = is_loopback_url(self.url)
            # Reading all authorities takes longer than most commands; where nothing is encrypted, none is trusted.
            unencrypted = loopback and self.url.startswith("http:")
            self._http = httpx.Client(
                base_url=self.url,
                headers=headers | ({"X-Project-ID": project} if project else {}),
                timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
                trust_env=not loopback,
                verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if unencrypted else True,
            )
        except (ImportError, ValueError, httpx.InvalidURL, OSError) as error:  # a proxy, certificates, or the URL
            raise LocalError(" ".join(f"cannot connect to {self.url}: {error}".split())) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, **params: str | int | None) -> Json:
        """GET an object."""
        return self._object(self._send("GET", path, params={k: v for k, v in params.items() if v is not None}))

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str | int] | None = None,
    ) -> Json:
        """Sends an object, or nothing,, and returns the object that comes back (empty for 204)."""
        options: dict[str, Any] = {"params": params or {}} | ({"json": body} if body is not None else {})
        answer = self._send(method, path, **options)
        return {} if answer.status_code == httpx.codes.NO_CONTENT else self._object(answer)

    def list_all(self, path: str, **params: str | int | None) -> list[Json]:
        """Returns all objects of a list, over as many pages as it takes."""
        return self.list_first(path, 0, **params)[0]

    def list_first(self, path: str, limit: int, **params: str | int | None) -> tuple[list[Json], bool]:
        """Returns the first `limit` objects of a list (0: all), and whether there are more of them."""
        found: list[Json] = []
        token: str | None = None
        while True:
            size = min(limit - len(found), _PAGE_SIZE) if limit else _PAGE_SIZE
            page = self.get(path, page_size=size, page_token=token, **params)
            found += page.get("data", [])
            token = page.get("next_page_token") or None
            if token is None or 0 < limit <= len(found):
                break
        return (found[:limit], token is not None or len(found) > limit) if limit else (found, False)

    @contextmanager
    def chat(
        self,
        agent_id: str,
        text: str,
        *,
        session_id: str | None,
        user_id: str | None = None,
        on_tool_call: Callable[[str], None] = lambda line: None,
    ) -> Iterator[Answer]:
        """Runs one turn; the stream is closed, which cancels the turn, when the block ends early.

        `on_tool_call` is called with a line when the gateway begins a tool call, and when that has ended.
        """
        answer = Answer("", iter(()))
        body: Json = {"model": agent_id, "messages": [{"role": "user", "content": text}], "stream": True}
        body |= {key: value for key, value in (("session_id", session_id), ("user_id", user_id)) if value}
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.is_error:
                    response.read()
                    raise _refusal(response)
                answer.session_id = response.headers.get("X-Session-ID", "")
                answer.pieces = _pieces(response, answer.notes, on_tool_call)
                yield answer
        except UnicodeEncodeError:
            raise NotUtf8 from None
        except _FAILED as error:
            raise self._unreachable(error) from None

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except UnicodeError:
            raise NotUtf8 from None
        except _FAILED as error:
            raise self._unreachable(error) from None
        if response.is_error:
            raise _refusal(response)
        return response

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(self.url, " ".join(str(error).split()) or type(error).__name__)

    def _object(self, response: httpx.Response) -> Json:
        try:
            value = response.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ApiError("bad_response", f"{self.url} did not answer with a JSON object; is it Parley?")
        return value


def _error(error: Mapping[str, Any], status: int) -> ApiError:
    violations = [
        FieldViolation(str(one.get("field", "")), str(one.get("description", "")))
        for one in error.get("violations") or ()
    ]
    code = str(error.get("code") or error.get("type") or status)
    return ApiError(code, str(error.get("message") or ""), status, violations)


def _refusal(response: httpx.Response) -> ApiError:
    try:
        return _error(response.json()["error"], response.status_code)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiError(str(response.status_code), response.reason_phrase, response.status_code)


def _pieces(response: httpx.Response, notes: list[str], on_tool_call: Callable[[str], None]) -> Iterator[str]:
    """Yields the text of a stream of chunks; a stream that is cut off, or ends in an error, raises ApiError."""
    calls: dict[int, dict[str, str]] = {}
    for line in response.iter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            notes[:0] = [f"[calls {call['name']}({call['arguments']})]" for call in calls.values()]
            return
        chunk = _chunk(data)
        if "error" in chunk:
            raise _error(chunk["error"], response.status_code)
        if report := _activity(chunk.get("parley") or {}):
            on_tool_call(report)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            yield from (text for text in (delta.get("content"), delta.get("refusal")) if text)
            _add_calls(calls, delta.get("tool_calls") or ())
            if note := _ENDS.get(choice.get("finish_reason") or ""):
                notes.append(note)
    raise ApiError("stream_broken", "the answer was cut off; it was not stored")


def _chunk(data: str) -> Json:
    try:
        chunk = json.loads(data)
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict):
        raise ApiError("bad_response", "the stream holds what is no chunk of an answer; is it Parley?")
    return chunk


def _activity(note: Mapping[str, Any]) -> str | None:
    """Returns the line for a tool call that the gateway begins or has ended; None for what is neither."""
    name = note.get("name")
    match note.get("event"):
        case "tool_call_started":
            return f"[calls {name}({note.get('arguments')})]"
        case "tool_call_finished":
            return f"[{name}: {note.get('outcome')}, {note.get('duration_ms')} ms]"
        case _:
            return None


def _add_calls(calls: dict[int, dict[str, str]], deltas: Iterable[Mapping[str, Any]]) -> None:
    """Adds the next pieces of tool calls, which come by their index."""
    for delta in deltas:
        call = calls.setdefault(delta.get("index", len(calls)), {"name": "", "arguments": ""})
        function = delta.get("function") or {}
        for key in call:
            call[key] += function.get(key) or ""


def _check_header(name: str, value: str) -> None:
    if not (value.isascii() and value.isprintable() and value == value.strip()):
        raise LocalError(f"{name} must be printable ASCII, without spaces or line breaks around it")
