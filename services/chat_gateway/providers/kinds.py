"""The kinds of providers: where an adapter plugs in."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from aiohttp import ClientSession

from chat_gateway.providers.adapter import Adapter
from chat_gateway.providers.anthropic.adapter import AnthropicAdapter
from chat_gateway.providers.gemini.adapter import GeminiAdapter
from chat_gateway.providers.http_client import Endpoint
from chat_gateway.providers.http_provider import MAX_ANSWER_BYTES, HttpProvider, ProviderBounds
from chat_gateway.providers.openai.adapter import OpenAIAdapter
from chat_gateway.providers.openai.dialect import Dialects, preset_for
from chat_gateway.providers.settings import ProviderSettings
from chat_gateway.providers.upstream_errors import ErrorReader
from servicekit.errors import StartupError


def _openai(name: str, settings: ProviderSettings) -> Adapter:
    preset = settings.dialect or preset_for(urlsplit(settings.base_url).hostname or "")
    switches = settings.switches.said()
    if settings.extra_body:
        switches["extra_body"] = {**settings.extra_body, **switches.get("extra_body", {})}
    by_model = {pattern: one.said() for pattern, one in settings.by_model.items()}
    return OpenAIAdapter(name, Dialects(preset, switches, by_model), azure_key=preset == "azure")


def _anthropic(name: str, settings: ProviderSettings) -> Adapter:
    return AnthropicAdapter(name, settings.extra_body)


def _gemini(name: str, settings: ProviderSettings) -> Adapter:
    return GeminiAdapter(name, settings.extra_body)


KINDS: Final[Mapping[str, Callable[[str, ProviderSettings], Adapter]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
}
"""What makes the adapter of a provider, by its kind in `PARLEY_PROVIDERS`."""


def make_provider(
    name: str,
    settings: ProviderSettings,
    bounds: ProviderBounds,
    session: ClientSession,
    *,
    key: str | None = None,
    show_errors: bool = True,
    max_answer_bytes: int = MAX_ANSWER_BYTES,
) -> HttpProvider:
    """Returns the provider that the settings describe, over a session that it shares with others.

    `key` goes before the one that the settings name, and their own timeouts before the `bounds`.

    Raises `StartupError` for what can't be used: a URL, a header, a key, a file of certificates.
    """
    if settings.kind not in KINDS:
        raise StartupError(f"provider {name!r}: its kind {settings.kind!r} is not built in")
    adapter = KINDS[settings.kind](name, settings)
    bounds = replace(bounds, **settings.timeouts(own=True))
    try:
        key = key or settings.api_key()
        endpoint = Endpoint(
            session,
            settings.base_url,
            {**adapter.credentials(key), **settings.extra_headers},
            query=settings.extra_query,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
            connect_timeout=bounds.connect,
        )
    except (ValueError, OSError) as error:
        raise StartupError(f"provider {name!r}: {error}") from None
    errors = ErrorReader(name, key, show=show_errors)
    return HttpProvider(
        name,
        adapter,
        endpoint,
        errors,
        bounds,
        max_answer_bytes=max_answer_bytes,
        has_media=_asks_for_media(settings),
    )


def _asks_for_media(settings: ProviderSettings) -> bool:
    """Whether requests ask for images or audio: `modalities`, or Gemini's `responseModalities`."""
    switches = [settings.switches, *settings.by_model.values()]
    for fields in (settings.extra_body, *[one.extra_body for one in switches]):
        config = (fields or {}).get("generationConfig")
        if "modalities" in (fields or {}) or (isinstance(config, dict) and "responseModalities" in config):
            return True
    return False
