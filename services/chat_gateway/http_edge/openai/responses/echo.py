"""What a response repeats of its request. Kept with the turn, so that a response is read as it was made."""

from typing import Any, Final

import msgspec

from chat_gateway.model.rules import MAX_NOTES_BYTES

_LEFT_OUT_FIRST: Final[tuple[tuple[str, Any], ...]] = (("tools", []), ("text", {"format": {"type": "text"}}))
"""What is not kept if the whole is too large, with its replacement: schemas."""
_CUT_CHARACTERS: Final = 2048
_encode = msgspec.json.Encoder().encode


class RequestEcho(msgspec.Struct, omit_defaults=True):
    """The fields of a response that say how it was asked for."""

    model: str = ""
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: Any = "auto"
    parallel_tool_calls: bool = True
    text: dict[str, Any] = {}
    reasoning: dict[str, Any] = {}
    include: list[str] = []
    truncation: str = "disabled"
    metadata: dict[str, str] = {}
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None
    background: bool = False
    developers: list[int] = []
    """Which of the messages that the caller brought are of the role `developer`: places, the last one is 1."""

    def encoded(self) -> bytes:
        """Returns what is kept with the turn. Of what is too large, schemas are left out, and instructions are cut."""
        kept = self
        for name, instead in _LEFT_OUT_FIRST:
            if len(data := _encode(kept)) <= MAX_NOTES_BYTES:
                return data
            kept = msgspec.structs.replace(kept, **{name: instead})
        if len(data := _encode(kept)) > MAX_NOTES_BYTES and kept.instructions:
            data = _encode(msgspec.structs.replace(kept, instructions=kept.instructions[:_CUT_CHARACTERS]))
        return data if len(data) <= MAX_NOTES_BYTES else _encode(RequestEcho(self.model))


_decoder = msgspec.json.Decoder(RequestEcho)


def echo_of(notes: bytes, model: str) -> RequestEcho:
    """Returns what a turn's notes say; of a turn that another protocol asked for, that nothing was asked of `model`."""
    try:
        echo = _decoder.decode(notes) if notes else RequestEcho()
        echo.model = echo.model or model
        return echo
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return RequestEcho(model=model)
