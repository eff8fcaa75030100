"""Tokens by OAuth 2.0 client credentials (RFC 6749 4.4), kept until shortly before they end."""

import asyncio
import base64
import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote_plus, urlencode

import aiohttp
import msgspec

from chat_gateway.model.tool_servers import OauthClientCredentials
from chat_gateway.tools.credentials import CredentialsRefused
from servicekit.egress import EgressDenied
from servicekit.egress_http import GuardedClient, ResponseTooLarge, read_bounded

MAX_ANSWER_BYTES = 64 * 1024
MAX_TOKEN = 16 * 1024

_SECONDS = 10.0
_DEFAULT_LIFE = 300.0
_MAX_LIFE = 86_400.0
_EARLY = 30.0
_PAUSE = 5.0
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")


class _Answer(msgspec.Struct):
    """What a token endpoint says (RFC 6749 5.1, 5.2)."""

    access_token: str = ""
    token_type: str = ""
    expires_in: float | str | None = None
    error: str = ""


class OauthCredentials:
    """Implements `Credentials`. Makes one request at a time; a failed one is not repeated at once."""

    def __init__(
        self,
        config: OauthClientCredentials,
        client_secret: str,
        client: GuardedClient,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._secret = client_secret
        self._client = client
        self._clock = clock
        self._token = ""
        self._previous = ""
        self._renew_at = float("-inf")
        self._fetch: asyncio.Task[None] | None = None
        self._failed: tuple[float, CredentialsRefused | EgressDenied] | None = None
        self._in_body = False

    async def headers(self) -> Mapping[str, str]:
        if not self._token or self._clock() >= self._renew_at:
            if self._failed is not None and self._clock() < self._failed[0]:
                raise self._failed[1].with_traceback(None)
            if self._fetch is None or self._fetch.done():
                self._fetch = asyncio.get_running_loop().create_task(self._renew())
                self._fetch.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left
            await asyncio.shield(self._fetch)  # others wait for it, too
        return {"Authorization": f"Bearer {self._token}"}

    def refused(self, headers: Mapping[str, str]) -> bool:
        if headers.get("Authorization") == f"Bearer {self._token}":
            self._renew_at = float("-inf")
        return True

    def secrets(self) -> tuple[str, ...]:
        return tuple(filter(None, (self._secret, self._basic(), self._token, self._previous)))

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await self._ask()
        except EgressDenied as error:
            self._failed = (self._clock() + _PAUSE, error)
            raise
        except (TimeoutError, aiohttp.ClientError, OSError, ResponseTooLarge, ValueError, RecursionError):
            raise self._refuse("its token endpoint can't be reached, or does not answer as OAuth says") from None
        if answer.error or not _usable(answer):
            code = f" ({answer.error})" if _ERROR_CODE.fullmatch(answer.error) else ""
            raise self._refuse(f"its token endpoint gives no bearer token{code}")
        life = _life(answer)
        self._previous, self._token, self._failed = self._token, answer.access_token, None
        self._renew_at = self._clock() + max(life - _EARLY, life / 2)

    def _refuse(self, why: str) -> CredentialsRefused:
        error = CredentialsRefused(f"can't be called: {why}")
        self._failed = (self._clock() + _PAUSE, error)
        return error

    async def _ask(self) -> _Answer:
        answer = await self._ask_once()
        if answer.error == "invalid_client" and not self._in_body:
            self._in_body = True  # some take the secret in the body only
            answer = await self._ask_once()
            self._in_body = not answer.error
        return answer

    async def _ask_once(self) -> _Answer:
        form = {"grant_type": "client_credentials"}
        if self._config.scopes:
            form["scope"] = " ".join(self._config.scopes)
        if self._config.resource:
            form["resource"] = self._config.resource
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if self._in_body:
            form |= {"client_id": self._config.client_id, "client_secret": self._secret}
        else:
            headers["Authorization"] = f"Basic {self._basic()}"
        body = urlencode(form).encode()
        async with await self._client.send("POST", self._config.token_url, headers=headers, body=body) as response:
            content = await read_bounded(response, MAX_ANSWER_BYTES)
            if response.status not in (200, 400, 401):
                raise ValueError("no answer of OAuth's")
        answer = msgspec.json.decode(content, type=_Answer)
        if response.status != 200 and not answer.error:
            raise ValueError("no answer of OAuth's")
        return answer

    def _basic(self) -> str:
        # RFC 6749 2.3.1: both are form-encoded first.
        pair = f"{quote_plus(self._config.client_id)}:{quote_plus(self._secret)}"
        return base64.b64encode(pair.encode()).decode()


def _usable(answer: _Answer) -> bool:
    token = answer.access_token
    fits = 4 <= len(token) <= MAX_TOKEN and token.isascii() and token.isprintable() and " " not in token
    return fits and answer.token_type.lower() in ("bearer", "")


def _life(answer: _Answer) -> float:
    try:
        life = float(answer.expires_in) if answer.expires_in is not None else _DEFAULT_LIFE
    except ValueError:
        life = _DEFAULT_LIFE
    return min(life, _MAX_LIFE) if life > 0 else _DEFAULT_LIFE
