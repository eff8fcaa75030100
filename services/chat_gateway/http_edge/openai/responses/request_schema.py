"""The shapes of a request for a response.

Items, parts, tools and choices are of many types, and each of those that are taken has a shape of its own: fields
that it does not have are refused by name. What no turn can honour is among the request's fields, so that its use is an
error.
"""

from typing import Any

import msgspec

Json = dict[str, Any]


class ResponseRequest(msgspec.Struct):
    """A request for a response as OpenAI defines it: a turn of an agent."""

    model: str
    """The agent's id, or `id@3` for its revision 3."""
    input: str | list[Json] = ""
    """What is new: a text of the user's, or items. Required."""
    instructions: str | None = None
    """Added to the agent's own, for this turn only."""
    conversation: str | Json | None = None
    """The conversation to continue: a session, by its id, or an object with its `id`."""
    previous_response_id: str | None = None
    """The response to go on from. Where others follow it already, the new one begins a conversation of its own."""
    store: bool | None = None
    """False: the turn is stateless (no session)."""
    stream: bool | None = None
    stream_options: Json | None = None
    background: bool | None = None
    resumable: bool | None = None
    """Parley's own: the turn finishes without its client, and its stream is read on with `starting_after`."""
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = None
    tools: list[Json] | None = None
    """Functions that the caller runs, beside the agent's own tools."""
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    text: Json | None = None
    reasoning: Json | None = None
    include: list[str] | None = None
    truncation: str | None = None
    """`disabled` (default) or `auto`: the agent's memory policy says what the model is shown of a conversation."""
    metadata: dict[str, str] | None = None
    """Kept with the response, and with the conversation that it begins."""
    user: str | None = None
    """As in chat completions: the user that the conversation belongs to."""
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None
    access_programs: Any = None
    background_options: Any = None
    context_management: Any = None
    image: Any = None
    max_tool_calls: Any = None
    moderation: Any = None
    prompt: Any = None
    prompt_cache_options: Any = None


class CompactionRequest(msgspec.Struct):
    """A request to make a conversation shorter."""

    model: str
    """The agent's id, or `id@3` for its revision 3."""
    input: str | list[Json] | None = None
    """The conversation, or what follows `previous_response_id`."""
    previous_response_id: str | None = None
    """The response whose conversation, up to it, is made shorter; it stays as it is."""
    instructions: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None


UNSUPPORTED = {
    "access_programs": "",
    "background_options": "",
    "context_management": ": the agent's memory policy says what the model is shown",
    "image": "",
    "max_tool_calls": ": the agent's tool_policy.max_steps bounds its calls",
    "moderation": "",
    "prompt": ": the agent has its instructions",
    "prompt_cache_options": "",
}
"""Fields of OpenAI's that no turn can honour, and what to use instead."""


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class ConversationRef(_Strict):
    """Names a conversation."""

    id: str


class StreamOptions(_Strict):
    """How to stream."""

    include_obfuscation: bool | None = None


class ReasoningOptions(_Strict):
    """How the model thinks, and what is shown of it."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class TextFormat(_Strict):
    """The form of the answer's text."""

    type: str
    name: str | None = None
    schema: Json | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(_Strict):
    """What the answer's text is to be like."""

    format: TextFormat | None = None
    verbosity: str | None = None


class FunctionTool(_Strict):
    """A function that the model may ask the caller to run."""

    type: str
    name: str
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class NamedTool(_Strict):
    """Asks for one tool by name."""

    type: str
    name: str


class McpToolChoice(_Strict):
    """Asks for one of the agent's own tools by name."""

    type: str
    server_label: str
    name: str | None = None


class AllowedTools(_Strict):
    """Leaves the model a choice among some of the tools."""

    type: str
    tools: list[Json]
    mode: str = "auto"


class MessageItem(_Strict):
    """A message."""

    role: str
    content: str | list[Json]
    type: str = "message"
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class FunctionCallItem(_Strict):
    """A call of a function by the model."""

    type: str
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None


class FunctionCallOutputItem(_Strict):
    """What a function returned."""

    type: str
    call_id: str
    output: str | list[Json]
    id: str | None = None
    status: str | None = None


class ReasoningItem(_Strict):
    """What the model thought; `encrypted_content` is what its provider needs back."""

    type: str
    summary: list[Json] = []
    id: str | None = None
    content: list[Json] | None = None
    encrypted_content: str | None = None
    status: str | None = None


class ItemReference(_Strict):
    """An item of a conversation, by its id."""

    id: str
    type: str = "item_reference"


class McpApprovalResponse(_Strict):
    """What the user says of a call that waits for an approval."""

    type: str
    approval_request_id: str
    approve: bool
    id: str | None = None
    reason: str | None = None


class McpApprovalRequest(_Strict):
    """A call that waited for an approval, as a response had it."""

    type: str
    id: str
    arguments: str
    name: str
    server_label: str


class McpCall(_Strict):
    """A call of a tool of the agent's, as a response had it."""

    type: str
    id: str
    arguments: str
    name: str
    server_label: str
    approval_request_id: str | None = None
    error: Any = None
    output: str | None = None
    status: str | None = None


class CompactionItem(_Strict):
    """A conversation that was made shorter, as /v1/responses/compact answered."""

    type: str
    encrypted_content: str
    id: str | None = None


class McpListTools(_Strict):
    """The tools of a tool server, as a response had them."""

    type: str
    id: str
    server_label: str
    tools: list[Json] = []
    error: Any = None


ITEMS: dict[str, type[msgspec.Struct]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": FunctionCallOutputItem,
    "reasoning": ReasoningItem,
    "item_reference": ItemReference,
    "mcp_approval_response": McpApprovalResponse,
    "mcp_approval_request": McpApprovalRequest,
    "mcp_call": McpCall,
    "mcp_list_tools": McpListTools,
    "compaction": CompactionItem,
}


class TextPart(_Strict):
    """Text."""

    type: str
    text: str
    annotations: list[Json] | None = None
    logprobs: list[Json] | None = None


class RefusalPart(_Strict):
    """A refusal."""

    type: str
    refusal: str


class InputImage(_Strict):
    """An image by URL (`https:`, `http:` or `data:`)."""

    type: str
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class InputFile(_Strict):
    """A file, by its content (a `data:` URL, or base64) or by its id at the provider."""

    type: str
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None
    detail: str | None = None


class SoundData(_Strict):
    """Sound as base64."""

    data: str
    format: str


class InputAudio(_Strict):
    """Sound."""

    type: str
    input_audio: SoundData


PARTS: dict[str, type[msgspec.Struct]] = {
    "input_text": TextPart,
    "output_text": TextPart,
    "text": TextPart,
    "summary_text": TextPart,
    "reasoning_text": TextPart,
    "refusal": RefusalPart,
    "input_image": InputImage,
    "input_file": InputFile,
    "input_audio": InputAudio,
}
