"""What a message asks for, as a turn."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from a2a.types import a2a_pb2 as pb

from chat_gateway.a2a.calls import A2ACall
from chat_gateway.a2a.content import check_output_modes, message_of, value_of
from chat_gateway.a2a.ids import parse_task_id
from chat_gateway.a2a.tasks import TOOL_CALLS_EXTENSION
from chat_gateway.model.tools import Approval
from chat_gateway.model.turn import Message, OnDisconnect, TurnOutcome, TurnRequest
from contract.enums import Role
from contract.fields import check_request_id, check_session_id
from servicekit.errors import InvalidArgument, Violation, Violations

_ANSWERS: Final = frozenset({"tool_results", "approvals"})
_MAX_PARTS: Final = 10_000


def check_message(request: pb.SendMessageRequest) -> None:
    """Raises `InvalidArgument` with every violation that does not depend on the continued task."""
    found = Violations()
    message = request.message
    if not message.message_id:
        found.add("message.message_id", "is required")
    else:
        check_request_id(found, "message.message_id", message.message_id)
    if message.role != pb.ROLE_USER:
        found.add("message.role", "must be ROLE_USER")
    if not message.parts:
        found.add("message.parts", "must have at least one part")
    elif len(message.parts) > _MAX_PARTS:
        found.add("message.parts", f"must have at most {_MAX_PARTS} parts")
    if message.context_id:
        check_session_id(found, "message.context_id", message.context_id)
    _check_references(message, found)
    check_history_length(request.configuration, "configuration.history_length", found)
    found.check()
    check_output_modes(request.configuration.accepted_output_modes)


def check_history_length(message: Any, field: str, found: Violations) -> None:
    """Notes a negative length."""
    if message.history_length < 0:
        found.add(field, "must be at least 0")


def history_length(message: Any) -> int | None:
    """Returns how many messages of a task's history are asked for; None: all."""
    return int(message.history_length) if message.HasField("history_length") else None


def new_turn(call: A2ACall, agent_id: str, request: pb.SendMessageRequest) -> TurnRequest:
    """Returns the turn of a message that begins a task."""
    return _turn(call, agent_id, request, request.message.context_id, [message_of(request.message)])


def answering_turn(call: A2ACall, agent_id: str, request: pb.SendMessageRequest, waiting: TurnOutcome) -> TurnRequest:
    """Returns the turn of a message that brings what a task waits for.

    Raises `InvalidArgument` for a message that does not say what becomes of the calls.
    """
    message = request.message
    answers = [value_of(part.data) for part in message.parts if part.HasField("data")]
    answers = [one for one in answers if isinstance(one, dict) and _ANSWERS & one.keys()]
    if not answers:
        return _turn(call, agent_id, request, waiting.session_id, [_plain_result(message, waiting)])
    found = Violations()
    results, approvals, rest = [], [], pb.Message(message_id=message.message_id)
    for number, part in enumerate(message.parts):
        place = f"message.parts[{number}].data"
        data = value_of(part.data) if part.HasField("data") else None
        if isinstance(data, dict) and _ANSWERS & data.keys():
            results += _results(data, place, found)
            approvals += _approvals(data, place, found)
            for name in sorted(data.keys() - _ANSWERS):
                found.add(f"{place}.{name}", "is not known beside tool_results and approvals")
        else:
            rest.parts.append(part)
    found.check()
    messages = [*results, *([message_of(rest)] if rest.parts else [])]
    return _turn(call, agent_id, request, waiting.session_id, messages, approvals)


def _turn(
    call: A2ACall,
    agent_id: str,
    request: pb.SendMessageRequest,
    session_id: str,
    messages: Sequence[Message],
    approvals: Sequence[Approval] = (),
) -> TurnRequest:
    metadata = {**_metadata(request.metadata), **_metadata(request.message.metadata)}
    return TurnRequest(
        agent_id=agent_id,
        messages=tuple(messages),
        project=call.project,
        session_id=session_id,
        user_id=call.user_id,
        session_must_exist=bool(request.message.task_id),
        request_id=request.message.message_id,
        metadata=metadata,
        on_disconnect=OnDisconnect.FINISH,
        resumable=True,
        approvals=tuple(approvals),
        task="",
    )


def _metadata(given: Any) -> dict[str, str]:
    """Returns metadata as those of a session: text as it is, anything else as JSON."""
    return {
        name: one if isinstance(one, str) else msgspec.json.encode(one).decode()
        for name, one in sorted(value_of(given).items())
    }


def _plain_result(message: pb.Message, waiting: TurnOutcome) -> Message:
    """Returns a message without data as the result of the one call that the task waits for."""
    calls = waiting.message.tool_calls
    if waiting.pending or len(calls) != 1:
        rule = f"must have data with tool_results or approvals ({TOOL_CALLS_EXTENSION}) of each call of the task"
        raise InvalidArgument([Violation("message.parts", rule)])
    said = message_of(message)
    if said.parts and not said.content:
        texts = [getattr(part, "text", None) for part in said.parts]
        if None in texts:
            raise InvalidArgument([Violation("message.parts", "must be text: they are the result of a tool call")])
        return Message(Role.TOOL, "\n".join(map(str, texts)), tool_call_id=calls[0].id)
    return Message(Role.TOOL, said.content, tool_call_id=calls[0].id)


def _results(data: Mapping[str, Any], place: str, found: Violations) -> list[Message]:
    results = []
    for number, one in enumerate(_list(data, "tool_results", place, found)):
        where = f"{place}.tool_results[{number}]"
        call_id, content = _text(one, "id", where, found), one.get("content", "")
        text = content if isinstance(content, str) else msgspec.json.encode(content).decode()
        _only(one, {"id", "content"}, where, found)
        results.append(Message(Role.TOOL, text, tool_call_id=call_id))
    return results


def _approvals(data: Mapping[str, Any], place: str, found: Violations) -> list[Approval]:
    approvals = []
    for number, one in enumerate(_list(data, "approvals", place, found)):
        where = f"{place}.approvals[{number}]"
        approve, note = one.get("approve"), one.get("note", "")
        if not isinstance(approve, bool):
            found.add(f"{where}.approve", "must be true or false")
        if not isinstance(note, str):
            found.add(f"{where}.note", "must be text")
        _only(one, {"id", "approve", "note"}, where, found)
        approvals.append(Approval(_text(one, "id", where, found), approve is True, str(note)))
    return approvals


def _list(data: Mapping[str, Any], name: str, place: str, found: Violations) -> list[dict[str, Any]]:
    given = data.get(name, [])
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        found.add(f"{place}.{name}", "must be a list of objects")
        return []
    return given


def _text(one: Mapping[str, Any], name: str, where: str, found: Violations) -> str:
    text = one.get(name)
    if isinstance(text, str) and text:
        return text
    found.add(f"{where}.{name}", "must be the id of a call")
    return ""


def _only(one: Mapping[str, Any], known: set[str], where: str, found: Violations) -> None:
    for name in sorted(one.keys() - known):
        found.add(f"{where}.{name}", "is not known")


def _check_references(message: pb.Message, found: Violations) -> None:
    """Tasks of the same context are in its history, which the agent has; others it would not see."""
    for number, one in enumerate(message.reference_task_ids):
        named = parse_task_id(one)
        if named is None or named[1] != message.context_id:
            found.add(f"message.reference_task_ids[{number}]", "must be a task of the same context_id")
