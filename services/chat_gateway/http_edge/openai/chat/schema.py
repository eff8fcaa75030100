"""The shapes of OpenAI's chat completion request and response.

Request fields that are not here are the provider's: they are passed on where its dialect takes them, and refused by
name where it does not. Those that no turn can honour are here, so that using them is an error that names them.
The same goes for fields within messages, parts, calls and tools; other objects have no fields of others.
"""

from typing import Annotated, Any

import msgspec

from chat_gateway.http_edge.wire.errors import ErrorObject

_USER = (
    "OpenAI's opaque name of an end user: any text of at most 256 characters. Where no user_id is given, the session "
    "belongs to this user. A text that can't be a user id (it has spaces or is not ASCII) is the user `user-` and its "
    "SHA-256 in hexadecimal, as is a text of that very form; by that id sessions are listed, exported and erased."
)


class ImageUrl(msgspec.Struct, omit_defaults=True):
    """An image by URL (`https:`, `http:` or `data:`)."""

    url: str
    detail: str | None = None


class InputAudio(msgspec.Struct):
    """Sound as base64; the format is `wav`, `mp3` or another that the provider knows."""

    data: str
    format: str


class InputFile(msgspec.Struct, omit_defaults=True):
    """A file, by its content (a `data:` URL, or base64) or by its id at the provider."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class ContentPart(msgspec.Struct, omit_defaults=True):
    """Part of a message: `text`, `image_url`, `input_audio`, `file`, or (assistants) `refusal`."""

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None
    input_audio: InputAudio | None = None
    file: InputFile | None = None
    refusal: str | None = None


class FunctionCall(msgspec.Struct):
    """A function with its arguments as JSON text."""

    name: str
    arguments: str


class KeptData(msgspec.Struct):
    """What the provider of that kind and name needs back, as it wrote it."""

    kind: str
    provider: str
    data: msgspec.Raw


class ExtraContent(msgspec.Struct, omit_defaults=True):
    """What callers that keep histories themselves are to send back with a message or a tool call, word for word."""

    parley: KeptData | None = None


class ToolCall(msgspec.Struct):
    """A call of a tool by the model."""

    id: str
    function: FunctionCall
    type: str = "function"
    extra_content: ExtraContent | msgspec.UnsetType | None = msgspec.UNSET


class ChatMessage(msgspec.Struct):
    """One message: `system` or `developer`, `user`, `assistant`, `tool`."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    """What the model thought before it answered: sent to a model again only where its provider demands it."""
    extra_content: ExtraContent | None = None
    function_call: Any = None


class Function(msgspec.Struct):
    """A function that the model may ask the caller to run."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct):
    """A tool that the caller offers; `function` is the only type."""

    type: str
    function: Function | None = None


class FunctionName(msgspec.Struct):
    """Names a function."""

    name: str


class AllowedTool(msgspec.Struct):
    """A tool of the request's, or of the agent's."""

    type: str
    function: FunctionName


class AllowedTools(msgspec.Struct):
    """The only tools that may be called; `mode` is auto or required."""

    mode: str
    tools: list[AllowedTool]


class ToolChoice(msgspec.Struct):
    """Asks for one tool by name, or allows some alone."""

    type: str
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None


class ToolApproval(msgspec.Struct):
    """What the user says of a tool call that waits for an approval; the model reads the note of a rejection."""

    tool_call_id: str
    approve: bool
    note: str = ""


class StreamOptions(msgspec.Struct):
    """How to stream. Chunks are never padded (`include_obfuscation`)."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatCompletionRequest(msgspec.Struct):
    """A chat completion as OpenAI defines it, with what names Parley's session and user."""

    model: str
    """The agent's id, or `id@3` for its revision 3."""
    messages: list[ChatMessage] = []
    """The new messages; the history is the session's. Required, but with approvals."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    response_format: dict[str, Any] | None = None
    n: int | None = None
    """Answers, 1 to 8; more than one with `store: false`. Each is a call of the model of its own."""
    user: Annotated[str, msgspec.Meta(description=_USER)] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    """False: the turn is stateless (no session)."""
    session_id: str | None = None
    """The session to continue, or to create under this id."""
    user_id: str | None = None
    """The user that the session belongs to; `user` is not read then."""
    session_must_exist: bool | None = None
    busy: str | None = None
    """While another turn of the session runs: `wait` (default), `reject`, `interrupt`."""
    history: str | None = None
    """Messages with answers of the assistant are `match` (default): the transcript, of which only what is new is
    stored, `replace`: the same, and the history from now on, `append`: more of the conversation."""
    approvals: list[ToolApproval] | None = None
    """Of the tool calls that the turn before waits with; those that are not named are rejected. Needs a session, and
    `messages` may be empty or left out."""
    on_disconnect: str | None = None
    """When the client leaves before the end: `cancel` (default), or `finish` the turn and store it."""
    resumable: bool | None = None
    """True: the turn finishes even without its client, and `/v1/chat/completions/{id}/events` resumes its stream."""
    background: bool | None = None
    """True: answer with 202 and the id at once, and go on without the client. The completion says how far it is, its
    `/events` what happens, and `:cancel` ends it. The session is the turn's until then."""
    functions: Any = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None


class AnswerMessage(msgspec.Struct):
    """The agent's answer."""

    role: str
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    """What the model thought before it answered, where its provider shows that."""
    annotations: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    images: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """Parts of type `image_url`, where the provider answers with images. They are not stored."""
    audio: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """As OpenAI has it, where the provider answers with sound. It is not stored."""
    extra_content: ExtraContent | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct):
    """One answer; there are several where `n` asks for them."""

    index: int
    message: AnswerMessage
    logprobs: msgspec.Raw | None
    finish_reason: str


class PromptTokensDetails(msgspec.Struct):
    """Of the prompt tokens, those that the provider had cached, and those that it wrote into its cache."""

    cached_tokens: int
    cache_write_tokens: int | msgspec.UnsetType = msgspec.UNSET


class CompletionTokensDetails(msgspec.Struct):
    """Of the completion tokens, those that the model thought with."""

    reasoning_tokens: int


class CompletionUsage(msgspec.Struct):
    """Tokens of all model calls of the turn."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class PendingApproval(msgspec.Struct):
    """A tool call that the gateway runs once it is approved; `arguments` is JSON text, which may be invalid."""

    tool_call_id: str
    name: str
    arguments: str


class UnavailableToolServer(msgspec.Struct):
    """A tool server that the turn went without."""

    tool_server: str
    reason: str


class TurnNotes(msgspec.Struct, omit_defaults=True):
    """What a turn with tools has beyond OpenAI's answer."""

    requires_approval: list[PendingApproval] = []
    """Then `finish_reason` is `tool_calls`, and the next request approves or rejects these."""
    unavailable_tool_servers: list[UnavailableToolServer] = []


class ChatCompletion(msgspec.Struct):
    """A whole answer, sent after the turn was stored."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    system_fingerprint: str | msgspec.UnsetType = msgspec.UNSET
    service_tier: str | msgspec.UnsetType = msgspec.UNSET
    parley: TurnNotes | msgspec.UnsetType = msgspec.UNSET
    status: str | msgspec.UnsetType = msgspec.UNSET
    """Of a completion that is read, or runs in the background: `queued`, `in_progress`, `completed`, `failed`,
    `cancelled`, or `requires_approval`, which is stored, too. Without an answer there are no choices."""
    error: ErrorObject | msgspec.UnsetType = msgspec.UNSET
    """Why it failed."""
