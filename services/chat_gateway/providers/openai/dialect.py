"""How one provider, or one model of it, deviates from OpenAI's chat completions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from cachetools import LRUCache

TokenLimit = Literal["max_completion_tokens", "max_tokens"]
SystemRole = Literal["system", "developer"]
SendReasoning = Literal["never", "tool_calls", "always"]
ReasoningField = Literal["reasoning_content", "reasoning"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """The switches."""

    token_limit: TokenLimit = "max_tokens"
    system_role: SystemRole = "system"
    single_system: bool = False
    """Whether only one system message is taken, at the head: others go into it."""
    stream_usage: bool = True
    """Whether `stream_options` may be sent; without it, streams count no tokens unless they do by themselves."""
    think_tags: bool = False
    """Whether reasoning comes as `<think>…</think>` at the head of the content."""
    reasoning_field: ReasoningField = "reasoning_content"
    """What reasoning is called where it is sent back; both are read."""
    send_reasoning: SendReasoning = "never"
    """With which of its messages the model's reasoning is sent back."""
    names: bool = True
    """Whether the speaker's name may be sent."""
    plain_names: bool = False
    """Whether names must have no white space and none of `<|\\/>`, which `_` replaces."""
    seed_field: str = "seed"
    short_call_ids: bool = False
    """Whether ids of tool calls must be nine letters and digits: others are replaced, the same by the same."""
    extra_fields: bool = True
    """Whether the provider takes request fields that are not OpenAI's."""
    finish_reason: bool = True
    """Whether answers say why they ended; without, one that is there, or a stream that ends in order, is complete."""
    base64_vectors: bool = False
    """Whether embeddings may be asked for as base64; read they are in any form."""
    dimensions_field: str = "dimensions"
    extra_body: Mapping[str, Any] = field(default_factory=dict)


PRESETS: Final[Mapping[str, Dialect]] = {
    "compatible": Dialect(),
    "openai": Dialect(token_limit="max_completion_tokens", plain_names=True, extra_fields=False, base64_vectors=True),
    "azure": Dialect(token_limit="max_completion_tokens", plain_names=True, extra_fields=False, base64_vectors=True),
    "vllm": Dialect(single_system=True, base64_vectors=True),
    "ollama": Dialect(reasoning_field="reasoning"),
    "llama.cpp": Dialect(single_system=True, base64_vectors=True),
    "mistral": Dialect(
        stream_usage=False,
        names=False,
        seed_field="random_seed",
        short_call_ids=True,
        extra_fields=False,
        base64_vectors=True,
        dimensions_field="output_dimension",
    ),
    "deepseek": Dialect(send_reasoning="tool_calls"),
    "openrouter": Dialect(reasoning_field="reasoning", send_reasoning="tool_calls", base64_vectors=True),
}
"""By the name that a provider's settings give; `compatible` is what any server takes."""

_HOSTS = {
    "api.openai.com": "openai",
    "api.mistral.ai": "mistral",
    "api.deepseek.com": "deepseek",
    "openrouter.ai": "openrouter",
}
_MAX_MODELS = 256


def preset_for(host: str) -> str:
    """Returns the preset of a provider whose settings name none, by the host that it is at."""
    return "azure" if host.endswith((".openai.azure.com", ".services.ai.azure.com")) else _HOSTS.get(host, "compatible")


class Dialects:
    """The dialect of each model of one provider: a preset, switches over it, and switches by model pattern."""

    def __init__(
        self, preset: str, switches: Mapping[str, Any] = {}, by_model: Mapping[str, Mapping[str, Any]] = {}
    ) -> None:
        """Patterns are as in a shell (`o3*`); of those that match a model, all count, later ones first."""
        self._base = replace(PRESETS[preset], **switches)
        self._by_model = dict(by_model)
        self._known: LRUCache[str, Dialect] = LRUCache(_MAX_MODELS)

    def of(self, model: str) -> Dialect:
        """Returns the model's dialect."""
        if not self._by_model:
            return self._base
        found = self._known.get(model)
        if found is None:
            found = self._base
            for pattern, switches in self._by_model.items():
                if fnmatchcase(model, pattern):
                    found = replace(found, **switches)
            self._known[model] = found
        return found
