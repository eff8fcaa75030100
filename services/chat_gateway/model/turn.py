"""What a turn is made of. Values only: no rule, no protocol, no store."""

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
    """Calls of the gateway's tools wait for the user's word. OpenAI has none for it: its clients see `tool_calls`."""


class OnDisconnect(enum.StrEnum):
    """What becomes of a turn whose caller leaves before its end."""

    CANCEL = "cancel"
    FINISH = "finish"


@value
class ProviderData:
    """What a provider wrote for itself beside a message or a call, such as signed thinking: JSON, kept as it is.

    An adapter sends it again where `kind` and `provider` are its own, and drops it otherwise.
    """

    kind: str
    provider: str
    json: bytes


@value
class Extra:
    """What a caller says of a message, a part, a call or a tool beyond the contract: the provider's to understand.

    It counts in the turn that brings it: no session keeps it, nor do stored turns.
    """

    json: bytes = b"{}"
    """A JSON object: its fields beside those of the object, and in `function` and the like beside those of that."""
    texts: tuple[tuple[str, "Extra | None"], ...] = ()
    """The content of a message that is no user's, where the caller has it in parts of which one says more."""
    place: str = field(default="", compare=False)
    """Where the caller's request has the object, in the caller's words."""


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
    """What a large content is known by: its SHA-256, cut to 16 bytes, and its bytes of UTF-8."""

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
    """What the model thought before it answered."""
    provider_data: ProviderData | None = None
    extra: Extra | None = None


@value
class AnswerDetails:
    """What a provider says about an answer beside it; `annotations` and `logprobs` are JSON as it came, or empty.

    Stored with the turn, but for logprobs, which may be larger than the answer.
    """

    provider: str = ""
    system_fingerprint: str = ""
    service_tier: str = ""
    annotations: bytes = b""
    logprobs: bytes = b""


NO_DETAILS = AnswerDetails()


@value
class Sampling:
    """How the model samples; None and () mean: not said."""

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
    """A bound on the turns of `subject`, over all gateways: so many a minute, so many at once; 0 for none.

    With `wait` a turn waits while too many are under way; without, it is refused.
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
    """One turn as a caller asks for it, whatever the protocol."""

    agent_id: str
    messages: tuple[Message, ...]
    project: str = DEFAULT_PROJECT
    session_id: str = ""
    user_id: str = ""
    session_must_exist: bool = False
    after_turn: str = ""
    """The turn of the session that this one follows; where others follow it already, it begins a session of its own."""
    store: bool | None = None
    """Whether the turn is kept in a session, as far as the request says so."""
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
    """Behind the agent's own, for this turn only: not stored."""
    notes: bytes = b""
    """What the protocol wants kept with the turn, in a form of its own, at most `MAX_NOTES_BYTES`."""
    lists_tools: bool = False
    """Whether the caller is told which tools the model is offered, until the agent has spoken in the session."""
    extra: Mapping[str, bytes] = field(default_factory=dict)
    """Fields that are the provider's to understand, each as JSON: passed on, or refused by name."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL
    resumable: bool = False
    """Whether each piece of the answer goes into the turn's journal before it goes to the caller."""
    background: bool = False
    """Whether the turn is queued, and goes on without its caller."""
    history: HistoryPolicy | None = None
    """None is `MATCH` where neither key nor agent config say otherwise."""
    choices: int = 1
    """How many answers a stateless turn asks for."""
    timeout: float | None = None
    """Seconds that the caller will wait; None: the gateway's own bound."""
    approvals: tuple[Approval, ...] = ()
    """Of calls that the turn before waits with; those that are not named are rejected."""
    parent_session_id: str = ""
    """The session of the turn that calls this agent; no caller's to say."""
    task: str | None = None
    """The first turn of the A2A task that the turn is of; empty: this one; None for a turn that is of none."""


@value
class TurnStarted:
    """The turn holds its lease (or needs none): the first event of every turn."""

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
    """Where the turn's journal begins; empty where it has none yet."""
    provider: str = ""
    """Who is asked first; the first piece of the answer names another one that gives it. Empty where not known."""


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
    """Who answers, with the first piece, where it is a fallback and not the agent's own provider."""
    activity: ToolActivity | None = None
    """What the turn does beside its answer; the piece then has nothing else."""
    choice: int = 0
    """Which of several answers it belongs to."""
    event_id: str = ""
    """Where the piece stands in the turn's journal; empty where it is not written there."""


@value
class OtherAnswer:
    """One more answer of a stateless turn that asks for several."""

    message: Message
    finish_reason: FinishReason
    details: AnswerDetails = NO_DETAILS


@value
class TurnOutcome:
    """How a turn ended; where it has a session, it is stored by the time this exists."""

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
    """Tool servers that the turn went without; not stored."""
    pending: tuple[PendingApproval, ...] = ()
    """The calls that wait for an approval."""
    others: tuple[OtherAnswer, ...] = ()
    said: tuple[Message, ...] = ()
    """What the agent did, step by step, of which `message` is what callers see; empty where it is not known."""
    runs: tuple[ToolRun, ...] = ()
    """The calls that the gateway ran."""
    notes: bytes = b""
    """As the turn's request gave them."""
    end_time: datetime | None = None
    """When the answer was complete, of a turn that has notes."""
    listed: ToolsListed | None = None
    """The tools that the model was offered; None where nobody asked."""


@value
class Answer:
    """What an agent did in one turn: its messages in order. Its caller sees `answers.visible` of them."""

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
    """The tools that the model was offered; None where nobody asked."""


OnStarted = Callable[[TurnStarted], Awaitable[None]]
OnDelta = Callable[[Delta], Awaitable[None]]
"""Takes the next piece of an answer, and may wait: that is the back-pressure of a slow reader."""
