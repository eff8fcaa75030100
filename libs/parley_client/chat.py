"""Requests for turns, the sum of their streams, and resuming broken streams."""

import random
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import grpc

from parley.chat.v1 import chat_service_pb2 as pb
from parley.session.v1 import message_pb2
from parley_client.errors import ParleyError, Unavailable
from parley_client.promises import TURN_SECONDS

MAX_FRUITLESS_TRIES: Final = 6
"""Consecutive attempts to reopen a broken stream without receiving an event."""
FIRST_PAUSE_SECONDS: Final = 0.2
MAX_PAUSE_SECONDS: Final = 2.0

Messages = str | message_pb2.Message | Iterable[message_pb2.Message]


def user(text: str) -> message_pb2.Message:
    """Returns a message of the user."""
    return message_pb2.Message(role=message_pb2.ROLE_USER, content=text)


def turn_input(agent_id: str, messages: Messages, **fields: Any) -> pb.TurnInput:
    """Returns the input of both kinds of completion; `messages` may be one text, `fields` are TurnInput's."""
    if isinstance(messages, str):
        messages = user(messages)
    given = [messages] if isinstance(messages, message_pb2.Message) else list(messages)
    return pb.TurnInput(agent_id=agent_id, messages=given, **fields)


@dataclass(slots=True)
class Answer:
    """The sum of a stream: `add` each event."""

    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    tool_calls: list[message_pb2.ToolCall] = field(default_factory=list)
    """The tool calls that the caller has to run."""
    started: pb.TurnStarted | None = None
    outcome: pb.TurnOutcome | None = None
    """How the turn ran; None until it is stored."""

    _before_step: tuple[str, str, str] = ("", "", "")

    def add(self, event: pb.StreamCompleteResponse) -> None:
        """Adds the next event of the turn. Output of a step that is repeated is discarded."""
        match event.WhichOneof("event"):
            case "started":
                self.started = event.started
            case "finished":
                self.outcome = event.finished
            case "step_finished":
                self._before_step = (self.text, self.refusal, self.reasoning)
            case "turn_resumed":
                self.text, self.refusal, self.reasoning = self._before_step
                self.tool_calls = []
            case "delta":
                self.text += event.delta.content
                self.refusal += event.delta.refusal
                self.reasoning += event.delta.reasoning
                for more in event.delta.tool_calls:
                    self._add_call(more)

    def _add_call(self, more: pb.ToolCallDelta) -> None:
        while len(self.tool_calls) <= more.index:
            self.tool_calls.append(message_pb2.ToolCall())
        call = self.tool_calls[more.index]
        call.id = call.id or more.id
        call.name = call.name or more.name
        call.arguments += more.arguments


class FollowedTurn:
    """One turn's stream over as many calls as needed: the first call, or its retry, then watches of the turn. If the
    connection breaks before `started`, the turn is requested again with the same request id. After that, only a turn
    with `resumable` can be continued.
    """

    def __init__(self, turn: pb.TurnInput, timeout: float | None) -> None:
        self._turn = pb.TurnInput()
        self._turn.CopyFrom(turn)
        self._turn.request_id = turn.request_id or str(uuid.uuid4())
        self._watch: pb.WatchTurnRequest | None = None
        self._ends = time.monotonic() + (TURN_SECONDS if timeout is None else timeout)
        self._fruitless = 0
        self.finished = False
        """Whether the turn's last event was seen."""

    @classmethod
    def watched(cls, request: pb.WatchTurnRequest, timeout: float | None) -> Self:
        """Returns the stream that watches an existing turn from its beginning."""
        followed = cls(pb.TurnInput(resumable=True), timeout)
        followed._watch = request
        return followed

    def remaining(self) -> float:
        """Returns the remaining seconds, at least a small number, so that the call itself reports the timeout."""
        return max(self._ends - time.monotonic(), 0.001)

    def request(self) -> pb.StreamCompleteRequest | pb.WatchTurnRequest:
        """Returns the next call's request."""
        return self._watch or pb.StreamCompleteRequest(input=self._turn)

    def events(self, response: pb.StreamCompleteResponse | pb.WatchTurnResponse) -> Sequence[pb.StreamCompleteResponse]:
        """Returns the new event in a response, or None for one that only says that the watch is open."""
        if isinstance(response, pb.WatchTurnResponse):
            if not response.HasField("event"):
                return ()
            response = response.event
        if self._watch is None:
            self._watch = self._watch_of(response.started)
        self._watch.after_event_id = response.event_id or self._watch.after_event_id
        self._fruitless = 0
        self.finished = response.HasField("finished")
        return (response,)

    def check_end(self) -> None:
        """Raises the error of a stream that ended before the turn did."""
        if not self.finished:
            raise Unavailable("the stream ended before the turn", code=grpc.StatusCode.UNAVAILABLE)

    def pause_after(self, error: ParleyError) -> float:
        """Returns the seconds to wait before the next call. Raises `error` where there is to be none."""
        self._fruitless += 1
        pause = error.retry_delay or min(FIRST_PAUSE_SECONDS * 2 ** (self._fruitless - 1), MAX_PAUSE_SECONDS)
        pause *= random.uniform(1.0, 1.2)
        broken = type(error) is Unavailable and (self._watch is None or self._turn.resumable)
        if not broken or self._fruitless > MAX_FRUITLESS_TRIES or pause > self.remaining():
            raise error
        return pause

    def _watch_of(self, started: pb.TurnStarted) -> pb.WatchTurnRequest:
        return pb.WatchTurnRequest(
            project=self._turn.project,
            session_id=started.session_id,
            user_id=self._turn.user_id,
            turn_id=started.turn_id,
        )
