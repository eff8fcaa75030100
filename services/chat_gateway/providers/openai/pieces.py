"""Combines stream events that arrive together."""

import msgspec

from chat_gateway.model.turn import Delta, ToolCallDelta

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Added:
    """Collects it."""

    __slots__ = ("calls", "content", "logprobs", "reasoning", "refusal")

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: list[ToolCallDelta] = []
        self.logprobs: list[bytes] = []

    def take(self, delta: Delta) -> None:
        self.content.append(delta.content)
        self.reasoning.append(delta.reasoning)
        self.refusal.append(delta.refusal)
        self.calls += delta.tool_calls
        if delta.logprobs:
            self.logprobs.append(delta.logprobs)

    def delta(self) -> Delta | None:
        if not (self.content or self.reasoning or self.calls or self.refusal or self.logprobs):
            return None
        return Delta(
            "".join(self.content),
            tuple(self.calls),
            "".join(self.refusal),
            "".join(self.reasoning),
            logprobs=joined_logprobs(self.logprobs) if self.logprobs else b"",
        )


def joined_logprobs(pieces: list[bytes]) -> bytes:
    """Returns the `logprobs` of several pieces of an answer as one."""
    if len(pieces) == 1:
        return pieces[0]
    joined: dict[str, list[object]] = {}
    for piece in pieces:
        try:
            found = _decode(piece)
        except (msgspec.MsgspecError, RecursionError):
            continue
        for name, tokens in found.items() if isinstance(found, dict) else ():
            if isinstance(tokens, list):
                joined.setdefault(name, []).extend(tokens)
    return _encode(joined)
