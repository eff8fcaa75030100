"""The interface of a kind of provider: how requests are written and responses read.

An adapter does no I/O: `providers/<kind>/` holds it, `providers/kinds.py` names it, and `http_provider.HttpProvider`
makes the call, times it, bounds it, reads its events and says what its failures mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Final, Protocol

from chat_gateway.model.turn import Delta
from chat_gateway.providers.provider import EmbeddingAnswer, EmbeddingCall, ModelAnswer, ModelCall
from contract.messages import MAX_TOOL_CALLS
from servicekit.values import value

PIECE_BYTES: Final = 64
"""What a part of an answer counts for beside its content: an empty one takes memory too."""


@value
class WireRequest:
    """One request: `path` follows the provider's base URL and may have a query of its own."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class BadAnswer(Exception):
    """The answer is not what the protocol says; the message is a few words of ours, without any of the provider's."""


def check_calls(count: int) -> None:
    """Raises `BadAnswer` for more tool calls than an answer may have: with each call, before it costs anything."""
    if count > MAX_TOOL_CALLS:
        raise BadAnswer(f"more than {MAX_TOOL_CALLS} tool calls")


class ReportedError(Exception):
    """The provider reports an error where an answer should be, in a body of status 200 or an event of a stream.

    `body` is the JSON text that holds it, as the provider would send it with an error status.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__("the provider reports an error")
        self.body = body


class AnswerStream(Protocol):
    """Puts one streamed answer together."""

    size: int
    """Bytes that are kept so far, whatever they are of: the answer is refused when they are too many."""
    alive: bool
    """Whether the model has shown any sign of life; a comment, a ping or an empty chunk is none."""
    finished: bool
    """Whether the reason why the answer ended is there: what may follow is its usage, and is not waited for long."""
    ended: bool
    """Whether the provider has said that nothing follows."""

    def add(self, events: Sequence[bytes]) -> Delta | None:
        """Takes the data of events that came together; returns what they add to the answer, None for nothing.

        Raises `BadAnswer` and `ReportedError`. What follows the end is not looked at.
        """
        ...

    def answer(self) -> ModelAnswer:
        """Returns the answer once the stream has ended. Raises `BadAnswer` where it is not whole."""
        ...


class Adapter(Protocol):
    """Writes and reads one kind's JSON for one provider."""

    kind: str
    max_embedding_inputs: int
    """How many inputs one request for embeddings takes; 0: the API has none."""

    def credentials(self, key: str | None) -> Mapping[str, str]:
        """Returns the headers that carry the provider's key, and whatever else every request of the kind has."""
        ...

    def request(self, call: ModelCall, *, stream: bool) -> WireRequest:
        """Returns the request of a call. Raises `ServiceError` for what the provider can't be asked for."""
        ...

    def read(self, body: bytes, call: ModelCall) -> ModelAnswer:
        """Returns the answer that was not streamed. Raises `BadAnswer` and `ReportedError`."""
        ...

    def stream(self, call: ModelCall) -> AnswerStream:
        """Returns what puts the streamed answer to the call together."""
        ...

    def embedding_request(self, call: EmbeddingCall) -> WireRequest:
        """Returns the request for the vectors of at most `max_embedding_inputs` inputs. Raises as `request`."""
        ...

    def read_embeddings(self, body: bytes, call: EmbeddingCall) -> EmbeddingAnswer:
        """Returns a vector for each input. Raises `BadAnswer` and `ReportedError`."""
        ...
