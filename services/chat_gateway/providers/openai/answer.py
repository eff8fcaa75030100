"""Converts responses in OpenAI's format, complete or streamed, to the gateway's values."""

from collections.abc import Sequence
from dataclasses import replace

from chat_gateway.model.turn import (
    NO_DETAILS,
    AnswerDetails,
    Delta,
    FinishReason,
    Message,
    ProviderData,
    Tool,
    ToolCall,
    Usage,
)
from chat_gateway.providers.adapter import BadAnswer, ReportedError
from chat_gateway.providers.answered_media import Media
from chat_gateway.providers.finish_reasons import finish_reason
from chat_gateway.providers.openai.dialect import Dialect
from chat_gateway.providers.openai.pieces import Added, joined_logprobs
from chat_gateway.providers.openai.reasoning_blocks import joined_blocks
from chat_gateway.providers.openai.request import KEPT_FIELDS, KIND
from chat_gateway.providers.openai.think_tags import ThinkTags
from chat_gateway.providers.openai.tool_calls import ToolCalls, whole_calls
from chat_gateway.providers.openai.usage import grown, to_usage
from chat_gateway.providers.openai.wire import (
    UpstreamChoice,
    UpstreamCompletion,
    UpstreamMessage,
    calls_of,
    decode_completion,
    one_choice,
    reported_usage,
    said,
    thought,
)
from chat_gateway.providers.provider import ModelAnswer
from contract.enums import Role

_DONE = b"[DONE]"
_MAX_REASONING_CHARACTERS = 256 * 1024
"""What is kept of reasoning; the caller of a stream gets all of it."""
_MAX_TEXT = 128
_UNSAID = frozenset({"", "null", "none"})
_MAX_LOGPROBS_BYTES = 8 * 1024 * 1024


def read_answer(body: bytes, model: str, dialect: Dialect, provider: str) -> ModelAnswer:
    """Returns the answer of a completion that was not streamed. Raises `BadAnswer` and `ReportedError`."""
    completion = _checked(body)
    choice = one_choice(completion.choices or (), None)
    message = (choice.message or choice.delta) if choice is not None else None
    if choice is not None and message is None and choice.text is not None:
        message = UpstreamMessage(content=choice.text)
    if choice is None or message is None:
        raise BadAnswer("a completion without a choice")
    if choice.error and said(choice.error):
        raise _reported(choice)
    content, reasoning = message.content or "", thought(message)
    if dialect.think_tags:
        tagged, content = _parted(content)
        reasoning += tagged
    calls = whole_calls(calls_of(message), provider) if message.tool_calls or message.function_call else ()
    answer = Message(
        Role.ASSISTANT,
        content,
        tool_calls=calls,
        refusal=message.refusal or "",
        reasoning=reasoning,
        provider_data=_kept(
            said(message.reasoning_details), said(message.thinking_blocks), said(message.extra_content), provider
        ),
    )
    why = _word(choice.finish_reason)
    _check_said_why(why, dialect, whole=bool(content or calls))
    reason = _reason(why or "stop", calls)
    details = _details(completion, said(message.annotations), said(choice.logprobs))
    if message.images or message.audio:
        media = Media()
        media.take(said(message.images), said(message.audio))
        details = media.added(details)
    usage = to_usage(completion.usage or reported_usage(completion, choice))
    return ModelAnswer(answer, reason, usage, _short(completion.model) or model, details)


class CompletionStream:
    """An `AnswerStream` of chunks."""

    __slots__ = (
        "_calls",
        "_content",
        "_details",
        "_dialect",
        "_extra",
        "_finish_reason",
        "_halves",
        "_index",
        "_logprobs",
        "_logprobs_size",
        "_media",
        "_model",
        "_provider",
        "_reasoning",
        "_reasoning_details",
        "_reasoning_size",
        "_refusal",
        "_tags",
        "_thinking_blocks",
        "_tools",
        "_usage",
        "alive",
        "ended",
        "finished",
        "size",
    )

    def __init__(self, model: str, dialect: Dialect, provider: str, tools: Sequence[Tool] = ()) -> None:
        self._model = model
        self._tools = tools
        self._dialect = dialect
        self._provider = provider
        self._content: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: list[str] = []
        self._reasoning_size = 0
        self._reasoning_details: list[bytes] = []
        self._thinking_blocks: list[bytes] = []
        self._extra = b""
        self._calls: ToolCalls | None = None
        self._logprobs: list[bytes] = []
        self._logprobs_size = 0
        self._details = NO_DETAILS
        self._media: Media | None = None
        self._finish_reason = ""
        self._index: int | None = None
        self._halves: dict[str, str] = {}
        self._usage = Usage()
        self._tags = ThinkTags() if dialect.think_tags else None
        self.size = 0
        self.alive = False
        self.finished = False
        self.ended = False

    def add(self, events: Sequence[bytes]) -> Delta | None:
        added = Added()
        for event in events:
            if self.ended:
                break
            if event[:1] == b"{" or (event := event.strip()):
                if event == _DONE:
                    self.ended = True
                else:
                    self._event(event, added)
        if self._calls is not None and (self.finished or self.ended):
            added.calls += self._calls.close()
        if self._tags is not None and (self.finished or self.ended):
            tagged, text = self._tags.close()
            self._keep_text(added, text, tagged)
        return added.delta()

    def answer(self) -> ModelAnswer:
        calls = self._calls.calls() if self._calls is not None else ()
        _check_said_why(self._finish_reason, self._dialect, whole=bool(self._content or calls))
        message = Message(
            Role.ASSISTANT,
            "".join(self._content),
            tool_calls=calls,
            refusal="".join(self._refusal),
            reasoning="".join(self._reasoning),
            provider_data=_kept(
                joined_blocks(self._reasoning_details),
                joined_blocks(self._thinking_blocks),
                self._extra,
                self._provider,
            ),
        )
        reason = _reason(self._finish_reason or "stop", calls)
        answered = self._details
        if self._logprobs:
            answered = replace(answered, logprobs=joined_logprobs(self._logprobs))
        if self._media is not None:
            answered = self._media.added(answered)
        return ModelAnswer(message, reason, self._usage, self._model, answered)

    def _event(self, event: bytes, added: Added) -> None:
        try:
            chunk = _checked(event, self._halves)
        except BadAnswer:
            lines = event.splitlines()
            if len(lines) < 2:
                raise
            # Some end lines, and not events: every line is one.
            delta = self.add(lines)
            if delta is not None:
                added.take(delta)
        else:
            self._chunk(chunk, added)

    def _chunk(self, chunk: UpstreamCompletion, added: Added) -> None:
        if chunk.usage is not None or chunk.x_groq is not None:
            self._usage = grown(self._usage, to_usage(reported_usage(chunk, None)))
        if chunk.model:
            self._model = _short(chunk.model)
        if chunk.system_fingerprint or chunk.service_tier:
            self._details = replace(
                self._details,
                system_fingerprint=_short(chunk.system_fingerprint) or self._details.system_fingerprint,
                service_tier=_short(chunk.service_tier) or self._details.service_tier,
            )
        if not chunk.choices:
            return
        choice = one_choice(chunk.choices, self._index)
        if choice is None:
            return  # another, unsolicited answer
        if self._index is None:
            self._index = choice.index
        self._choice(choice, added)

    def _choice(self, choice: UpstreamChoice, added: Added) -> None:
        if choice.error and said(choice.error):
            raise _reported(choice)
        if choice.usage is not None:
            self._usage = grown(self._usage, to_usage(choice.usage))
        delta = choice.delta
        if delta is None and choice.message is not None:
            delta = self._beyond(choice.message)
        if delta is None and choice.text is not None:
            delta = UpstreamMessage(content=choice.text)
        if delta is not None:
            self._message(delta, added)
        if choice.logprobs:
            self._keep_logprobs(choice, added)
        if choice.finish_reason and (why := _word(choice.finish_reason)):
            # What is said first of an answer that was cut off, or failed, stands: an end for itself says no more.
            if not self._finish_reason or finish_reason(why) is not FinishReason.STOP:
                self._finish_reason = why
            self.finished = self.alive = True

    def _beyond(self, whole: UpstreamMessage) -> UpstreamMessage:
        """Returns what a message that some send at the end of its pieces has beyond them."""
        content, thoughts = _beyond(whole.content or "", self._content), thought(whole)
        if content is not None:
            whole.content = content
        reasoning = _beyond(thoughts, self._reasoning) if thoughts else None
        if reasoning is not None:
            whole.thinking = whole.reasoning = whole.reasoning_text = None
            whole.reasoning_content = reasoning
        return whole

    def _message(self, delta: UpstreamMessage, added: Added) -> None:
        content, reasoning = delta.content or "", thought(delta)
        if self._tags is not None and content:
            self.alive = True
            tagged, content = self._tags.feed(content)
            reasoning += tagged
        self._keep_text(added, content, reasoning)
        if delta.refusal:
            self.alive = True
            added.refusal.append(delta.refusal)
            self._refusal.append(delta.refusal)
            self.size += _size(delta.refusal)
        if delta.tool_calls or delta.function_call:
            self._keep_calls(delta, added)
        if delta.reasoning_details or delta.thinking_blocks or delta.extra_content or delta.annotations:
            self._keep_opaque(delta)
        if (delta.images or delta.audio) and (said(delta.images) or said(delta.audio)):
            self.alive = True
            if self._media is None:
                self._media = Media()
            self._media.take(said(delta.images), said(delta.audio))

    def _keep_text(self, added: Added, content: str, reasoning: str) -> None:
        if content:
            self.alive = True
            added.content.append(content)
            self._content.append(content)
            self.size += _size(content)
        if reasoning:
            self.alive = True
            added.reasoning.append(reasoning)
            self._reasoning_size += len(reasoning)
            if self._reasoning_size <= _MAX_REASONING_CHARACTERS:
                self._reasoning.append(reasoning)

    def _keep_calls(self, delta: UpstreamMessage, added: Added) -> None:
        self.alive = True
        if self._calls is None:
            names = [tool.name for tool in self._tools]
            self._calls = ToolCalls(self._provider, names, hold=self._dialect.finish_reason)
        before = self._calls.size
        for call in calls_of(delta):
            added.calls += self._calls.add(call)
        self.size += self._calls.size - before

    def _keep_opaque(self, delta: UpstreamMessage) -> None:
        details, extra, annotations = map(said, (delta.reasoning_details, delta.extra_content, delta.annotations))
        blocks = said(delta.thinking_blocks)
        if details.startswith(b"["):
            self.alive = True
            self._reasoning_details.append(details)
        if blocks.startswith(b"["):
            self.alive = True
            self._thinking_blocks.append(blocks)
        self._extra = extra or self._extra
        if annotations.startswith(b"["):
            before = self._details.annotations
            self._details = replace(
                self._details, annotations=b"%b,%b" % (before[:-1], annotations[1:]) if before else annotations
            )
        self.size += len(details) + len(blocks) + len(extra) + len(annotations)

    def _keep_logprobs(self, choice: UpstreamChoice, added: Added) -> None:
        logprobs = said(choice.logprobs)
        if logprobs:
            self._logprobs_size += len(logprobs)
            if self._logprobs_size > _MAX_LOGPROBS_BYTES:
                raise BadAnswer(f"logprobs of more than {_MAX_LOGPROBS_BYTES} bytes")
            self._logprobs.append(logprobs)
            added.logprobs.append(logprobs)


def _beyond(whole: str, pieces: list[str]) -> str | None:
    """Returns what a text has beyond its pieces; None if it does not begin with them."""
    if len(pieces) > len(whole):  # they are not empty
        return None
    before = "".join(pieces)
    return whole[len(before) :] if whole.startswith(before) else None


def _checked(text: bytes, halves: dict[str, str] | None = None) -> UpstreamCompletion:
    completion = decode_completion(text, halves)
    if said(completion.error) or completion.object == "error" or completion.type == "error":
        raise ReportedError(text)
    return completion


def _reported(choice: UpstreamChoice) -> ReportedError:
    return ReportedError(b'{"error":%b}' % said(choice.error))


def _word(why: str | None) -> str:
    """Returns why an answer ended; nothing where it did not, which some put into words."""
    if why == "stop":
        return why
    return "" if why is None or why.strip().lower() in _UNSAID else why


def _check_said_why(word: str, dialect: Dialect, *, whole: bool) -> None:
    if not word and (dialect.finish_reason or not whole):
        raise BadAnswer("an answer that ended without a finish_reason")


def _reason(word: str, calls: tuple[ToolCall, ...]) -> FinishReason:
    reason = finish_reason(word)
    if reason is None:
        raise BadAnswer("it ended for a reason that is no success")
    # Many servers say `stop` after tool calls; what the caller has to do next is what counts.
    if reason is FinishReason.TOOL_CALLS and not calls:
        raise BadAnswer("it ended for tool calls and has none")
    return FinishReason.TOOL_CALLS if calls and reason is FinishReason.STOP else reason


def _kept(reasoning_details: bytes, thinking_blocks: bytes, extra_content: bytes, provider: str) -> ProviderData | None:
    fields = zip(KEPT_FIELDS, (reasoning_details, thinking_blocks, extra_content), strict=True)
    text = b",".join(b'"%b":%b' % (name.encode(), value) for name, value in fields if value)
    return ProviderData(KIND, provider, b"{%b}" % text) if text else None


def _details(completion: UpstreamCompletion, annotations: bytes, logprobs: bytes) -> AnswerDetails:
    if not (completion.system_fingerprint or completion.service_tier or annotations or logprobs):
        return NO_DETAILS
    return AnswerDetails(
        "", _short(completion.system_fingerprint), _short(completion.service_tier), annotations, logprobs
    )


def _parted(content: str) -> tuple[str, str]:
    tags = ThinkTags()
    (tagged, text), (more_tagged, more_text) = tags.feed(content), tags.close()
    return tagged + more_tagged, text + more_text


def _short(text: str | None) -> str:
    return text[:_MAX_TEXT] if text else ""


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
