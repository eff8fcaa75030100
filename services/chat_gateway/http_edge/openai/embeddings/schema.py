"""The shapes of OpenAI's request for embeddings and of its answer.

Request fields that are not here are the provider's: they are passed on where its dialect takes them, and refused by
name where it does not.
"""

from typing import Annotated, Any

import msgspec

MAX_INPUTS = 2048
MAX_TOKENS = 300_000
"""Tokens of all inputs of a request that come as numbers."""

_INPUT = (
    f"The text, or at most {MAX_INPUTS} of them; a text may be the list of the numbers of its tokens, where the "
    "provider takes such."
)


class EmbeddingsRequest(msgspec.Struct):
    """What is to be embedded."""

    model: str
    """The id of an agent, whose model embeds, or `id@3` for its revision 3; or `provider/model`."""
    input: Annotated[str | list[Any], msgspec.Meta(description=_INPUT)]
    encoding_format: str | None = None
    """`float` (default), or `base64` of 32-bit floats."""
    dimensions: int | None = None
    """How many numbers each vector is to have, where the model leaves a choice."""
    user: str | None = None
    """OpenAI's opaque name of an end user; sent to the provider."""


class EmbeddingObject(msgspec.Struct):
    """One vector: a list of numbers, or base64."""

    object: str
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(msgspec.Struct):
    """What was read of the inputs, as far as the provider says."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct):
    """The vectors, in the order of the inputs."""

    object: str
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingsUsage
