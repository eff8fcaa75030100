"""Items of a streamed response that go on: what was said of each so far, and the events of its end."""

from typing import Any, Protocol

from chat_gateway.http_edge.openai.responses.answer_schema import Item
from chat_gateway.http_edge.openai.responses.output_items import (
    COMPLETED,
    IN_PROGRESS,
    function_call_item,
    message_item,
    reasoning_item,
    refusal_part,
    text_part,
)
from chat_gateway.model.turn import ToolCall


class Emit(Protocol):
    """Writes an event."""

    def __call__(self, kind: str, **fields: Any) -> None:
        """Writes the next event, of this type and with these fields."""


class OpenMessage:
    """A message that the agent says. Its parts follow one another: text, or a refusal."""

    def __init__(self, item_id: str) -> None:
        self.index = 0
        self.closed = False
        self._id = item_id
        self._parts: list[dict[str, Any]] = []
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    @property
    def item(self) -> Item:
        """The item as it begins."""
        return message_item(self._id, [], IN_PROGRESS)

    def add_text(self, emit: Emit, text: str, logprobs: list[dict[str, Any]]) -> None:
        """More text, with the probabilities of its tokens."""
        self._part(emit, text_part(""))
        self._pieces.append(text)
        self._logprobs += logprobs
        if text:
            emit("response.output_text.delta", **self._place(), delta=text, logprobs=logprobs)

    def add_refusal(self, emit: Emit, text: str) -> None:
        """More of a refusal."""
        self._part(emit, refusal_part(""))
        self._pieces.append(text)
        if text:
            emit("response.refusal.delta", **self._place(), delta=text)

    def annotate(self, emit: Emit, annotations: list[dict[str, Any]]) -> None:
        """What the text cites."""
        if self._parts and self._parts[-1]["type"] == "output_text":
            for number, annotation in enumerate(annotations):
                emit(
                    "response.output_text.annotation.added",
                    **self._place(),
                    annotation_index=number,
                    annotation=annotation,
                )
            self._annotations = annotations

    def close(self, emit: Emit, status: str | None) -> Item:
        """Ends the message; returns it whole."""
        self.closed = True
        self._end_part(emit)
        return message_item(self._id, self._parts, status or COMPLETED)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._id, "output_index": self.index, "content_index": len(self._parts) - 1}

    def _part(self, emit: Emit, part: dict[str, Any]) -> None:
        if self._parts and self._parts[-1]["type"] == part["type"]:
            return
        self._end_part(emit)
        self._parts.append(part)
        emit("response.content_part.added", **self._place(), part=part)

    def _end_part(self, emit: Emit) -> None:
        if not self._parts:
            return
        whole = "".join(self._pieces)
        self._pieces = []
        if self._parts[-1]["type"] == "refusal":
            self._parts[-1] = refusal_part(whole)
            emit("response.refusal.done", **self._place(), refusal=whole)
        else:
            said, self._logprobs = self._logprobs, []
            self._parts[-1] = text_part(whole, self._annotations, said)
            emit("response.output_text.done", **self._place(), text=whole, logprobs=said)
        emit("response.content_part.done", **self._place(), part=self._parts[-1])


class OpenReasoning:
    """What the model thinks in one step: its summary has one part, where the provider shows it at all."""

    def __init__(self, item_id: str) -> None:
        self.index = 0
        self.closed = False
        self.item_id = item_id
        self.kept = ""
        """What the provider needs back, as callers keep it."""
        self._pieces: list[str] = []

    @property
    def item(self) -> Item:
        """The item as it begins."""
        return reasoning_item(self.item_id, "", IN_PROGRESS)

    def add(self, emit: Emit, text: str) -> None:
        """More thought."""
        if not text:
            return
        if not self._pieces:
            emit("response.reasoning_summary_part.added", **self._place(), part=_summary(""))
        self._pieces.append(text)
        emit("response.reasoning_summary_text.delta", **self._place(), delta=text)

    def close(self, emit: Emit) -> Item:
        """Ends it; returns it whole."""
        self.closed = True
        whole = "".join(self._pieces)
        if self._pieces:
            emit("response.reasoning_summary_text.done", **self._place(), text=whole)
            emit("response.reasoning_summary_part.done", **self._place(), part=_summary(whole))
        return reasoning_item(self.item_id, whole, COMPLETED, self.kept)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.item_id, "output_index": self.index, "summary_index": 0}


class OpenCall:
    """A call that is the caller's to run."""

    def __init__(self, item_id: str, call_id: str, name: str) -> None:
        self.index = 0
        self.closed = False
        self._id = item_id
        self._call = ToolCall(call_id, name, "")
        self._pieces: list[str] = []

    @property
    def item(self) -> Item:
        """The item as it begins."""
        return function_call_item(self._id, self._call, IN_PROGRESS)

    def add(self, emit: Emit, arguments: str) -> None:
        """More of its arguments."""
        if arguments:
            self._pieces.append(arguments)
            emit("response.function_call_arguments.delta", item_id=self._id, output_index=self.index, delta=arguments)

    def close(self, emit: Emit, status: str | None) -> Item:
        """Ends it; returns it whole."""
        self.closed = True
        call = ToolCall(self._call.id, self._call.name, "".join(self._pieces))
        emit(
            "response.function_call_arguments.done",
            item_id=self._id,
            output_index=self.index,
            arguments=call.arguments,
        )
        return function_call_item(self._id, call, status or COMPLETED)


def reopened(item: Item) -> OpenMessage | OpenReasoning | OpenCall:
    """Returns a message, a reasoning or a call of the caller's, as it was when it began."""
    match item["type"]:
        case "message":
            return OpenMessage(item["id"])
        case "reasoning":
            return OpenReasoning(item["id"])
    return OpenCall(item["id"], item["call_id"], item["name"])


def fill(opened: OpenMessage | OpenReasoning | OpenCall, item: Item, emit: Emit) -> None:
    """Writes the events of what a whole item has, and of its end, but for that of the item itself."""
    match opened:
        case OpenMessage():
            for part in item["content"]:
                if part["type"] == "refusal":
                    opened.add_refusal(emit, part["refusal"])
                else:
                    opened.add_text(emit, part["text"], part["logprobs"])
                    opened.annotate(emit, part["annotations"])
            opened.close(emit, item["status"])
        case OpenReasoning():
            for part in item["summary"]:
                opened.add(emit, part["text"])
            opened.close(emit)
        case OpenCall():
            opened.add(emit, item["arguments"])
            opened.close(emit, item["status"])


def _summary(text: str) -> dict[str, str]:
    return {"type": "summary_text", "text": text}
