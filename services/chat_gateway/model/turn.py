"""The values of a turn, independent of rules, protocols and stores."""

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from datetime import datetime
from typing import Any, TypeAlias

from chat_gateway.model.tools import (
    Approval,
    PendingApproval,
    ToolActivity,
    ToolRun,
    ToolsUnavailable,
)
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.usage import Usage as Usage
from contract.enums import BusyPolicy, HistoryPolicy, Role
from contract.fields import DEFAULT_PROJECT
from servicekit.values import value


class FinishReason(enum.StrEnum):
    """Why an answer ended, by OpenAI's names."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    REQUIRES_APPROVAL = "requires_approval"
    """Calls of the gateway's tools wait for approval. OpenAI has no such value: its clients see `tool_calls`."""


class OnDisconnect(enum.StrEnum):
    """What happens to a turn whose caller disconnects before its end."""

    CANCEL = "cancel"
    FINISH = "finish"


@value
class ProviderData:
    """A provider's own data of a message or a call, such as signed thinking: JSON, kept unchanged. An adapter sends it
    back if `kind` and `provider` match its own, and drops it otherwise.
    """

    kind: str
    provider: str
    json: bytes


@value
class Extra:
    """Fields of a message, part, call or tool beyond the contract, which are passed on to the provider. They apply to
    their own turn only and are not stored.
    """

    json: bytes = b"{}"
    """A JSON object: its fields beside those of the object, and in `function` and the like beside those of that."""
    texts: tuple[tuple[str, "Extra | None"], ...] = ()
    """The content of a message other than a user's, if the caller sent it in parts with such fields."""
    place: str = field(default="", compare=False)
    """Where the caller's request has the object, in the caller's words."""
    echoes: bytes = b""
    """A JSON object as `json`, of what another provider or gateway had put beside its answer: reasoning, signatures.
    Providers that do not take it go without it.
    """


@value
class ToolCall:
    """A call of a tool by the model; `arguments` is the model's JSON text, which may be invalid."""

    id: str
    name: str
    arguments: str
    provider_data: ProviderData | None = None
    extra: Extra | None = None


@value
class TextPart:
    """Text among other parts."""

    text: str
    extra: Extra | None = None


@value
class Kept:
    """The digest of a large content: its SHA-256, truncated to 16 bytes, and its size in bytes of UTF-8."""

    digest: bytes
    size: int


@value
class ImagePart:
    """A picture by address (`https:`, `http:` or `data:`).

    Of this and of the other parts that are no text: `kept` is what a large content is known by, which may itself not be
    there (empty), where an earlier turn brought it. `place` is where the caller's request has the part, in the caller's
    words; empty for one that an earlier turn brought.
    """

    url: str
    detail: str = ""
    kept: Kept | None = None
    place: str = field(default="", compare=False)
    extra: Extra | None = None


@value
class AudioPart:
    """Sound: base64 in a format that the provider knows by name."""

    data: str
    format: str
    kept: Kept | None = None
    place: str = field(default="", compare=False)
    extra: Extra | None = None


@value
class FilePart:
    """A file, by its content (a `data:` URL or base64) or by its id at the provider."""

    data: str = ""
    id: str = ""
    name: str = ""
    kept: Kept | None = None
    place: str = field(default="", compare=False)
    extra: Extra | None = None


MediaPart: TypeAlias = ImagePart | AudioPart | FilePart
Part: TypeAlias = TextPart | MediaPart


@value
class Message:
    """One utterance."""

    role: Role
    content: str = ""
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    refusal: str = ""
    reasoning: str = ""
    """The model's reasoning before its answer."""
    provider_data: ProviderData | None = None
    extra: Extra | None = None


@value
class AnswerDetails:
    """A provider's details about an answer; `annotations` and what follows are JSON, or empty. Stored with the turn,
    except logprobs, images and audio, which may be larger than the answer.
    """

    provider: str = ""
    system_fingerprint: str = ""
    service_tier: str = ""
    annotations: bytes = b""
    logprobs: bytes = b""
    images: bytes = b""
    """A list of parts of type `image_url`."""
    audio: bytes = b""
    """An object with `data`, as OpenAI has it."""


NO_DETAILS = AnswerDetails()


@value
class Sampling:
    """Sampling parameters; None and () mean unset."""

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


@value
class Tool:
    """A function that the model may ask the caller to run; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool = False
    extra: Extra | None = None


@value
class TurnLimit:
    """A limit on the turns of `subject` across gateways, per minute and concurrent; 0 for none. With `wait`, a turn
    waits while too many are running; otherwise it is refused.
    """

    subject: str
    requests_per_minute: int = 0
    concurrent_turns: int = 0
    wait: bool = False


@value
class LimitState:
    """How many turns may begin now, and in how many seconds all of a minute's may."""

    subject: str
    requests_per_minute: int
    remaining: int
    reset: float


@value
class TurnRequest:
    """A request for one turn, independent of the protocol."""

    agent_id: str
    messages: tuple[Message, ...]
    project: str = DEFAULT_PROJECT
    session_id: str = ""
    user_id: str = ""
    session_must_exist: bool = False
    after_turn: str = ""
    """The turn that this one follows; if others follow it already, this one begins a session of its own."""
    store: bool | None = None
    """Whether the turn is stored in a session, if the request says so."""
    stateless: bool = False
    """Whether the turn has no session, as far as it is known: once the turn begins, for sure."""
    busy: BusyPolicy = BusyPolicy.WAIT
    request_id: str = ""
    agent_revision: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    tools: tuple[Tool, ...] = ()
    allowed_tools: frozenset[str] = frozenset()
    """The only tools that the model is offered, the request's and the agent's, by their names; empty: all."""
    tool_choice: str = ""
    response_format: Mapping[str, Any] | None = None
    instructions: str = ""
    """Appended to the agent's own, for this turn only; not stored."""
    notes: bytes = b""
    """Data that the protocol keeps with the turn, in its own format, at most `MAX_NOTES_BYTES`."""
    lists_tools: bool = False
    """Whether the caller gets a list of the offered tools, before the agent's first output in the session."""
    extra: Mapping[str, bytes] = field(default_factory=dict)
    """Fields for the provider, each as JSON: passed on, or rejected by name."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL
    resumable: bool = False
    """Whether each piece of the answer goes into the turn's journal before it goes to the caller."""
    background: bool = False
    """Whether the turn is queued and runs without its caller."""
    history: HistoryPolicy | None = None
    """None is `MATCH` where neither key nor agent config say otherwise."""
    choices: int = 1
    """How many answers a stateless turn asks for."""
    timeout: float | None = None
    """Seconds that the caller will wait; None: the gateway's own bound."""
    approvals: tuple[Approval, ...] = ()
    """Decisions on the pending calls of the previous turn; calls not listed are rejected."""
    parent_session_id: str = ""
    """The session of the turn that calls this agent; never set by callers."""
    task: str | None = None
    """The first turn of the A2A task that the turn is of; empty: this one; None for a turn that is of none."""


@value
class TurnStarted:
    """The turn has its lease (or needs none). The first event of every turn."""

    turn_id: str
    session_id: str
    session_created: bool
    session_expire_time: datetime | None
    """When the session ends unless another turn begins; None for a stateless turn."""
    agent_revision: int
    begin_time: datetime
    replayed: bool = False
    limits: tuple[LimitState, ...] = ()
    event_id: str = ""
    """The id of the journal's first event; empty without a journal."""
    provider: str = ""
    """The first provider to be called; the first piece of the answer names a fallback that answers.

    Empty if unknown.
    """


@value
class ToolCallDelta:
    """More of one tool call; id and name come with its first delta."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    provider_data: ProviderData | None = None
    """Whole, in at most one delta of the call."""


@value
class Delta:
    """More of the answer."""

    content: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    refusal: str = ""
    reasoning: str = ""
    provider_data: ProviderData | None = None
    """Whole, in at most one delta of the answer."""
    logprobs: bytes = b""
    """JSON of the choice's `logprobs`, for this piece."""
    provider: str = ""
    """With the first piece: the provider that answers, if it is a fallback."""
    activity: ToolActivity | None = None
    """An action of the turn; the piece then has nothing else."""
    choice: int = 0
    """Which of several answers it belongs to."""
    event_id: str = ""
    """The id of the piece in the turn's journal; empty if it is not in it."""


@value
class OtherAnswer:
    """One more answer of a stateless turn that asks for several."""

    message: Message
    finish_reason: FinishReason
    details: AnswerDetails = NO_DETAILS


@value
class TurnOutcome:
    """The outcome of a turn. A turn with a session is stored before this exists."""

    turn_id: str
    session_id: str
    session_created: bool
    turn_number: int
    session_expire_time: datetime | None
    agent_revision: int
    message: Message
    finish_reason: FinishReason
    usage: Usage
    model: str
    begin_time: datetime
    replayed: bool = False
    limits: tuple[LimitState, ...] = ()
    details: AnswerDetails = NO_DETAILS
    unavailable: tuple[ToolsUnavailable, ...] = ()
    """The tools that the turn was without."""
    pending: tuple[PendingApproval, ...] = ()
    """The calls that wait for an approval."""
    others: tuple[OtherAnswer, ...] = ()
    said: tuple[Message, ...] = ()
    """The agent's messages, of which `message` is the caller's view; empty if unknown."""
    runs: tuple[ToolRun, ...] = ()
    """The calls that the gateway ran."""
    notes: bytes = b""
    """As in the turn's request."""
    end_time: datetime | None = None
    """When the answer was complete, of a turn that has notes."""
    listed: ToolsListed | None = None
    """The tools that the model was offered; None if that was not asked for."""


@value
class Answer:
    """The agent's part of one turn: its messages in order. Callers see `answers.visible` of them."""

    messages: tuple[Message, ...]
    finish_reason: FinishReason
    usage: Usage
    model: str
    details: AnswerDetails = NO_DETAILS
    unavailable: tuple[ToolsUnavailable, ...] = ()
    awaiting: tuple[str, ...] = ()
    """The ids of the calls of the last step that wait for an approval."""
    others: tuple[OtherAnswer, ...] = ()
    runs: tuple[ToolRun, ...] = ()
    """The calls that the gateway ran, in the order of their starts."""
    listed: ToolsListed | None = None
    """The tools that the model was offered; None if that was not asked for."""
    handed_to: tuple[str, ...] = ()
    """The agents to which the turn was handed over, one after the other."""


OnStarted = Callable[[TurnStarted], Awaitable[None]]
OnDelta = Callable[[Delta], Awaitable[None]]
"""Receives the next piece of an answer. May wait, which is the back-pressure of a slow reader."""
