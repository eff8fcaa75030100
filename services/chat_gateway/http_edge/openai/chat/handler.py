"""POST /v1/chat/completions: one turn, streamed or whole. Plain ASGI, since every turn pays for it."""

import asyncio
from collections.abc import Mapping

import structlog
from litestar.types import Receive, Send

from access.caller import Caller
from chat_gateway.finishing import FinishingTurns
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.openai.chat.convert import (
    completion,
    completion_id,
    decode_request,
    param_of,
    to_turn_request,
)
from chat_gateway.http_edge.openai.chat.schema import ChatCompletionRequest
from chat_gateway.http_edge.openai.chat.sse import KEEP_ALIVE, Chunks, error_frame
from chat_gateway.http_edge.wire.bodies import BodyTimeout, ClientGone, read_body
from chat_gateway.http_edge.wire.errors import encode_error, error_headers, http_status
from chat_gateway.http_edge.wire.limit_headers import Headers, limit_headers
from chat_gateway.http_edge.wire.protocol import Line
from chat_gateway.http_edge.wire.refusal import refuse_body
from chat_gateway.http_edge.wire.times import timestamp
from chat_gateway.model.errors import CommitCutShort, CommitUnresolved
from chat_gateway.model.turn import Delta, TurnOutcome, TurnRequest, TurnStarted
from servicekit.errors import Draining, Internal, InvalidArgument, MessageTooLarge, ServiceError, Violation

CLIENT_GONE = 499
"""The status that is counted, though nobody gets it, when the client left first."""

_JSON = (b"content-type", b"application/json")
_STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

log = structlog.get_logger("chat_gateway.http")


class Completions:
    """Answers chat completions. Every request is served in its own task, which a client that leaves cancels."""

    def __init__(self, turns: FinishingTurns, settings: HttpSettings) -> None:
        self._turns = turns
        self._settings = settings

    async def answer(
        self, caller: Caller, fields: Mapping[str, str], request_id: bytes, line: Line, receive: Receive, send: Send
    ) -> int:
        """Serves one request and returns the status it was answered with.

        `fields` holds the headers that stand for fields (`completions_json.HEADERS`); the turn is bound to `caller`.
        """
        try:
            timeout = None if line.has_body else self._settings.body_timeout
            body = await read_body(receive, self._settings.max_body_bytes, timeout)
        except (MessageTooLarge, BodyTimeout) as error:
            return await refuse_body(error, request_id, receive, send)
        except ClientGone:
            return CLIENT_GONE
        exchange = _Exchange(line, receive, send, request_id, self._settings)
        try:
            try:
                chat = decode_request(body)
                request = to_turn_request(chat, fields, caller)
                if chat.stream:
                    await exchange.stream(self._turns, request, chat)
                else:
                    await exchange.whole(self._turns, request, chat)
            except InvalidArgument as error:
                await exchange.fail(_renamed(error))
            except ServiceError as error:
                await exchange.fail(error)
            except CommitCutShort:
                exchange.take_cancellation()
                await exchange.fail(CommitUnresolved())
            except asyncio.CancelledError:
                exchange.take_cancellation()
                await exchange.fail(Draining())
            except ClientGone:
                raise
            except Exception as error:
                log.error("unexpected exception", request_id=request_id.decode("latin-1"), exc_info=error)
                await exchange.fail(Internal())
        except (ClientGone, asyncio.CancelledError):
            return CLIENT_GONE
        finally:
            exchange.close()
        return exchange.status


class _Exchange:
    """One request and its answer. Notices when the client leaves; a stream needs a companion task for that."""

    __slots__ = (
        "_chat",
        "_chunks",
        "_companion",
        "_gone",
        "_head",
        "_last_write",
        "_line",
        "_loop",
        "_receive",
        "_request_id",
        "_send",
        "_settings",
        "_task",
        "_turn",
        "_writing",
        "status",
    )

    def __init__(self, line: Line, receive: Receive, send: Send, request_id: bytes, settings: HttpSettings) -> None:
        self._line = line
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._companion: asyncio.Task[None] | None = None
        self._chat: ChatCompletionRequest | None = None
        self._chunks: Chunks | None = None
        self._gone = False
        self._head: Headers | None = None
        self._turn = asyncio.Lock()
        self._writing = False
        self._last_write = 0.0
        self.status = 0

    async def whole(self, turns: FinishingTurns, request: TurnRequest, chat: ChatCompletionRequest) -> None:
        """Runs the turn and sends its answer in one piece, after the commit."""
        self._line.watch(self._leave)
        outcome = await turns.run(request)
        self.close()
        body, headers = completion(outcome, chat.model), _turn_headers(outcome)
        if self._line.answer([_JSON, (b"x-request-id", self._request_id), *headers], body):
            self.status = 200
        else:
            await self._respond(200, body, headers)

    async def stream(self, turns: FinishingTurns, request: TurnRequest, chat: ChatCompletionRequest) -> None:
        """Runs the turn and sends its answer as it grows; the end only after the commit."""
        self._chat = chat
        self._last_write = self._loop.time()
        self._companion = self._loop.create_task(self._watch_stream())
        outcome = await turns.run(request, self._on_started, self._on_delta)
        self.close()
        if self._chunks is None:
            raise RuntimeError("the turn ended without having begun")
        await self._end_stream(self._chunks.finish(outcome.finish_reason, outcome.usage))

    async def fail(self, error: ServiceError) -> None:
        """Sends the error: as the answer, or, in mid-stream, as the last frame."""
        self.close()
        body = encode_error(error)
        if self._chunks is not None and self._head is None:
            self.status = http_status(error)
            await self._end_stream(error_frame(body))
            return
        await self._respond(http_status(error), body, error_headers(error))

    def take_cancellation(self) -> None:
        """Decides what a cancellation of this task means: raises `ClientGone`, or takes it as the server's drain."""
        if self._gone:
            raise ClientGone
        if self._task is not None:
            self._task.uncancel()

    def close(self) -> None:
        """Ends the watch; from here on nobody cancels this task because of the client."""
        self._line.unwatch()
        if self._companion is not None:
            self._companion.cancel()
            self._companion = None

    async def _on_started(self, started: TurnStarted) -> None:
        chat = self._chat
        if chat is None or self._chunks is not None:
            raise RuntimeError("a turn begins once, in a stream")
        options = chat.stream_options
        chunks = Chunks(
            completion_id(started.turn_id),
            int(started.begin_time.timestamp()),
            chat.model,
            options is not None and options.include_usage is True,
        )
        self._chunks = chunks
        # The head waits for the first piece, or for the first silence that is too long: until then a provider that
        # fails is an error with its status, which clients know how to retry.
        self._head = [*_STREAM_HEADERS, (b"x-request-id", self._request_id), *_turn_headers(started)]

    async def _on_delta(self, delta: Delta) -> None:
        chunks = self._chunks
        if chunks is None:
            raise RuntimeError("a delta came before the turn had begun")
        await self._write(chunks.delta(delta))

    async def _write(self, data: bytes) -> None:
        async with self._turn:
            self._last_write = self._loop.time()
            self._writing = True
            await self._send_piece(data, more=True)
            self._writing = False

    async def _end_stream(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._settings.write_timeout), self._turn:
                await self._send_piece(data, more=False)
        except TimeoutError:
            raise ClientGone from None

    async def _send_piece(self, data: bytes, *, more: bool) -> None:
        if self._head is not None and self._chunks is not None:
            head, self._head = self._head, None
            self.status = 200
            await self._send({"type": "http.response.start", "status": 200, "headers": head})
            data = self._chunks.role() + data
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _respond(self, status: int, body: bytes, headers: Headers) -> None:
        self.status = status
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    _JSON,
                    (b"content-length", b"%d" % len(body)),
                    (b"x-request-id", self._request_id),
                    *headers,
                ],
            }
        )
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _watch_stream(self) -> None:
        """Waits for the client to leave, breaks silences with a comment, and leaves a client that does not read."""
        while True:
            try:
                async with asyncio.timeout_at(self._last_write + self._wait()):
                    message = await self._receive()
            except TimeoutError:
                if self._writing:
                    if self._loop.time() - self._last_write >= self._settings.write_timeout:
                        break
                elif not await self._keep_alive():
                    break
                continue
            if message["type"] == "http.disconnect":
                break
        self._leave()

    def _wait(self) -> float:
        return self._settings.write_timeout if self._writing else self._settings.keep_alive_interval

    async def _keep_alive(self) -> bool:
        """Sends a comment if the stream is silent; false when the client does not take it."""
        if self._chunks is None:
            self._last_write = self._loop.time()  # before the turn has begun there is nothing to say
        elif self._loop.time() - self._last_write >= self._settings.keep_alive_interval:
            try:
                async with asyncio.timeout(self._settings.write_timeout):
                    await self._write(KEEP_ALIVE)
            except TimeoutError:
                return False
        return True

    def _leave(self) -> None:
        self._gone = True
        if self._task is not None:
            self._task.cancel()


def _renamed(error: InvalidArgument) -> InvalidArgument:
    return InvalidArgument([Violation(param_of(v.field), v.description) for v in error.violations])


def _turn_headers(turn: TurnStarted | TurnOutcome) -> Headers:
    headers: Headers = [(b"x-agent-revision", b"%d" % turn.agent_revision)]
    if turn.session_id:
        headers.append((b"x-session-id", turn.session_id.encode("latin-1")))
    if turn.session_created:
        headers.append((b"x-session-created", b"true"))
    if turn.session_expire_time is not None:
        headers.append((b"x-session-expires", timestamp(turn.session_expire_time).encode()))
    if turn.replayed:
        headers.append((b"idempotent-replayed", b"true"))
    if turn.limits:
        headers += limit_headers(turn.limits)
    return headers
