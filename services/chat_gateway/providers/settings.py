"""Settings of one provider."""

import os
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from chat_gateway.providers.resilience_settings import ResilienceSettings

Kind = Literal["openai", "anthropic", "gemini"]
DialectName = Literal[
    "compatible", "openai", "vllm", "ollama", "llama.cpp", "mistral", "deepseek", "azure", "openrouter"
]


class DialectSwitches(BaseModel):
    """How a provider of kind `openai`, or a model of it, deviates from the preset; what is unset is the preset's."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    token_limit: Literal["max_completion_tokens", "max_tokens"] | None = Field(
        default=None, description="The name of the bound on an answer's tokens."
    )
    system_role: Literal["system", "developer"] | None = Field(
        default=None, description="The role that instructions have."
    )
    single_system: bool | None = Field(
        default=None, description="Whether only one system message is taken, at the head: others are joined to it."
    )
    stream_usage: bool | None = Field(default=None, description="Whether `stream_options` may be sent.")
    think_tags: bool | None = Field(
        default=None, description="Whether reasoning comes as `<think>…</think>` at the head of the content."
    )
    reasoning_field: Literal["reasoning_content", "reasoning"] | None = Field(
        default=None, description="What reasoning is called where it is sent back; both are read."
    )
    send_reasoning: Literal["never", "tool_calls", "always"] | None = Field(
        default=None, description="With which of the model's messages their reasoning is sent back."
    )
    names: bool | None = Field(default=None, description="Whether the names of speakers are sent.")
    plain_names: bool | None = Field(
        default=None,
        description="Whether `_` replaces what OpenAI refuses in the names of speakers, such as white space.",
    )
    seed_field: str | None = Field(default=None, description="The name of the seed.")
    short_call_ids: bool | None = Field(
        default=None, description="Whether ids of tool calls must be nine letters and digits."
    )
    extra_fields: bool | None = Field(
        default=None, description="Whether request fields that are not OpenAI's are taken."
    )
    finish_reason: bool | None = Field(
        default=None, description="Whether answers say why they ended; without, one that ends in order is whole."
    )
    base64_vectors: bool | None = Field(
        default=None, description="Whether embeddings may be asked for as base64; read they are in any form."
    )
    dimensions_field: str | None = Field(default=None, description="The name of the size of embeddings.")
    extra_body: dict[str, Any] | None = Field(default=None, description="Fields of every request for an answer.")

    def said(self) -> dict[str, Any]:
        """Returns the switches that are set."""
        return {name: value for name, value in self if value is not None}


class ProviderSettings(ResilienceSettings):
    """One provider of `PARLEY_PROVIDERS`, a JSON object of them by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: Kind = Field(
        default="openai",
        description="Its API: `openai` (chat completions), `anthropic` (Messages) or `gemini` (generateContent).",
    )
    base_url: str = Field(description="Where the provider's API is (http or https), `/v1` included.")
    api_key_env: str | None = Field(
        default=None, description="The variable that holds the provider's key; unset: it needs none."
    )
    models: tuple[str, ...] = Field(
        default=(), description="All models that agents may name; writes that name others are refused. Empty: any."
    )
    dialect: DialectName | None = Field(
        default=None,
        description="Preset for a provider of kind `openai`; unset: by its host, `compatible` if it is unknown.",
    )
    switches: DialectSwitches = Field(
        default=DialectSwitches(), description="Switches over the preset ([fields](#a-dialect))."
    )
    by_model: dict[str, DialectSwitches] = Field(
        default={}, description="Switches for models by pattern (`o3*`), over the others; of several, the last counts."
    )
    extra_query: dict[str, str] = Field(default={}, description="Query of every request, such as `api-version`.")
    extra_headers: dict[str, str] = Field(default={}, description="Headers of every request.")
    extra_body: dict[str, Any] = Field(
        default={},
        description="Fields of the body of every request for an answer, embeddings aside; what a call says itself goes "
        "before them.",
    )
    ca_file: str = Field(
        default="", description="Certificates (PEM) of the authorities to trust, in place of the system's."
    )
    proxy: str | None = Field(
        default=None, description="URL of the proxy; unset: what the environment names; empty: none."
    )

    @field_validator("base_url")
    @classmethod
    def _http(cls, base_url: str) -> str:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("must be an http or https URL")
        if any(character.isspace() for character in base_url):
            raise ValueError("must not contain spaces")
        if url.query or url.fragment or base_url.endswith(("?", "#")):
            raise ValueError("must not have a query or a fragment: use extra_query")
        return base_url

    @model_validator(mode="after")
    def _dialect_of_openai(self) -> Self:
        if self.kind != "openai" and (self.dialect or self.switches.said() or self.by_model):
            raise ValueError("dialect, switches and by_model are for kind openai")
        return self

    def api_key(self) -> str | None:
        """Returns the key. Raises `ValueError` when its variable is not set, or files are to hold others."""
        if self.api_key_env is None:
            return None
        if self.api_key_files:
            raise ValueError("api_key_env and api_key_files are both set")
        key = os.environ.get(self.api_key_env)
        if not key:
            raise ValueError(f"{self.api_key_env} is to hold a provider's key and is not set")
        return key
