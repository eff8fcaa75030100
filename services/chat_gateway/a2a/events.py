"""The events of a turn as those of its task's stream, for its first caller and for subscribers."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import ParseDict

from chat_gateway.a2a.ids import task_id
from chat_gateway.a2a.tasks import ANSWER, artifact_of, failure_of, is_waiting, metadata_of, status_of
from chat_gateway.convert.times import to_timestamp
from chat_gateway.model.tools import CallFinished, CallStarted, StepFinished, ToolActivity, TurnResumed
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import Delta, TurnOutcome
from servicekit.errors import ServiceError


class TaskEvents:
    """The stream of one task: the task as it begins, pieces of its answer, what its tools do, and its end."""

    def __init__(self, turn_id: str, session_id: str, begin_time: datetime, *, id: str = "") -> None:
        """`id` is that of the task, if the turn continues one of an earlier turn."""
        self.task_id = id or task_id(turn_id, session_id)
        self.context_id = session_id
        self._begin_time = begin_time
        self._answered = False
        self._said = self._kept = ""
        """The answer so far, and what of it no try of a step takes back."""

    def working(self, history: Sequence[pb.Message] = ()) -> pb.Task:
        """Returns the task as it runs; what begins every stream."""
        return pb.Task(id=self.task_id, context_id=self.context_id, status=self._working(), history=history)

    def delta(self, delta: Delta) -> pb.StreamResponse | None:
        """Returns one more piece of the answer, or what a tool does; None for what callers do not see."""
        if delta.activity is not None:
            return self._activity(delta.activity)
        text = delta.content or delta.refusal
        self._said += text
        return self._piece([pb.Part(text=text)], last=False) if text else None

    def finish(self, outcome: TurnOutcome) -> list[pb.StreamResponse]:
        """Returns the end of a stream whose turn is stored."""
        events = []
        artifact = artifact_of(outcome.message)
        if not self._answered and artifact is not None and not is_waiting(outcome):
            events.append(self._piece(list(artifact.parts), last=True))
        status = status_of(outcome, self.task_id, datetime.now(UTC))
        events.append(self._status(status, metadata_of(outcome)))
        return events

    def fail(self, error: ServiceError) -> pb.StreamResponse:
        """Returns the end of a stream whose turn failed."""
        return self._status(failure_of(error, self.task_id, self.context_id, datetime.now(UTC)))

    def failed(self, error: ServiceError) -> pb.Task:
        """Returns the task whose turn failed."""
        status = failure_of(error, self.task_id, self.context_id, datetime.now(UTC))
        return pb.Task(id=self.task_id, context_id=self.context_id, status=status)

    def _working(self) -> pb.TaskStatus:
        return pb.TaskStatus(state=pb.TASK_STATE_WORKING, timestamp=to_timestamp(self._begin_time))

    def _piece(self, parts: list[pb.Part], *, last: bool) -> pb.StreamResponse:
        append, self._answered = self._answered, True
        return pb.StreamResponse(
            artifact_update=pb.TaskArtifactUpdateEvent(
                task_id=self.task_id,
                context_id=self.context_id,
                artifact=pb.Artifact(artifact_id=ANSWER, parts=parts),
                append=append,
                last_chunk=last,
            )
        )

    def _activity(self, activity: ToolActivity) -> pb.StreamResponse | None:
        match activity:
            case CallStarted():
                done = {"tool_call_started": {"id": activity.call_id, "name": activity.name, "step": activity.step}}
            case CallFinished():
                outcome = activity.outcome.value
                done = {"tool_call_finished": {"id": activity.call_id, "name": activity.name, "outcome": outcome}}
            case StepFinished():
                self._kept = self._said
                return None
            case ToolsListed():
                return None
            case TurnResumed():
                return self._again()
        return self._status(self._working(), {"parley": done})

    def _again(self) -> pb.StreamResponse | None:
        """Another gateway asks the model again: what was said in the step that it had begun does not count."""
        taken_back, self._said = self._said != self._kept, self._kept
        if not taken_back:
            return None
        self._answered = False
        return self._piece([pb.Part(text=self._kept)], last=False) if self._kept else None

    def _status(self, status: pb.TaskStatus, metadata: dict[str, Any] | None = None) -> pb.StreamResponse:
        event = pb.TaskStatusUpdateEvent(task_id=self.task_id, context_id=self.context_id, status=status)
        if metadata:
            ParseDict(metadata, event.metadata)
        return pb.StreamResponse(status_update=event)
