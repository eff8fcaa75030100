"""The events of a streamed response, in the order that OpenAI's types document.

What is sent is decided by what the turn has done, and by nothing else: a stream that is read again from the turn's
journal has the same events, with the same numbers.
"""

from typing import Any, Final

import msgspec

from chat_gateway.http_edge.openai.responses.answer import (
    CANCELLED,
    CUT,
    FAILED,
    IN_PROGRESS,
    ResponseMaker,
    items_of,
    whole_response,
)
from chat_gateway.http_edge.openai.responses.answer_schema import Item
from chat_gateway.http_edge.openai.responses.echo import RequestEcho
from chat_gateway.http_edge.openai.responses.ids import TurnRef
from chat_gateway.http_edge.openai.responses.logprobs import logprobs_of
from chat_gateway.http_edge.openai.responses.open_items import OpenCall, OpenMessage, OpenReasoning, fill, reopened
from chat_gateway.http_edge.openai.responses.options import ENCRYPTED_REASONING, LOGPROBS
from chat_gateway.http_edge.openai.responses.output_items import (
    INCOMPLETE,
    StepItems,
    annotations_of,
    approval_item,
    ended_call,
    list_items,
    mcp_call_item,
)
from chat_gateway.http_edge.wire.sse import event
from chat_gateway.model.answers import STEP_BREAK
from chat_gateway.model.tools import CallFinished, CallStarted, StepFinished, ToolActivity, TurnResumed
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import Delta, ToolCallDelta, TurnOutcome, TurnStarted
from contract.reasons import Reason
from servicekit.errors import ServiceError

DONE: Final = event(b"[DONE]")
_ENDS: Final = {"completed": "response.completed", "incomplete": "response.incomplete", "failed": "response.failed"}

_encode = msgspec.json.Encoder().encode


class ResponseEvents:
    """Writes one response as events. Each has the next number, from 0."""

    def __init__(self, echo: RequestEcho, *, first: int = 0, after: int = -1) -> None:
        """`first` is the number of the first event; events up to `after` are counted, and left out."""
        self._echo = echo
        self._replayed = False
        """Whether the turn is stored already: all of it comes at its end."""
        self._queued = echo.background
        """Whether the turn waits to be run."""
        self._torn = False
        """Whether another gateway went on with the turn in the midst of a step: its answer is not all that was said."""
        self._keeps = ENCRYPTED_REASONING in echo.include
        self._logprobs = LOGPROBS in echo.include
        self._number = first
        self._after = after
        self._out: list[bytes] = []
        self._turn = TurnRef("", "")
        self._make: ResponseMaker | None = None
        self._items: list[Item] = []
        """Those that were begun, in the order of their indexes: as they are now, or as they ended."""
        self._steps = 0
        self._ids = StepItems(self._turn, 1)
        self._said: set[str] = set()
        """What steps before this one have said: the texts of two steps have a break between them."""
        self._broken: set[str] = set()
        self._message: OpenMessage | None = None
        self._reasoning: OpenReasoning | None = None
        self._calls: dict[int, OpenCall] = {}
        self._running: dict[str, list[int]] = {}
        """The items of the gateway's calls that have no result yet, by the ids of the calls."""
        self._started: dict[int, int] = {}
        """How many calls of each step the gateway has begun."""

    @property
    def count(self) -> int:
        """How many events were written."""
        return self._number

    def start(self, started: TurnStarted) -> bytes:
        """Returns what comes before the first piece of the answer."""
        self._turn = TurnRef(started.turn_id, started.session_id)
        self._ids = StepItems(self._turn, 1)
        self._replayed = started.replayed
        self._make = ResponseMaker(self._turn, self._echo, started.begin_time)
        response = self._make.running("queued" if self._queued else IN_PROGRESS)
        self._emit("response.created", response=response)
        if self._queued:
            self._emit("response.queued", response=response)
        else:
            self._emit("response.in_progress", response=response)
        return self._flushed()

    def _run(self) -> None:
        if self._queued and self._make is not None:
            self._queued = False
            self._emit("response.in_progress", response=self._make.running())

    def delta(self, delta: Delta) -> bytes:
        """Returns the events of one more piece of the answer."""
        self._run()
        if self._replayed:
            return self._flushed()
        if delta.activity is not None:
            self._activity(delta.activity)
            return self._flushed()
        if delta.reasoning or (self._keeps and self._reasoning is None):
            self._open_reasoning().add(self._emit, self._text("reasoning", delta.reasoning))
        if delta.content or delta.refusal:
            if not self._keeps:
                self._close_reasoning()
            message = self._open_message()
            if delta.content:
                message.add_text(self._emit, self._text("content", delta.content), self._logprobs_of(delta))
            if delta.refusal:
                message.add_refusal(self._emit, self._text("refusal", delta.refusal))
        for call in delta.tool_calls:
            self._call(call)
        return self._flushed()

    def finish(self, outcome: TurnOutcome) -> bytes:
        """Returns the end of a stored turn, whose response is whole."""
        assert self._make is not None, "it has started"
        if self._replayed:
            return self.again(outcome)
        self._run()
        cut = outcome.finish_reason in CUT
        if self._message is not None:
            self._message.annotate(self._emit, annotations_of(outcome.details.annotations))
        whole = items_of(outcome, self._turn, self._echo) if outcome.said else None
        kept = {item["id"]: item.get("encrypted_content", "") for item in whole or () if item["type"] == "reasoning"}
        if self._reasoning is not None:
            self._reasoning.kept = kept.get(self._reasoning.item_id, "")
        self._end_step(INCOMPLETE if cut else None)
        servers = {run.call_id: run.server for run in outcome.runs}
        for one in outcome.pending:
            server = servers.get(one.call_id, "")
            self._whole(approval_item(self._turn, server, one.name, one.arguments, one.call_id))
        if not self._items:  # an answer without content
            self._open_message().add_text(self._emit, "", [])
            self._end_step(INCOMPLETE if cut else None)
        for item in self._items:
            if kept.get(item["id"]):
                item["encrypted_content"] = kept[item["id"]]
        response = self._make.ended(outcome, whole if self._torn and whole else self._items)
        self._emit(_ENDS[response.status], response=response)
        return self._flushed() + DONE

    def again(self, outcome: TurnOutcome) -> bytes:
        """Returns all that a stored turn did, item by item, and its end."""
        self._run()
        response = whole_response(outcome, self._echo)
        for item in response.output:
            self._again(item)
        self._emit(_ENDS[response.status], response=response)
        return self._flushed() + DONE

    def whole(self, outcome: TurnOutcome) -> bytes:
        """Returns the end of a stored turn alone: its response has all that the turn did."""
        self._run()
        response = whole_response(outcome, self._echo)
        self._emit(_ENDS[response.status], response=response)
        return self._flushed() + DONE

    def fail(self, error: ServiceError) -> bytes:
        """Returns the end of a failed turn, or only of the stream if another gateway continues the turn."""
        if error.reason == Reason.TURN_HANDED_OVER:
            return self.interrupt(error)
        assert self._make is not None, "it has started"
        status = CANCELLED if error.reason == Reason.TURN_CANCELLED else FAILED
        self._emit("response.failed", response=self._make.failed(error, status=status))
        return self._flushed() + DONE

    def interrupt(self, error: ServiceError) -> bytes:
        """Returns the end of a stream whose response presumably continues."""
        self._emit("error", code=str(error.reason).lower(), message=error.message, param=None)
        return self._flushed()

    def _activity(self, activity: ToolActivity) -> None:
        match activity:
            case CallStarted():
                self._end_step(None)
                ids = StepItems(self._turn, activity.step)
                number = self._started.get(activity.step, 0)
                self._started[activity.step] = number + 1
                item = mcp_call_item(ids.mcp_call_id(number), activity.server, activity.name, activity.arguments)
                self._running.setdefault(activity.call_id, []).append(self._begin_call(item))
            case CallFinished():
                places = self._running.get(activity.call_id)
                if not places:
                    return
                index = places.pop(0)
                self._end_call(index, ended_call(self._items[index], activity.outcome, activity.content))
            case ToolsListed():
                for item in list_items(self._turn, activity):
                    self._listed(item)
            case TurnResumed():
                # What the model said of the step before does not count: it is asked again.
                self._torn = self._torn or any((self._message, self._reasoning, self._calls))
                self._end_step(INCOMPLETE)
                self._broken = set()
            case StepFinished():
                self._end_step(None)
                self._steps = activity.step
                self._ids = StepItems(self._turn, activity.step + 1)
                self._said |= self._broken
                self._broken = set()

    def _begin_call(self, item: Item) -> int:
        index = self._add(item | {"arguments": ""})
        place = {"item_id": item["id"], "output_index": index}
        self._emit("response.mcp_call.in_progress", **place)
        if item["arguments"]:
            self._emit("response.mcp_call_arguments.delta", **place, delta=item["arguments"])
        self._emit("response.mcp_call_arguments.done", **place, arguments=item["arguments"])
        self._items[index] = item
        return index

    def _end_call(self, index: int, item: Item) -> None:
        end = "response.mcp_call.completed" if item["error"] is None else "response.mcp_call.failed"
        self._emit(end, item_id=item["id"], output_index=index)
        self._done(index, item)

    def _again(self, item: Item) -> None:
        """Writes the events of an item that is whole."""
        match item["type"]:
            case "mcp_list_tools":
                self._listed(item)
            case "mcp_call":
                running = item | {"output": None, "error": None, "status": IN_PROGRESS}
                self._end_call(self._begin_call(running), item)
            case "message" | "reasoning" | "function_call":
                opened = reopened(item)
                opened.index = self._add(opened.item)
                fill(opened, item, self._emit)
                self._done(opened.index, item)
            case _:
                self._whole(item)

    def _listed(self, item: Item) -> None:
        index = self._add(item | {"tools": [], "error": None})
        place = {"item_id": item["id"], "output_index": index}
        self._emit("response.mcp_list_tools.in_progress", **place)
        failed = item["error"] is not None and not item["tools"]
        self._emit("response.mcp_list_tools.failed" if failed else "response.mcp_list_tools.completed", **place)
        self._done(index, item)

    def _text(self, kind: str, text: str) -> str:
        """Returns a piece of text without the break before the first of a step."""
        if not text or kind in self._broken:
            return text
        self._broken.add(kind)
        return text.removeprefix(STEP_BREAK) if kind in self._said else text

    def _call(self, delta: ToolCallDelta) -> None:
        call = self._calls.get(delta.index)
        if call is None:
            self._close_message(None)
            if not self._keeps:
                self._close_reasoning()
            call = OpenCall(self._ids.function_call_id(len(self._calls)), delta.id, delta.name)
            self._calls[delta.index] = call
            call.index = self._add(call.item)
        call.add(self._emit, delta.arguments)

    def _open_message(self) -> OpenMessage:
        if self._message is None or self._message.closed:
            self._message = OpenMessage(self._ids.next_message_id())
            self._message.index = self._add(self._message.item)
        return self._message

    def _open_reasoning(self) -> OpenReasoning:
        if self._reasoning is None or self._reasoning.closed:
            self._reasoning = OpenReasoning(self._ids.next_reasoning_id())
            self._reasoning.index = self._add(self._reasoning.item)
        return self._reasoning

    def _close_reasoning(self) -> None:
        if (item := self._reasoning) is not None and not item.closed:
            self._done(item.index, item.close(self._emit))

    def _close_message(self, status: str | None) -> None:
        if (item := self._message) is not None and not item.closed:
            self._done(item.index, item.close(self._emit, status))

    def _close_call(self, call: OpenCall, status: str | None) -> None:
        if not call.closed:
            self._done(call.index, call.close(self._emit, status))

    def _end_step(self, status: str | None) -> None:
        """Ends the items of a step; the last of them is cut where there is a status that says so."""
        last = max((one.index for one in (self._message, *self._calls.values()) if one is not None), default=-1)
        self._close_message(status if self._message is not None and self._message.index == last else None)
        for call in self._calls.values():
            self._close_call(call, status if call.index == last else None)
        self._close_reasoning()
        self._message, self._reasoning, self._calls = None, None, {}

    def _add(self, item: Item) -> int:
        index = len(self._items)
        self._items.append(item)
        self._emit("response.output_item.added", output_index=index, item=item)
        return index

    def _done(self, index: int, item: Item) -> None:
        self._items[index] = item
        self._emit("response.output_item.done", output_index=index, item=item)

    def _whole(self, item: Item) -> None:
        self._done(self._add(item), item)

    def _logprobs_of(self, delta: Delta) -> list[dict[str, Any]]:
        if not (self._logprobs and delta.logprobs):
            return []
        return logprobs_of(delta.logprobs)

    def _emit(self, kind: str, **fields: Any) -> None:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        if self._number - 1 <= self._after:
            return
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode(data)))

    def _flushed(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)
