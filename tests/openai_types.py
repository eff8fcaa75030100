"""What the official client's own types say of what is sent to it: nothing is missing, wrong, or without a name."""

import json
from collections.abc import Iterator
from typing import Any

import pydantic
from openai.types.responses import Response, ResponseStreamEvent

OF_OPEN_RESPONSES = {"store", "presence_penalty", "frequency_penalty"}
"""Fields that the Open Responses specification requires of a response, and that OpenAI's type does not name."""

_EVENT: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseStreamEvent)


def strictly(kind: Any, value: Any) -> Any:
    """Returns the value as one of this type. Fails for what the type does not name, too."""
    adapter = kind if isinstance(kind, pydantic.TypeAdapter) else pydantic.TypeAdapter(kind)
    parsed = adapter.validate_json(json.dumps(value), strict=True)
    assert not (more := sorted(_unnamed(parsed))), more
    return parsed


def response_of(value: Any) -> Response:
    """Returns a response."""
    return strictly(Response, value)


def events_of(stream: str) -> list[Any]:
    """Returns the events of a stream, whose numbers follow one another; the stream ends with `[DONE]`."""
    frames = [frame for frame in stream.split("\n\n") if frame and not frame.startswith(":")]
    assert frames.pop() == "data: [DONE]"
    found = []
    for frame in frames:
        lines = dict(line.split(": ", 1) for line in frame.split("\n"))
        event = strictly(_EVENT, json.loads(lines["data"]))
        assert lines["event"] == event.type
        found.append(event)
    numbers = [event.sequence_number for event in found]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
    return found


def _unnamed(value: Any) -> Iterator[str]:
    if isinstance(value, pydantic.BaseModel):
        extra = set(value.model_extra or ())
        if isinstance(value, Response):
            extra -= OF_OPEN_RESPONSES
        if type(value).__name__.startswith("Logprob"):
            extra.discard("bytes")  # of Open Responses, too
        yield from (f"{type(value).__name__}.{name}" for name in extra)
        for name in type(value).model_fields:
            yield from _unnamed(getattr(value, name))
    elif isinstance(value, list):
        for one in value:
            yield from _unnamed(one)
