"""Maps errors of every kind of provider to errors for callers."""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import structlog

from chat_gateway.model.provider_errors import (
    ProviderBadResponse,
    ProviderMisconfigured,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from servicekit.errors import ServiceError
from servicekit.values import value

log = structlog.get_logger(__name__)

MAX_ERROR_BYTES = 64 * 1024
"""What is read of an error's body."""
MAX_MESSAGE = 500
MAX_RETRY_AFTER = 10 * 365 * 86400.0
"""Seconds; a provider that says more says nothing that helps."""

_OPERATORS_FAULT = frozenset({401, 402, 403, 404})
_KEYS = re.compile(
    r"(?i)\bbearer\s+\S+|\b(?:(?:sk|rk|pk|key)[-_]|gsk_|xai-|AIza)[-_*.A-Za-z0-9]{4,}|\b[A-Za-z0-9_-]{32,}"
)
_DELAY = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?s")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_CONTEXT_LENGTH = re.compile(
    r"(?i)context[ _](?:length|window|size|limit)|(?:prompt|input) is too long|exceeds? the (?:maximum|available) "
    r"(?:number of tokens|context)|input token count|too many (?:input )?tokens|maximum (?:prompt|input) length"
    r"|range of input length|(?:model|prompt) token limit|prompt token count|max_prompt_tokens"
    r"|reduce the length of (?:the|your) (?:messages|prompt|input)"
    r"|`inputs` (?:tokens \+ `max_new_tokens`|must have less)"
)
_CONTENT_FILTER = re.compile(
    r"(?i)content[ _]?(?:filter|management policy|policy[ _]violation)|responsible_?ai_?policy|moderation"
    r"|data_?inspection|content exists risk|(?:safety|usage) (?:system|policy)|inappropriate content"
)
_STATUSES = {
    "overloaded_error": 529,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "authentication_error": 401,
    "api_key_invalid": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "unauthenticated": 401,
    "not_found_error": 404,
    "billing_error": 402,
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "content_filter": 400,
    "context_length_exceeded": 400,
}


@value
class UpstreamError:
    """What a provider says of an error; empty where it does not. `status` is 0 where the body names none."""

    message: str = ""
    code: str = ""
    param: str = ""
    status: int = 0
    retry_after: float | None = None
    """Seconds to wait before the next call, if the body has them."""


def read_error(body: bytes) -> UpstreamError:
    """Returns what an error's body says, in any of the forms that providers have for it; never raises."""
    try:
        said = json.loads(body.decode("utf-8", "replace"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return UpstreamError(message=body[:MAX_MESSAGE].decode("utf-8", "replace"))
    if isinstance(said, list):
        said = said[0] if said else None
    if not isinstance(said, dict):
        return UpstreamError(message=_text(said))
    error = said.get("error")
    found: dict[str, Any] = error if isinstance(error, dict) else said
    message = _text(error) if isinstance(error, str) else _text(found.get("message")) or _text(found.get("detail"))
    names = [found.get(name) for name in ("code", "status", "type", "finish_reason")]
    code = next((name for name in names if isinstance(name, str) and _CODE.fullmatch(name)), "")
    details = found.get("details")
    reasons = [one.get("reason") for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    statuses = [_status(name) for name in (*reasons, *names)]
    status = next(filter(None, statuses), 0)
    return UpstreamError(message, code, _text(found.get("param"))[:200], status, _retry_delay(details))


class ErrorReader:
    """Says what one provider's errors mean. With `show`, callers see the provider's own words, without its keys."""

    def __init__(self, provider: str, key: str | None, *, show: bool) -> None:
        self._provider = provider
        self._key = key
        self._show = show

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """Returns what an answer of a status other than 200 means, and logs it."""
        error = read_error(body)
        if 300 <= status < 400:
            host = _host(headers.get("location", ""))
            log.warning("provider_redirects", provider=self._provider, status=status, host=host)
            return ProviderMisconfigured(self._provider, f"redirects to {host}, which is not followed", status=status)
        self._log("provider_refused", status, error)
        if status < 200 or 200 < status < 300:
            return ProviderBadResponse(self._provider, f"an answer of status {status}")
        after = retry_after_ms(headers.get("retry-after-ms"))
        after = retry_after(headers.get("retry-after")) if after is None else after
        return self._meaning(status, error, after, f"answered with status {status}")

    def reported(self, body: bytes) -> ServiceError:
        """Returns the meaning of an error in place of an answer, and logs it."""
        error = read_error(body)
        self._log("provider_error", error.status, error)
        why = "reported an error instead of an answer"
        if error.status < 400:
            return ProviderUnavailable(self._provider, why)
        return self._meaning(error.status, error, None, why)

    def _meaning(self, status: int, error: UpstreamError, after: float | None, why: str) -> ServiceError:
        code = _known_code(error)
        after = error.retry_after if after is None else after
        if status == 429:
            return ProviderRateLimited(self._provider, retry_after=after)
        if status == 408 or (status >= 500 and (status > 500 or code != "context_length_exceeded")):
            return ProviderUnavailable(self._provider, why, status=status, retry_after=1.0 if after is None else after)
        if (status in _OPERATORS_FAULT or error.status == 401) and code != "content_filter":
            return ProviderMisconfigured(self._provider, why, status=status)
        return ProviderRejected(
            self._provider,
            status,
            code=code,
            param=error.param if self._show else "",
            message=self._clean(error.message) if self._show else "",
        )

    def _log(self, event: str, status: int, error: UpstreamError) -> None:
        log.warning(event, provider=self._provider, status=status, code=error.code, message=self._clean(error.message))

    def _clean(self, message: str) -> str:
        if self._key:
            message = message.replace(self._key, "[key]")
        message = _KEYS.sub("[key]", message[: 4 * MAX_MESSAGE])
        printable = "".join(character if character.isprintable() else " " for character in message)
        return printable if len(printable) <= MAX_MESSAGE else printable[: MAX_MESSAGE - 1] + "…"


def retry_after(text: str | None) -> float | None:
    """Returns the seconds that a `Retry-After` says, a number or a date; None for what is neither or absurd."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return None
        seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    if not math.isfinite(seconds) or seconds > MAX_RETRY_AFTER:
        return None
    return max(seconds, 0.0)


def retry_after_ms(text: str | None) -> float | None:
    """Returns the seconds of OpenAI's `retry-after-ms`; None if it is not a number."""
    try:
        milliseconds = float(text) if text is not None else None
    except ValueError:
        return None
    return None if milliseconds is None else retry_after(str(milliseconds / 1000))


def _retry_delay(details: object) -> float | None:
    """Returns the seconds of a `google.rpc.RetryInfo` among the details, such as `"30.5s"`."""
    for one in details if isinstance(details, list) else ():
        delay = one.get("retryDelay") if isinstance(one, dict) else None
        if isinstance(delay, str) and _DELAY.fullmatch(delay):
            return retry_after(delay[:-1])
    return None


def _known_code(error: UpstreamError) -> str:
    """OpenAI's code for what agents and fallbacks look at; the provider's own for everything else."""
    if error.code in ("context_length_exceeded", "content_filter"):
        return error.code
    if _CONTEXT_LENGTH.search(error.code) or _CONTEXT_LENGTH.search(error.message):
        return "context_length_exceeded"
    if _CONTENT_FILTER.search(error.code) or _CONTENT_FILTER.search(error.message):
        return "content_filter"
    return error.code


def _status(name: object) -> int:
    if isinstance(name, str):
        return int(name) if name.isascii() and name.isdigit() and len(name) == 3 else _STATUSES.get(name.lower(), 0)
    return name if type(name) is int and 400 <= name < 600 else 0


def _host(location: str) -> str:
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    return repr(host[:255]) if host else "another path"


def _text(said: object) -> str:
    return said[: 8 * MAX_MESSAGE] if isinstance(said, str) else ""
