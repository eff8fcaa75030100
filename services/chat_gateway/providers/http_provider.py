"""Model calls over HTTP for every kind of provider, with timeouts, bounds and error mapping."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, NoReturn, Self

from aiohttp import ClientError, ClientResponse, ConnectionTimeoutError

from chat_gateway.model.provider_errors import ProviderBadResponse, ProviderTimeout
from chat_gateway.model.turn import Delta, Message, OnDelta, ToolCallDelta, Usage
from chat_gateway.providers.adapter import (
    Adapter,
    AnswerStream,
    BadAnswer,
    ReportedError,
    WireRequest,
    check_calls,
)
from chat_gateway.providers.answered_media import MAX_MEDIA_BYTES
from chat_gateway.providers.http_client import Endpoint, transport_error
from chat_gateway.providers.provider import EmbeddingAnswer, EmbeddingCall, ModelAnswer, ModelCall
from chat_gateway.providers.sse import BOM, MAX_EVENT_BYTES, EventTooLarge, SseParser
from chat_gateway.providers.upstream_errors import MAX_ERROR_BYTES, ErrorReader
from servicekit import traces
from servicekit.errors import ServiceError

MAX_ANSWER_BYTES = 240 * 1024
"""The longest answer that is taken, in bytes of UTF-8: with the longest request it still fits CommitTurn's 1 MiB."""
MAX_PAUSES: Final = 8
"""How often a provider is asked to go on with an answer that it paused."""
USAGE_GRACE: Final = 2.0
"""Seconds that the end of a stream is waited for, once the reason why the answer ended is there."""

_MAX_BODY_BYTES = 4 * MAX_ANSWER_BYTES
_MAX_LOGPROBS_BYTES = 8 * 1024 * 1024
_MAX_STREAM_BYTES: Final = 64 * 1024 * 1024
"""Of everything that is sent with a streamed answer: hundreds for each byte that is kept."""
MAX_EMBEDDINGS_BYTES: Final = 32 * 1024 * 1024
"""The largest answer with vectors: some 2000 of 3072 numbers as base64, or 500 written as numbers."""
_LARGE_BYTES = 256 * 1024
"""From here on, vectors are read on a thread: it takes longer than a turn may be held up."""
_FAILURES = (TimeoutError, ClientError, BadAnswer, EventTooLarge, ReportedError)


@dataclass(frozen=True, slots=True)
class ProviderBounds:
    """How long to wait for a provider, in seconds."""

    connect: float = 5.0
    first_token: float = 120.0
    between_tokens: float = 60.0
    answer: float = 600.0
    """For an answer that is not streamed."""
    usage_grace: float = USAGE_GRACE


class HttpProvider:
    """Implements `Provider` for any kind, with its adapter."""

    def __init__(
        self,
        name: str,
        adapter: Adapter,
        endpoint: Endpoint,
        errors: ErrorReader,
        bounds: ProviderBounds,
        *,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        has_media: bool = False,
    ) -> None:
        """`has_media`: answers may have images and audio, and may be so much larger."""
        self.name = name
        self._adapter = adapter
        self._endpoint = endpoint
        self._errors = errors
        self._bounds = bounds
        self._max_answer_bytes = max_answer_bytes
        self._max_body_bytes = _MAX_BODY_BYTES + MAX_MEDIA_BYTES if has_media else _MAX_BODY_BYTES
        self._max_event_bytes = MAX_EVENT_BYTES + MAX_MEDIA_BYTES if has_media else MAX_EVENT_BYTES

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        answer = await self._ask(call, on_delta)
        return answer if answer.pause is None else await self._gone_on(answer, on_delta)

    async def _gone_on(self, answer: ModelAnswer, on_delta: OnDelta | None) -> ModelAnswer:
        """Returns the whole of an answer that the provider paused."""

        async def pass_on(delta: Delta) -> None:
            # The provider's data of an answer are one, and come when all of it is there.
            assert on_delta is not None, "an answer is streamed to somebody"
            delta = replace(delta, provider_data=None)
            if delta != Delta():
                await on_delta(delta)

        for _ in range(MAX_PAUSES):
            if answer.pause is None:
                break
            more = await self._ask(answer.pause.call, None if on_delta is None else pass_on)
            try:
                answer = self._bounded(answer.pause.joined(more))
            except BadAnswer as error:
                raise self._failure(error, "answer") from error
        if answer.pause is not None:
            raise ProviderBadResponse(self.name, f"an answer that paused {MAX_PAUSES + 1} times")
        if on_delta is not None and answer.message.provider_data is not None:
            await on_delta(Delta(provider_data=answer.message.provider_data))
        return answer

    async def _ask(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        phase = _Phase("answer" if on_delta is None else "first_token")
        limit = self._bounds.answer if on_delta is None else self._bounds.first_token
        request = self._adapter.request(call, stream=on_delta is not None)
        try:
            async with asyncio.timeout(limit) as bound, await self._send(request) as response:
                if response.status != 200:
                    await self._refuse(response)
                if on_delta is None:
                    most = _MAX_LOGPROBS_BYTES if "logprobs" in call.extra else self._max_body_bytes
                    return self._bounded(self._adapter.read(await _body(response, most), call))
                with _Silence(bound, self._bounds.between_tokens) as silence:
                    return await self._streamed(response, call, on_delta, silence, phase)
        except _FAILURES as error:
            raise self._failure(error, phase.name) from error

    async def embed(self, call: EmbeddingCall) -> EmbeddingAnswer:
        most = self._adapter.max_embedding_inputs or len(call.inputs)
        parts = [replace(call, inputs=call.inputs[n : n + most]) for n in range(0, len(call.inputs), most)]
        try:
            async with asyncio.timeout(self._bounds.answer):
                answers = [await self._embed(part) for part in parts]
        except _FAILURES as error:
            raise self._failure(error, "answer") from error
        if len(answers) == 1:
            return answers[0]
        tokens = sum(answer.usage.prompt_tokens for answer in answers)
        vectors = tuple(vector for answer in answers for vector in answer.vectors)
        return replace(answers[-1], vectors=vectors, usage=Usage(tokens))

    async def _embed(self, call: EmbeddingCall) -> EmbeddingAnswer:
        async with await self._send(self._adapter.embedding_request(call)) as response:
            if response.status != 200:
                await self._refuse(response)
            body = await _body(response, MAX_EMBEDDINGS_BYTES)
            if len(body) < _LARGE_BYTES:
                return self._adapter.read_embeddings(body, call)
            return await asyncio.to_thread(self._adapter.read_embeddings, body, call)

    def _send(self, request: WireRequest) -> Awaitable[ClientResponse]:
        headers = {**request.headers, **dict(traces.outgoing())} if traces.on() else request.headers
        return self._endpoint.send(request.path, request.body, headers)

    def _failure(self, error: Exception, phase: str) -> ServiceError:
        match error:
            case ConnectionTimeoutError():
                return ProviderTimeout(self.name, "connect")
            case TimeoutError():
                return ProviderTimeout(self.name, phase)
            case ClientError():
                return transport_error(self.name, error)
            case ReportedError():
                return self._errors.reported(error.body)
            case EventTooLarge():
                return ProviderBadResponse(self.name, "an event that is too large")
            case _:
                return ProviderBadResponse(self.name, str(error))

    async def _streamed(
        self,
        response: ClientResponse,
        call: ModelCall,
        on_delta: OnDelta,
        silence: "_Silence",
        phase: "_Phase",
    ) -> ModelAnswer:
        parser, answer, begun = SseParser(self._max_event_bytes), self._adapter.stream(call), False
        left = _MAX_STREAM_BYTES
        while chunk := await response.content.readany():
            left -= len(chunk)
            if left < 0:
                raise BadAnswer(f"a stream of more than {_MAX_STREAM_BYTES} bytes")
            if not begun:
                start = chunk.removeprefix(BOM).lstrip()
                if start[:1] == b"{":
                    # It was asked for a stream, and answers whole: no line of a stream begins so.
                    rest = await _body(response, self._max_body_bytes)
                    whole = self._bounded(self._adapter.read(start + rest, call))
                    await on_delta(_whole(whole))
                    return whole
                begun = bool(start)  # some send blank lines while the model thinks
            # Pieces that arrive together are passed on together, since each delta costs a write to the caller.
            await self._take(answer, parser.feed(chunk), on_delta, silence, phase)
            if answer.ended:
                break
            if answer.finished:
                await self._rest(response, parser, answer, on_delta, silence, phase)
                break
            if answer.alive:
                silence.begin()
        if not answer.ended and not answer.finished:
            await self._take(answer, parser.close(), on_delta, silence, phase)
        return self._bounded(answer.answer())

    async def _rest(
        self,
        response: ClientResponse,
        parser: SseParser,
        answer: AnswerStream,
        on_delta: OnDelta,
        silence: "_Silence",
        phase: "_Phase",
    ) -> None:
        """Reads what follows the finish reason. The answer is whole: nothing that goes wrong here costs it."""
        deadline = asyncio.get_running_loop().time() + self._bounds.usage_grace
        while not answer.ended:
            try:
                async with asyncio.timeout_at(deadline):
                    chunk = await response.content.readany()
                events = parser.feed(chunk) if chunk else parser.close()
            except (TimeoutError, ClientError, EventTooLarge):
                return
            size = answer.size
            try:
                await self._take(answer, events, on_delta, silence, phase)
            except (BadAnswer, ReportedError):
                return
            if answer.size > size:
                # Some send the reason with every piece, so it does not end the stream.
                deadline = asyncio.get_running_loop().time() + self._bounds.between_tokens
            if not chunk:
                return

    async def _take(
        self, answer: AnswerStream, events: list[bytes], on_delta: OnDelta, silence: "_Silence", phase: "_Phase"
    ) -> None:
        delta = answer.add(events)
        if answer.size > self._max_answer_bytes:
            self._too_long()
        if answer.alive:
            phase.name = "between_tokens"
            # The caller's slowness is not the provider's: its time does not count.
            silence.pause()
        if delta is not None:
            await on_delta(delta)

    def _bounded(self, answer: ModelAnswer) -> ModelAnswer:
        message = answer.message
        size = message_bytes(message)
        if size > self._max_answer_bytes:
            self._too_long()
        check_calls(len(message.tool_calls))
        room = self._max_answer_bytes - size
        if message.reasoning and text_bytes(message.reasoning) > room:
            # The caller has seen it all; what is stored of it must not cost the answer.
            kept = message.reasoning.encode()[:room].decode("utf-8", "ignore")
            return replace(answer, message=replace(message, reasoning=kept))
        return answer

    def _too_long(self) -> NoReturn:
        raise BadAnswer(f"an answer longer than {self._max_answer_bytes} bytes")

    async def _refuse(self, response: ClientResponse) -> NoReturn:
        said = b""
        try:
            while len(said) < MAX_ERROR_BYTES and (chunk := await response.content.readany()):
                said += chunk
        except ClientError:
            pass  # the status says enough
        raise self._errors.refused(response.status, response.headers, said[:MAX_ERROR_BYTES])


async def _body(response: ClientResponse, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await response.content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise BadAnswer(f"an answer longer than {limit} bytes")
    return b"".join(chunks)


def _whole(answer: ModelAnswer) -> Delta:
    message = answer.message
    calls = tuple(
        ToolCallDelta(index, call.id, call.name, call.arguments, call.provider_data)
        for index, call in enumerate(message.tool_calls)
    )
    return Delta(
        message.content,
        calls,
        message.refusal,
        message.reasoning,
        message.provider_data,
        logprobs=answer.details.logprobs,
    )


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


def message_bytes(message: Message) -> int:
    """Returns the bytes of what is stored of an answer, reasoning aside."""
    size = text_bytes(message.content) + text_bytes(message.refusal)
    if message.provider_data is not None:
        size += len(message.provider_data.json)
    for call in message.tool_calls:
        size += text_bytes(call.id) + text_bytes(call.name) + text_bytes(call.arguments)
        if call.provider_data is not None:
            size += len(call.provider_data.json)
    return size


def text_bytes(text: str) -> int:
    """Returns the length of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
