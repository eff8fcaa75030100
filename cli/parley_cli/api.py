"""A client of the gateway's HTTP API, for people at a terminal."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from parley_cli.errors import LocalError
from parley_cli.processes.ports import is_loopback_url

DEFAULT_URL = "http://127.0.0.1:8080"
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 120.0
"""How long the server may be silent, without even a keep-alive."""

Json = dict[str, Any]


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


@dataclass(slots=True)
class Answer:
    """One streamed answer: iterate `pieces`; `session_id` is known before the first one."""

    session_id: str
    pieces: Iterator[str] = field(repr=False)


class Api:
    """The HTTP API at `url` (PARLEY_URL, or this machine). Every method raises ApiError or Unreachable.

    The API key in PARLEY_API_KEY, where there is one, goes with every request.

    A proxy in the environment is used for other machines only.
    """

    def __init__(self, url: str | None = None, *, project: str | None = None) -> None:
        key = os.environ.get("PARLEY_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url = (url or os.environ.get("PARLEY_URL") or DEFAULT_URL).rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers | ({"X-Project-ID": project} if project else {}),
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            trust_env=not is_loopback_url(self.url),
        )

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
        """Send an object, or nothing, and return the object that comes back (empty for 204)."""
        options: dict[str, Any] = {"params": params or {}} | ({"json": body} if body is not None else {})
        answer = self._send(method, path, **options)
        return {} if answer.status_code == httpx.codes.NO_CONTENT else self._object(answer)

    def list_all(self, path: str, limit: int, **params: str | int | None) -> list[Json]:
        """Return the first `limit` objects of a list, over as many pages as it takes."""
        found: list[Json] = []
        token: str | None = None
        while len(found) < limit:
            page = self.get(path, page_size=min(limit - len(found), 100), page_token=token, **params)
            found += page.get("data", [])
            token = page.get("next_page_token") or None
            if token is None:
                break
        return found[:limit]

    @contextmanager
    def chat(self, agent_id: str, text: str, *, session_id: str | None, user_id: str | None = None) -> Iterator[Answer]:
        """Run one turn; the stream is closed, which cancels the turn, when the block ends early."""
        body: Json = {"model": agent_id, "messages": [{"role": "user", "content": text}], "stream": True}
        body |= {key: value for key, value in (("session_id", session_id), ("user_id", user_id)) if value}
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.is_error:
                    response.read()
                    raise _refusal(response)
                yield Answer(response.headers.get("X-Session-ID", ""), _pieces(response))
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unreachable(self.url, str(error) or type(error).__name__) from None

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unreachable(self.url, str(error) or type(error).__name__) from None
        if response.is_error:
            raise _refusal(response)
        return response

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


def _pieces(response: httpx.Response) -> Iterator[str]:
    """Yield the text of a stream of chunks; a stream that is cut off, or ends in an error, raises ApiError."""
    for line in response.iter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise _error(chunk["error"], response.status_code)
        for choice in chunk.get("choices", []):
            if text := choice.get("delta", {}).get("content"):
                yield text
    raise ApiError("stream_broken", "the answer was cut off; it was not stored")
