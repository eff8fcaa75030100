"""POST /v1/chat/completions:preview: the prompt that a chat completion would send, without sending it."""

from typing import Any, Final

import msgspec

from access.caller import Caller
from chat_gateway.convert.messages import message_to_proto
from chat_gateway.http_edge.admin.sessions.schema import content_json
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.openai.chat.handler import read_request
from chat_gateway.http_edge.openai.chat.operation import CHAT_PATH, chat_operation
from chat_gateway.http_edge.openai.chat.request import param_of
from chat_gateway.http_edge.openai.chat.schema import (
    ContentPart,
    Function,
    FunctionCall,
    Tool,
    ToolCall,
    UnavailableToolServer,
)
from chat_gateway.http_edge.turn_exchange import Exchange
from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.openapi import SCHEMA_REF
from chat_gateway.http_edge.wire.times import timestamp
from chat_gateway.http_edge.wire.turn_headers import read_turn_headers
from chat_gateway.model.turn import Message
from chat_gateway.preview import Prompt, PromptPreview

PREVIEW_PATH: Final = f"{CHAT_PATH}:preview"

_encode = msgspec.json.Encoder().encode


class PromptMessage(msgspec.Struct, kw_only=True):
    """One message as the model would get it."""

    role: str
    content: str | list[ContentPart] | None
    name: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    tool_call_id: str | msgspec.UnsetType = msgspec.UNSET


class PromptJson(msgspec.Struct, kw_only=True):
    """What the model would be sent, and what of the session it would not see."""

    messages: list[PromptMessage]
    tools: list[Tool]
    """As the provider would get them: the agent's own, then the request's."""
    omitted_message_count: int
    """Messages of the session that the window leaves out."""
    agent_revision: int
    session_expire_time: str | None
    """Null where there is no session yet."""
    unavailable_tool_servers: list[UnavailableToolServer]
    """Tool servers whose tools are unavailable now."""
    object: str = "chat.completion.preview"


class ChatPreviews:
    """Answers with prompts. It takes the body of a chat completion."""

    def __init__(self, preview: PromptPreview, settings: HttpSettings) -> None:
        self._preview = preview
        self._settings = settings

    async def serve(self, context: RequestContext, caller: Caller) -> int:
        """Serves one request on behalf of `caller`, and returns the status that it was answered with."""
        exchange = Exchange(context, self._settings, param_of)
        async with exchange:
            bounds = self._settings.request_bounds
            _, request = await exchange.read(
                lambda body: read_request(body, read_turn_headers(context.headers), caller, bounds)
            )
            prompt = await exchange.watched(self._preview.show(request))
            await exchange.answer(_encode(_prompt_json(prompt)), [])
        return exchange.status


def preview_operation() -> dict[str, Any]:
    """Returns the operation as the OpenAPI document describes it, without its security."""
    chat = chat_operation()
    answer = {"application/json": {"schema": {"$ref": SCHEMA_REF.format(name="PromptJson")}}}
    return chat | {
        "summary": "Preview Chat Completion",
        "description": "Shows the exact prompt that this chat completion would send, and what the window would leave "
        "out. Nothing is asked of the model, and nothing is stored.",
        "operationId": "preview_chat_completion",
        "responses": chat["responses"] | {"200": {"description": "The prompt.", "content": answer}},
    }


def _prompt_json(prompt: Prompt) -> PromptJson:
    expires = prompt.session_expire_time
    return PromptJson(
        messages=[_message(message) for message in prompt.messages],
        tools=[
            Tool("function", Function(tool.name, tool.description, dict(tool.parameters or {}), tool.strict))
            for tool in prompt.tools
        ],
        omitted_message_count=prompt.omitted_message_count,
        agent_revision=prompt.agent_revision,
        session_expire_time=None if expires is None else timestamp(expires),
        unavailable_tool_servers=[UnavailableToolServer(one.server, one.reason) for one in prompt.unavailable],
    )


def _message(message: Message) -> PromptMessage:
    return PromptMessage(
        role=message.role.value,
        content=content_json(message_to_proto(message)),
        name=message.name or msgspec.UNSET,
        tool_calls=[ToolCall(call.id, FunctionCall(call.name, call.arguments)) for call in message.tool_calls]
        or msgspec.UNSET,
        tool_call_id=message.tool_call_id or msgspec.UNSET,
    )
