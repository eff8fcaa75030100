"""Turns as tasks."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import ParseDict

from chat_gateway.a2a.content import data_part, parts_of
from chat_gateway.a2a.ids import task_id
from chat_gateway.convert.times import to_timestamp
from chat_gateway.model.turn import FinishReason, Message, TurnOutcome
from contract.enums import Role
from contract.reasons import Reason
from servicekit.errors import ServiceError

ANSWER: Final = "answer"
"""The artifact that an agent's answer is."""

TOOL_CALLS_EXTENSION: Final = "urn:parley:a2a:tool-calls:1"
"""Names the data by which a task asks for results of tools and for approvals, and by which it is given them."""

WAITING: Final = frozenset({FinishReason.TOOL_CALLS, FinishReason.REQUIRES_APPROVAL})
ENDED: Final = frozenset(
    {pb.TASK_STATE_COMPLETED, pb.TASK_STATE_FAILED, pb.TASK_STATE_CANCELED, pb.TASK_STATE_REJECTED}
)

_STOPPED = frozenset({Reason.TURN_INTERRUPTED, Reason.TURN_CANCELLED, Reason.CANCELLED})
_CUT = "The answer was cut at its limit of tokens."
_FILTERED = "The provider's content filter ended the answer."


def is_waiting(outcome: TurnOutcome) -> bool:
    """Whether a turn ended with calls that wait for results or approvals."""
    return bool(outcome.pending or outcome.finish_reason in WAITING)


def state_of(outcome: TurnOutcome) -> "pb.TaskState":
    """Returns the state of the task whose turn ended so."""
    if is_waiting(outcome):
        return pb.TASK_STATE_INPUT_REQUIRED
    if outcome.finish_reason is FinishReason.CONTENT_FILTER:
        return pb.TASK_STATE_REJECTED
    return pb.TASK_STATE_COMPLETED


def status_of(outcome: TurnOutcome, task: str, time: datetime | None = None) -> pb.TaskStatus:
    """Returns how a turn ended as the status of its task, and, where it waits, what for."""
    status = pb.TaskStatus(state=state_of(outcome), timestamp=to_timestamp(time or outcome.begin_time))
    said = _said(outcome)
    if said:
        status.message.CopyFrom(_agents(task, outcome, said))
    return status


def _said(outcome: TurnOutcome) -> list[pb.Part]:
    if is_waiting(outcome):
        return [*parts_of(outcome.message), *_wanted(outcome)]
    if outcome.finish_reason is FinishReason.LENGTH:
        return [pb.Part(text=_CUT)]
    return [pb.Part(text=_FILTERED)] if outcome.finish_reason is FinishReason.CONTENT_FILTER else []


def _wanted(outcome: TurnOutcome) -> list[pb.Part]:
    wanted: dict[str, Any] = {}
    if outcome.message.tool_calls:
        wanted["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in outcome.message.tool_calls
        ]
    if outcome.pending:
        wanted["requires_approval"] = [
            {"id": one.call_id, "name": one.name, "arguments": one.arguments} for one in outcome.pending
        ]
    return [data_part(wanted)] if wanted else []


def _agents(task: str, outcome: TurnOutcome, parts: Sequence[pb.Part]) -> pb.Message:
    message = pb.Message(
        message_id=f"{outcome.turn_id}-status",
        context_id=outcome.session_id,
        task_id=task,
        role=pb.ROLE_AGENT,
        parts=parts,
    )
    if is_waiting(outcome):
        message.extensions.append(TOOL_CALLS_EXTENSION)
    return message


def failure_of(error: ServiceError, task: str, context: str, time: datetime) -> pb.TaskStatus:
    """Returns the status of a task whose turn failed, of which nothing is stored."""
    state = pb.TASK_STATE_CANCELED if error.reason in _STOPPED else pb.TASK_STATE_FAILED
    message = pb.Message(
        message_id=f"{task.partition('.')[0]}-status",
        context_id=context,
        task_id=task,
        role=pb.ROLE_AGENT,
        parts=[pb.Part(text=error.message), data_part({"code": error.reason.lower()})],
    )
    return pb.TaskStatus(state=state, message=message, timestamp=to_timestamp(time))


def artifact_of(message: Message) -> pb.Artifact | None:
    """Returns an answer; None where nothing was said."""
    parts = parts_of(message)
    return pb.Artifact(artifact_id=ANSWER, parts=parts) if parts else None


def metadata_of(outcome: TurnOutcome) -> dict[str, Any]:
    """Returns what a turn has beyond the protocol, as the metadata of its task and of its last event."""
    usage = outcome.usage
    return {
        "parley": {
            "finish_reason": outcome.finish_reason.value,
            "agent_revision": outcome.agent_revision,
            "turn_number": outcome.turn_number,
            "model": outcome.model,
            "usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
        }
    }


def history_of(messages: Sequence[Message], turn_id: str, task: str, context: str) -> list[pb.Message]:
    """Returns what was said in a turn; what has no content, such as calls of tools, is left out."""
    history = []
    for number, message in enumerate(messages):
        if message.role in (Role.USER, Role.ASSISTANT) and (parts := parts_of(message)):
            role = pb.ROLE_USER if message.role is Role.USER else pb.ROLE_AGENT
            one = pb.Message(message_id=f"{turn_id}-{number}", context_id=context, task_id=task, role=role, parts=parts)
            history.append(one)
    return history


def finished_task(
    outcome: TurnOutcome,
    history: Sequence[pb.Message],
    *,
    id: str = "",
    time: datetime | None = None,
) -> pb.Task:
    """Returns the task whose turn ended so; `id` is that of the earlier turn that this one continues."""
    named = id or task_id(outcome.turn_id, outcome.session_id)
    task = pb.Task(id=named, context_id=outcome.session_id, status=status_of(outcome, named, time), history=history)
    if not is_waiting(outcome) and (artifact := artifact_of(outcome.message)) is not None:
        task.artifacts.append(artifact)
    ParseDict(metadata_of(outcome), task.metadata)
    return task


def with_history(task: pb.Task, length: int | None) -> pb.Task:
    """Returns the task with its last messages, as many as are asked for; None: all."""
    if length is not None:
        del task.history[: max(len(task.history) - length, 0)]
    return task
