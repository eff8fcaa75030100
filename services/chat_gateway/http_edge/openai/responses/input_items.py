"""Input items as messages of a turn."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from chat_gateway.http_edge.openai.responses import request_schema as shapes
from chat_gateway.http_edge.openai.responses.compaction_item import summary_message
from chat_gateway.http_edge.openai.responses.ids import approved_call_id
from chat_gateway.http_edge.openai.responses.kept_data import kept_of_step
from chat_gateway.http_edge.openai.responses.shapes import MAX_SHOWN, Findings, shaped_by_type
from chat_gateway.model import turn as model
from chat_gateway.model.parts import BASE64_RULE, known, wrong_base64
from chat_gateway.model.tools import Approval
from contract.enums import Role

MAX_ITEMS: Final = 10_000
_ROLES: Final = {role.value: role for role in (Role.USER, Role.ASSISTANT, Role.SYSTEM)} | {"developer": Role.SYSTEM}
_TEXTS: Final = ("input_text", "output_text", "text")
_PARTS: Final = {
    Role.USER: (*_TEXTS, "input_image", "input_file", "input_audio"),
    Role.ASSISTANT: (*_TEXTS, "refusal"),
    Role.SYSTEM: _TEXTS,
    Role.TOOL: _TEXTS,
}
_STATUSES: Final = (None, "in_progress", "completed", "incomplete", "failed", "calling")
_PHASES: Final = (None, "commentary", "final_answer")
_PART_FIELDS: Final = {"image_url.url": "image_url", "input_audio.data": "input_audio.data", "file.data": "file_data"}


class InputMessages:
    """The messages that a list of items is, and the approvals among them.

    What a model did in one step is one message: its thoughts, its text and its calls, which are items of their own.
    """

    def __init__(self, found: Findings, field: str = "input") -> None:
        """`field` is what the request calls the list."""
        self._found = found
        self._field = field
        self.messages: list[model.Message] = []
        self.places: list[int] = []
        """Which item each message comes from."""
        self.approvals: list[Approval] = []
        self.approval_places: list[int] = []
        self.references: dict[int, str] = {}
        """The ids of the items that are named and not given, by their places."""
        self.knows_tools = False
        """Whether the caller knows already which tools there are."""
        self._developers: list[int] = []
        self._step = False
        """Whether the last message is an unfinished step of the model."""
        self._kept_of_calls: dict[str, model.ProviderData] = {}

    @property
    def developers(self) -> list[int]:
        """Which messages are of the role `developer`, which providers are given as `system`: places from the end."""
        return [len(self.messages) - index for index in self._developers]

    def add_all(self, items: Sequence[Any]) -> None:
        """Takes the items in order; notes what is wrong with each."""
        if len(items) > MAX_ITEMS:
            self._found.add(self._field, f"must have at most {MAX_ITEMS} items")
            return
        for number, item in enumerate(items):
            if isinstance(item, dict):
                self._add(item, number)
            else:
                self._found.add(f"{self._field}[{number}]", "must be an object")

    def _add(self, given: dict[str, Any], number: int) -> None:
        where = f"{self._field}[{number}]"
        default = "message" if "role" in given else "item_reference" if given.keys() == {"id"} else ""
        item = shaped_by_type(shapes.ITEMS, given, where, self._found, default)
        if getattr(item, "status", None) not in _STATUSES:
            self._found.add(f"{where}.status", "must be in_progress, completed or incomplete")
        match item:
            case shapes.MessageItem():
                self._message(item, number, where)
            case shapes.FunctionCallItem():
                self._call(model.ToolCall(item.call_id, item.name, item.arguments), number)
            case shapes.FunctionCallOutputItem():
                text = item.output if isinstance(item.output, str) else self._text_of(item.output, f"{where}.output")
                self._put(model.Message(Role.TOOL, text, tool_call_id=item.call_id), number)
            case shapes.ReasoningItem():
                self._reasoning(item, number, where)
            case shapes.ItemReference():
                self.references[number] = item.id
                self._step = False
            case shapes.McpApprovalResponse():
                self._approval(item, number, where)
            case shapes.McpListTools():
                self.knows_tools = True
            case shapes.CompactionItem():
                if (summary := summary_message(item.encrypted_content)) is None:
                    self._found.add(f"{where}.encrypted_content", "must be what a compaction had, word for word")
                else:
                    self._put(summary, number)
            case shapes.McpCall():
                call_id = f"mcp-{number}"
                self._call(model.ToolCall(call_id, item.name, item.arguments), number)
                text = item.output if item.output is not None else _error_text(item.error)
                self._put(model.Message(Role.TOOL, text, tool_call_id=call_id), number)

    def _message(self, item: shapes.MessageItem, number: int, where: str) -> None:
        role = _ROLES.get(item.role)
        if role is None:
            self._found.add(f"{where}.role", "must be user, assistant, system or developer")
            return
        if item.phase not in _PHASES:
            self._found.add(f"{where}.phase", "must be commentary or final_answer")
        if item.role == "developer":
            self._developers.append(len(self.messages))
        if isinstance(item.content, str):
            message = model.Message(role, item.content)
        else:
            message = self._of_parts(role, item.content, f"{where}.content")
        if role is Role.ASSISTANT and self._step and not (last := self.messages[-1]).content and not last.tool_calls:
            self.messages[-1] = replace(last, content=message.content, refusal=message.refusal)
        else:
            self._put(message, number, step=role is Role.ASSISTANT)

    def _of_parts(self, role: Role, given: list[Any], where: str) -> model.Message:
        parts: list[model.Part] = []
        refusal = ""
        for number, one in enumerate(given):
            place = f"{where}[{number}]"
            part = self._part(role, one, place)
            if isinstance(part, shapes.TextPart):
                parts.append(model.TextPart(part.text))
            elif isinstance(part, shapes.RefusalPart):
                refusal += part.refusal
            elif part is not None and (media := self._media(part, place)) is not None:
                parts.append(media)
        if role is Role.USER:
            return model.Message(role, parts=tuple(parts))
        text = "".join(part.text for part in parts if isinstance(part, model.TextPart))
        return model.Message(role, text, refusal=refusal)

    def _part(self, role: Role, given: Any, place: str) -> msgspec.Struct | None:
        if not isinstance(given, dict):
            self._found.add(place, "must be an object")
            return None
        if (kind := given.get("type")) in shapes.PARTS and kind not in _PARTS[role]:
            whose = "the output of a function" if role is Role.TOOL else f"a {role.value} message"
            self._found.add(f"{place}.type", f"{str(kind)[:MAX_SHOWN]!r} is not a part that {whose} can have")
            return None
        return shaped_by_type(shapes.PARTS, given, place, self._found)

    def _media(self, part: msgspec.Struct, place: str) -> model.MediaPart | None:
        media: model.MediaPart
        match part:
            case shapes.InputImage():
                if part.file_id is not None:
                    self._found.refuse(f"{place}.file_id", "is not supported: send the image by its image_url")
                    return None
                media = model.ImagePart(part.image_url or "", part.detail or "", place=place)
            case shapes.InputFile():
                for field in ("file_url", "detail"):
                    if getattr(part, field) is not None:
                        self._found.refuse(f"{place}.{field}", "is not supported: send file_data or file_id")
                        return None
                media = model.FilePart(part.file_data or "", part.file_id or "", part.filename or "", place=place)
            case shapes.InputAudio():
                media = model.AudioPart(part.input_audio.data, part.input_audio.format, place=place)
            case _:
                return None
        if field := wrong_base64(media):
            self._found.add(f"{place}.{_PART_FIELDS.get(field, field)}", BASE64_RULE)
        return known(media)

    def _text_of(self, given: list[Any], where: str) -> str:
        return self._of_parts(Role.TOOL, given, where).content

    def _call(self, call: model.ToolCall, number: int) -> None:
        if (data := self._kept_of_calls.pop(call.id, None)) is not None:
            call = replace(call, provider_data=data)
        if self._step:
            last = self.messages[-1]
            self.messages[-1] = replace(last, tool_calls=(*last.tool_calls, call))
        else:
            self._put(model.Message(Role.ASSISTANT, tool_calls=(call,)), number, step=True)

    def _reasoning(self, item: shapes.ReasoningItem, number: int, where: str) -> None:
        texts = []
        for field, given in (("summary", item.summary), ("content", item.content or ())):
            for index, one in enumerate(given):
                part = shaped_by_type(shapes.PARTS, one, f"{where}.{field}[{index}]", self._found)
                if isinstance(part, shapes.TextPart):
                    texts.append(part.text)
        data = None
        if item.encrypted_content:
            kept = kept_of_step(item.encrypted_content)
            if kept is None:
                self._found.add(f"{where}.encrypted_content", "must be what a response had, word for word")
            else:
                data = kept.message
                self._kept_of_calls.update(kept.calls)
        if reasoning := "\n\n".join(texts):
            self._put(model.Message(Role.ASSISTANT, reasoning=reasoning, provider_data=data), number, step=True)
        elif data is not None:
            self._put(model.Message(Role.ASSISTANT, provider_data=data), number, step=True)

    def _approval(self, item: shapes.McpApprovalResponse, number: int, where: str) -> None:
        self._step = False
        call_id = approved_call_id(item.approval_request_id)
        if not call_id:
            self._found.add(f"{where}.approval_request_id", "must be the id of an mcp_approval_request")
            return
        self.approvals.append(Approval(call_id, item.approve, item.reason or ""))
        self.approval_places.append(number)

    def _put(self, message: model.Message, number: int, *, step: bool = False) -> None:
        self.messages.append(message)
        self.places.append(number)
        self._step = step


def _error_text(error: Any) -> str:
    return error if isinstance(error, str) else msgspec.json.encode(error).decode() if error is not None else ""
