"""The items of an answer, whole: the same whether they come from a stream or from a turn that is stored."""

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import msgspec

from chat_gateway.http_edge.openai.responses.answer_schema import Item
from chat_gateway.http_edge.openai.responses.ids import TurnRef
from chat_gateway.http_edge.openai.responses.kept_data import encrypted_content
from chat_gateway.model.tools import ToolOutcome, ToolRun
from chat_gateway.model.tools_listed import ListedServer, ToolsListed
from chat_gateway.model.turn import Message, ToolCall
from contract.enums import Role

COMPLETED: Final = "completed"
INCOMPLETE: Final = "incomplete"
IN_PROGRESS: Final = "in_progress"
OWN_FUNCTIONS: Final = "agent"
"""The label of what runs the functions of an agent's template, which are no server's."""


def message_item(item_id: str, content: list[dict[str, Any]], status: str) -> Item:
    """Returns what the agent says in one step."""
    return {"type": "message", "id": item_id, "status": status, "role": "assistant", "content": content}


def text_part(
    text: str, annotations: Sequence[dict[str, Any]] = (), logprobs: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Returns text of a message."""
    return {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": list(logprobs)}


def refusal_part(refusal: str) -> dict[str, Any]:
    """Returns a refusal of a message."""
    return {"type": "refusal", "refusal": refusal}


def reasoning_item(item_id: str, text: str, status: str, kept: str = "") -> Item:
    """Returns what the model thought in one step, as far as its provider shows it."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    item = {"type": "reasoning", "id": item_id, "summary": summary, "status": status}
    return item | {"encrypted_content": kept} if kept else item


def function_call_item(item_id: str, call: ToolCall, status: str) -> Item:
    """Returns a call that is the caller's to run."""
    return {
        "type": "function_call",
        "id": item_id,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def list_item(item_id: str, listed: ListedServer) -> Item:
    """Returns the tools of one server, as the model is offered them."""
    return {
        "type": "mcp_list_tools",
        "id": item_id,
        "server_label": listed.server or OWN_FUNCTIONS,
        "tools": [
            {
                "name": one.name,
                "description": one.description or None,
                "input_schema": {"type": "object"} if one.parameters is None else one.parameters,
                "annotations": None,
            }
            for one in listed.tools
        ],
        "error": listed.error or None,
    }


def list_items(turn: TurnRef, listed: ToolsListed | None) -> list[Item]:
    """Returns the tools that the model was offered: an item for each server."""
    servers = () if listed is None else listed.servers
    return [list_item(turn.item_id("mcpl", str(place)), one) for place, one in enumerate(servers)]


def mcp_call_item(item_id: str, server: str, name: str, arguments: str, *, approval_id: str | None = None) -> Item:
    """Returns a call that the gateway is about to run."""
    return {
        "type": "mcp_call",
        "id": item_id,
        "server_label": server or OWN_FUNCTIONS,
        "name": name,
        "arguments": arguments,
        "approval_request_id": approval_id,
        "output": None,
        "error": None,
        "status": IN_PROGRESS,
    }


def ended_call(item: Item, outcome: ToolOutcome, content: str) -> Item:
    """Returns a call of the gateway's with its result for the model."""
    if outcome is ToolOutcome.OK:
        return item | {"output": content, "status": COMPLETED}
    error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": content}]}
    return item | {"error": error, "status": "failed"}


def approval_item(turn: TurnRef, server: str, name: str, arguments: str, call_id: str) -> Item:
    """Returns a call that waits for the user's approval."""
    return {
        "type": "mcp_approval_request",
        "id": turn.approval_id(call_id),
        "server_label": server or OWN_FUNCTIONS,
        "name": name,
        "arguments": arguments,
    }


def annotations_of(data: bytes) -> list[dict[str, Any]]:
    """Returns the annotations of a chat completion's message as those of an output text; others are left out."""
    try:
        said = msgspec.json.decode(data) if data else []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    found = []
    for one in said if isinstance(said, list) else ():
        cited = one.get("url_citation", one) if isinstance(one, dict) and one.get("type") == "url_citation" else None
        if isinstance(cited, dict) and isinstance(cited.get("url"), str):
            found.append(
                {
                    "type": "url_citation",
                    "url": cited["url"],
                    "title": str(cited.get("title") or ""),
                    "start_index": _index(cited.get("start_index")),
                    "end_index": _index(cited.get("end_index")),
                }
            )
    return found


def _index(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


class StepItems:
    """The ids of what one step of a turn has: by the step's number, and the place of a call in it."""

    def __init__(self, turn: TurnRef, step: int) -> None:
        self._turn = turn
        self._step = step
        self._begun: dict[str, int] = defaultdict(int)

    def next_message_id(self) -> str:
        """Returns the id of the step's message; of another one, where its model speaks again after it has called."""
        return self._next("msg")

    def next_reasoning_id(self) -> str:
        """Returns the id of what the model thinks before it speaks; of another one, where it thinks again."""
        return self._next("rs")

    def _next(self, kind: str) -> str:
        number = self._begun[kind]
        self._begun[kind] += 1
        return self._turn.item_id(kind, f"{self._step}-{number}" if number else str(self._step))

    def function_call_id(self, index: int) -> str:
        """Returns the id of the n-th call of the step that is the caller's."""
        return self._turn.item_id("fc", f"{self._step}-{index}")

    def mcp_call_id(self, index: int) -> str:
        """Returns the id of the n-th call of the step that the gateway runs."""
        return self._turn.item_id("mcp", f"{self._step}-{index}")


def output_items(
    turn: TurnRef,
    said: Sequence[Message],
    runs: Iterable[ToolRun],
    awaiting: Collection[str],
    *,
    cut: bool = False,
    keep: bool = False,
    annotations: bytes = b"",
    listed: ToolsListed | None = None,
) -> list[Item]:
    """Returns what an agent did in a turn.

    `cut`: the last of it is incomplete; `keep`: with what providers need back.
    """
    items = _Items(turn, said, runs, awaiting, keep=keep).all()
    if annotations and (message := next((one for one in reversed(items) if one["type"] == "message"), None)):
        for part in message["content"]:
            if part["type"] == "output_text":
                part["annotations"] = annotations_of(annotations)
    if cut and items and "status" in items[-1]:
        items[-1] = items[-1] | {"status": INCOMPLETE}
    return [*list_items(turn, listed), *items]


class _Items:
    def __init__(
        self, turn: TurnRef, said: Sequence[Message], runs: Iterable[ToolRun], awaiting: Collection[str], *, keep: bool
    ) -> None:
        self._turn = turn
        self._said = said
        self._awaiting = awaiting
        self._keep = keep
        self._runs: dict[str, deque[ToolRun]] = defaultdict(deque)
        for run in runs:
            self._runs[run.call_id].append(run)
        self._items: list[Item] = []

    def all(self) -> list[Item]:
        step, place = 0, 0
        while place < len(self._said) and self._said[place].role is Role.TOOL:
            place += 1
        self._decided(self._said[:place])
        while place < len(self._said):
            message, place, start = self._said[place], place + 1, place + 1
            while place < len(self._said) and self._said[place].role is Role.TOOL:
                place += 1
            step += 1
            results = {one.tool_call_id: one.content for one in self._said[start:place]}
            self._step(StepItems(self._turn, step), message, results)
        return self._items

    def _decided(self, results: Sequence[Message]) -> None:
        """Calls of the turn before, which waited for an approval."""
        ids = StepItems(self._turn, 0)
        for index, result in enumerate(results):
            run = self._run(result.tool_call_id)
            item = mcp_call_item(ids.mcp_call_id(index), run.server, run.name, run.arguments)
            self._items.append(ended_call(item, run.outcome, result.content))

    def _step(self, ids: StepItems, message: Message, results: dict[str, str]) -> None:
        kept = encrypted_content(message) if self._keep else ""
        if message.reasoning or self._keep:
            self._items.append(reasoning_item(ids.next_reasoning_id(), message.reasoning, COMPLETED, kept))
        content = [text_part(message.content)] if message.content else []
        content += [refusal_part(message.refusal)] if message.refusal else []
        if content or not message.tool_calls:
            self._items.append(message_item(ids.next_message_id(), content or [text_part("")], COMPLETED))
        own = [call for call in message.tool_calls if call.id in results]
        waiting = [call for call in message.tool_calls if call.id in self._awaiting and call.id not in results]
        callers = [call for call in message.tool_calls if call not in own and call not in waiting]
        for index, call in enumerate(callers):
            self._items.append(function_call_item(ids.function_call_id(index), call, COMPLETED))
        for index, call in enumerate(own):
            run = self._run(call.id)
            item = mcp_call_item(ids.mcp_call_id(index), run.server, call.name, call.arguments)
            self._items.append(ended_call(item, run.outcome, results[call.id]))
        for call in waiting:
            server = self._run(call.id).server
            self._items.append(approval_item(self._turn, server, call.name, call.arguments, call.id))

    def _run(self, call_id: str) -> ToolRun:
        runs = self._runs[call_id]
        return runs.popleft() if runs else ToolRun(call_id, "")
