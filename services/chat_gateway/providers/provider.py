"""The interface of providers."""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any, Protocol, TypeVar

from chat_gateway.model.errors import ProviderUnknown
from chat_gateway.model.turn import NO_DETAILS, AnswerDetails, FinishReason, Message, OnDelta, Sampling, Tool, Usage
from servicekit.values import value


@value
class ModelCall:
    """One call of a model."""

    model: str
    messages: Sequence[Message]
    sampling: Sampling
    tools: tuple[Tool, ...] = ()
    tool_choice: str = ""
    response_format: Mapping[str, Any] | None = None
    extra: Mapping[str, bytes] = field(default_factory=dict)
    """Other fields of the request, each as JSON: an adapter sends them, or raises `UnsupportedField`."""
    parallel_tool_calls: bool | None = None
    """Whether the model may ask for several calls at once; None: the provider's default."""
    go_on: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the request that its adapter wants in a call that goes on with a paused answer."""


@value
class ModelAnswer:
    """What the model answered, whole; `model` is its name in the provider's words."""

    message: Message
    finish_reason: FinishReason
    usage: Usage
    model: str
    details: AnswerDetails = NO_DETAILS
    pause: "Pause | None" = None
    """Set while the provider waits to be asked to go on; never of an answer that `Provider.complete` returns."""


@value
class Pause:
    """How an answer goes on that the provider paused: `joined` makes one of it and of the answer to `call`."""

    call: ModelCall
    joined: Callable[[ModelAnswer], ModelAnswer]


class VectorFormat(enum.StrEnum):
    """How a vector is written, by OpenAI's names."""

    FLOAT = "float"
    """A list of numbers."""
    BASE64 = "base64"
    """32-bit floats, little-endian, as base64."""


@value
class EmbeddingCall:
    """One call of a model for the vectors of texts. An input is a text, or the numbers of its tokens."""

    model: str
    inputs: Sequence[str | Sequence[int]]
    encoding: VectorFormat = VectorFormat.FLOAT
    dimensions: int | None = None
    user: str = ""
    """The provider's name for the end user, as the caller gave it."""
    extra: Mapping[str, bytes] = field(default_factory=dict)
    """Other fields of the request, each as JSON: an adapter sends them, or raises `UnsupportedField`."""


@value
class EmbeddingAnswer:
    """The vectors in the order of the inputs, each as JSON in the format that was asked for."""

    vectors: tuple[bytes, ...]
    usage: Usage
    model: str
    provider: str


class Provider(Protocol):
    """An upstream that serves models."""

    name: str

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        """Calls the model and returns its whole answer. Once a piece of it was passed on there is no other try.

        Adapters never try twice; what is put around them does (`ResilientProvider`, `FallbackProvider`).

        With `on_delta` it streams: every piece goes there as it comes, and together they are the answer returned.
        Raises `ProviderUnavailable`, `ProviderTimeout`, `ProviderRejected`, `ProviderBadResponse`. When cancelled it
        closes the connection, so that the provider stops.
        """
        ...

    async def embed(self, call: EmbeddingCall) -> EmbeddingAnswer:
        """Returns the vectors of the inputs. Raises as `complete`, and `EmbeddingsUnsupported`."""
        ...


class Providers:
    """The providers of this gateway by name."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = dict(providers)

    def get(self, name: str) -> Provider:
        """Returns the provider. Raises `ProviderUnknown`."""
        try:
            return self._providers[name]
        except KeyError:
            raise ProviderUnknown(name) from None

    def names(self) -> list[str]:
        """Returns every name, in order."""
        return sorted(self._providers)


def merged_sampling(base: Sampling, override: Sampling) -> Sampling:
    """Returns `base` with everything that `override` says."""
    if override == _UNSAID:
        return base
    return Sampling(
        temperature=_first(override.temperature, base.temperature),
        top_p=_first(override.top_p, base.top_p),
        max_output_tokens=_first(override.max_output_tokens, base.max_output_tokens),
        stop=override.stop or base.stop,
        seed=_first(override.seed, base.seed),
        presence_penalty=_first(override.presence_penalty, base.presence_penalty),
        frequency_penalty=_first(override.frequency_penalty, base.frequency_penalty),
    )


def merged_extra(base: Mapping[str, bytes], override: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Returns `base` with everything that `override` says."""
    return {**base, **override} if base and override else override or base


T = TypeVar("T")

_UNSAID = Sampling()


def _first(a: T | None, b: T | None) -> T | None:
    return b if a is None else a
