"""One oddity of providers: what one answers, byte by byte, and what is right. A kind's rows are a file beside this."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chat_gateway.model.provider_errors import ProviderBadResponse
from chat_gateway.model.turn import FinishReason, Usage
from chat_gateway.providers.provider import ModelAnswer
from servicekit.errors import ServiceError

STOP, LENGTH, CALLS, FILTER = (
    FinishReason.STOP,
    FinishReason.LENGTH,
    FinishReason.TOOL_CALLS,
    FinishReason.CONTENT_FILTER,
)
JSON = "application/json"
EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Answered:
    """What an answer must be. None: not looked at. Calls are (name, arguments); each has an id of its own."""

    content: str | None = None
    finish_reason: FinishReason | None = None
    reasoning: str | None = None
    calls: tuple[tuple[str, str], ...] = ()
    usage: Usage | None = None
    also: Callable[[ModelAnswer], bool] = lambda _: True


@dataclass(frozen=True)
class Fails:
    """What the call must raise; `says` and `hides` are what the message holds and does not hold."""

    error: type[ServiceError]
    says: str = ""
    hides: str = "key-1"
    metadata: dict[str, str] = field(default_factory=dict)
    also: Callable[[ServiceError], bool] = lambda _: True


OK = Answered("ok", STOP)
BAD = Fails(ProviderBadResponse)


@dataclass(frozen=True)
class Row:
    """One oddity. `cut`: the connection is reset after the body, in place of its end; `open`: it stays open.

    `tools` are those that the model is offered.
    """

    name: str
    body: bytes
    right: Answered | Fails
    stream: bool = False
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    cut: bool = False
    stays_open: bool = False
    tools: tuple[str, ...] = ()

    def wire(self) -> bytes:
        """The response. One that stays open or is cut has no length."""
        headers = {"Content-Type": EVENTS if self.stream and self.status == 200 else JSON, **self.headers}
        if not (self.cut or self.stays_open):
            headers["Content-Length"] = str(len(self.body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} Said\r\n{lines}\r\n".encode() + self.body
