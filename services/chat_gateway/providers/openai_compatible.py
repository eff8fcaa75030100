"""Any server that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, llama.cpp, …"""

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self

import msgspec
import structlog
from aiohttp import ClientError, ClientResponse, ClientSession, ConnectionTimeoutError

from chat_gateway.model.errors import ProviderBadResponse, ProviderRejected, ProviderTimeout, ProviderUnavailable
from chat_gateway.model.turn import Delta, FinishReason, Message, OnDelta, ToolCall, ToolCallDelta, Usage
from chat_gateway.providers.http_client import Endpoint, transport_error
from chat_gateway.providers.openai_json import (
    UpstreamCompletion,
    decode_completion,
    encode_call,
    to_call_delta,
    to_finish_reason,
    to_message,
    to_usage,
)
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from chat_gateway.providers.sse import EventTooLarge, SseParser
from contract.enums import Role
from servicekit import traces
from servicekit.errors import StartupError

log = structlog.get_logger(__name__)

MAX_ANSWER_BYTES = 240 * 1024
"""The longest answer that is taken, in bytes of UTF-8: with the longest request it still fits CommitTurn's 1 MiB."""

_PATH = "/chat/completions"
_DONE = b"[DONE]"
_MAX_TOOL_CALLS = 128
_MAX_BODY_BYTES = 4 * MAX_ANSWER_BYTES
_MAX_ERROR_BYTES = 2048
_RETRYABLE = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class ProviderBounds:
    """How long to wait for a provider, in seconds."""

    connect: float = 5.0
    first_token: float = 120.0
    between_tokens: float = 60.0
    answer: float = 600.0
    """For an answer that is not streamed."""


class OpenAICompatible:
    """One provider, over a session that it shares with others."""

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: str | None,
        bounds: ProviderBounds,
        session: ClientSession,
        *,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """Raises `StartupError` for a URL or a key that can't be used."""
        self.name = name
        self._max_answer_bytes = max_answer_bytes
        self._bounds = bounds
        headers = {"Content-Type": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        try:
            self._endpoint = Endpoint(session, base_url, _PATH, headers)
        except ValueError as error:
            raise StartupError(f"provider {name!r}: {error}") from None

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        phase = _Phase("answer" if on_delta is None else "first_token")
        limit = self._bounds.answer if on_delta is None else self._bounds.first_token
        try:
            async with asyncio.timeout(limit) as bound:
                body = encode_call(call, stream=on_delta is not None)
                async with self._endpoint.post(body, dict(traces.outgoing()) if traces.on() else None) as response:
                    if response.status != 200:
                        await self._refuse(response)
                    if on_delta is None:
                        return await self._whole(response, call)
                    with _Silence(bound, self._bounds.between_tokens) as silence:
                        return await self._streamed(response, call, on_delta, silence, phase)
        except ConnectionTimeoutError:
            raise ProviderTimeout(self.name, "connect") from None
        except TimeoutError:
            raise ProviderTimeout(self.name, phase.name) from None
        except ClientError as error:
            raise transport_error(self.name, error) from error

    async def _whole(self, response: ClientResponse, call: ModelCall) -> ModelAnswer:
        body = await self._read(response, _MAX_BODY_BYTES)
        (completion,) = self._decode([body])
        choice = completion.choices[0] if completion.choices else None
        if choice is None or choice.message is None:
            raise ProviderBadResponse(self.name, "a completion without a choice")
        message = to_message(choice.message)
        reason = to_finish_reason(choice.finish_reason or "stop")
        return self._answer(message, reason, to_usage(completion.usage), completion.model or call.model)

    async def _streamed(
        self,
        response: ClientResponse,
        call: ModelCall,
        on_delta: OnDelta,
        silence: "_Silence",
        phase: "_Phase",
    ) -> ModelAnswer:
        parser, answer = SseParser(), _StreamedAnswer()
        while chunk := await response.content.readany():
            events = self._events(parser, chunk)
            done = _DONE in events
            if done:
                events = events[: events.index(_DONE)]
            # What came together goes on together: each delta of its own would be a write to the caller of its own.
            delta = answer.add(self._decode(events))
            if answer.size > self._max_answer_bytes:
                raise ProviderBadResponse(self.name, f"an answer longer than {self._max_answer_bytes} bytes")
            if delta is not None:
                phase.name = "between_tokens"
                # The caller's slowness is not the provider's: its time does not count.
                silence.pause()
                await on_delta(delta)
            if done:
                break
            if phase.name == "between_tokens":
                silence.begin()
        return self._finished(answer, call)

    def _finished(self, answer: "_StreamedAnswer", call: ModelCall) -> ModelAnswer:
        if answer.finish_reason is None:
            raise ProviderBadResponse(self.name, "a stream that ended without a finish_reason")
        return self._answer(answer.message(), answer.finish_reason, answer.usage, answer.model or call.model)

    def _answer(self, message: Message, reason: FinishReason, usage: Usage, model: str) -> ModelAnswer:
        if _message_size(message) > self._max_answer_bytes:
            raise ProviderBadResponse(self.name, f"an answer longer than {self._max_answer_bytes} bytes")
        if len(message.tool_calls) > _MAX_TOOL_CALLS:
            raise ProviderBadResponse(self.name, f"more than {_MAX_TOOL_CALLS} tool calls")
        if any(not call.id or not call.name for call in message.tool_calls):
            raise ProviderBadResponse(self.name, "a tool call without id or name")
        if len({call.id for call in message.tool_calls}) < len(message.tool_calls):
            raise ProviderBadResponse(self.name, "two tool calls with one id")
        return ModelAnswer(message, reason, usage, model)

    def _events(self, parser: SseParser, chunk: bytes) -> list[bytes]:
        try:
            return parser.feed(chunk)
        except EventTooLarge:
            raise ProviderBadResponse(self.name, "an event that is too large") from None

    def _decode(self, texts: list[bytes]) -> list[UpstreamCompletion]:
        completions = []
        try:
            for text in texts:
                completion = decode_completion(text)
                if completion.error is not None:
                    self._reported(completion.error)
                completions.append(completion)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ProviderBadResponse(self.name, "not a chat completion") from None
        return completions

    def _reported(self, error: object) -> NoReturn:
        log.warning("provider_error", provider=self.name)
        log.debug("provider_error", provider=self.name, error=str(error)[:_MAX_ERROR_BYTES])
        raise ProviderUnavailable(self.name, "reported an error instead of an answer")

    async def _read(self, response: ClientResponse, limit: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while chunk := await response.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise ProviderBadResponse(self.name, f"an answer longer than {limit} bytes")
        return b"".join(chunks)

    async def _refuse(self, response: ClientResponse) -> NoReturn:
        # What a provider says of an error may quote keys or prompts: not for the caller, and in the log for debugging.
        said = (await response.content.readany())[:_MAX_ERROR_BYTES]
        log.warning("provider_refused", provider=self.name, status=response.status)
        log.debug("provider_refusal", provider=self.name, body=said.decode("utf-8", "replace"))
        if response.status < 200:
            raise ProviderBadResponse(self.name, f"an answer of status {response.status}")
        if response.status in _RETRYABLE or response.status >= 500:
            raise ProviderUnavailable(
                self.name,
                f"answered with status {response.status}",
                status=response.status,
                retry_after=_retry_after(response),
            )
        raise ProviderRejected(self.name, response.status)


class _Phase:
    """Which bound a call is under, for the error that names it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _Silence:
    """Ends a call whose provider, once it has begun to answer, says nothing for `longest` seconds.

    A timer for every piece would cost as much as decoding it: there is one a call, which looks at the clock when it
    strikes, and waits for the rest of a silence that began later.
    """

    __slots__ = ("_longest", "_loop", "_scope", "_since", "_timer")

    def __init__(self, scope: asyncio.Timeout, longest: float) -> None:
        self._scope = scope
        self._longest = longest
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """It is the provider's turn to speak."""
        self._since = self._loop.time()

    def pause(self) -> None:
        """It is not; from the first time on, the scope's own bound does not count any more."""
        self._since = None
        if self._timer is None:
            self._scope.reschedule(None)
            self._timer = self._loop.call_later(self._longest, self._strike)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _strike(self) -> None:
        now = self._loop.time()
        end = (now if self._since is None else self._since) + self._longest
        if end <= now:
            self._scope.reschedule(now)
        else:
            self._timer = self._loop.call_at(end, self._strike)


class _StreamedAnswer:
    """Puts the chunks of a streamed answer together."""

    __slots__ = ("_calls", "_content", "_refusal", "finish_reason", "model", "size", "usage")

    def __init__(self) -> None:
        self._content: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self.finish_reason: FinishReason | None = None
        self.usage = Usage()
        self.model = ""
        self.size = 0

    def add(self, chunks: list[UpstreamCompletion]) -> Delta | None:
        """Returns what chunks that came together add to the answer; None when that is nothing."""
        content: list[str] = []
        refusal: list[str] = []
        calls: list[ToolCallDelta] = []
        for chunk in chunks:
            if chunk.usage is not None:
                self.usage = to_usage(chunk.usage)
            if not self.model and chunk.model:
                self.model = chunk.model
            if not chunk.choices:
                continue
            choice = chunk.choices[0]
            if choice.finish_reason:
                self.finish_reason = to_finish_reason(choice.finish_reason)
            delta = choice.delta
            if delta is None:
                continue
            if delta.content:
                content.append(delta.content)
            if delta.refusal:
                refusal.append(delta.refusal)
            if delta.tool_calls:
                calls.extend(map(to_call_delta, delta.tool_calls))
        if not (content or refusal or calls):
            return None
        added = Delta("".join(content), tuple(calls), "".join(refusal))
        self._keep(added)
        return added

    def _keep(self, delta: Delta) -> None:
        if delta.content:
            self._content.append(delta.content)
            self.size += _size(delta.content)
        if delta.refusal:
            self._refusal.append(delta.refusal)
            self.size += _size(delta.refusal)
        for call in delta.tool_calls:
            kept = self._calls.setdefault(call.index, ["", "", ""])
            kept[0] = kept[0] or call.id
            kept[1] = kept[1] or call.name
            kept[2] += call.arguments
            self.size += _size(call.arguments)

    def message(self) -> Message:
        calls = tuple(
            ToolCall(id_, name, text) for id_, name, text in map(self._calls.__getitem__, sorted(self._calls))
        )
        return Message(Role.ASSISTANT, "".join(self._content), tool_calls=calls, refusal="".join(self._refusal))


def _message_size(message: Message) -> int:
    calls = sum(_size(call.id) + _size(call.name) + _size(call.arguments) for call in message.tool_calls)
    return _size(message.content) + _size(message.refusal) + calls


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _retry_after(response: ClientResponse) -> float:
    try:
        return min(max(float(response.headers.get("retry-after", "1")), 0.0), 600.0)
    except ValueError:
        return 1.0
