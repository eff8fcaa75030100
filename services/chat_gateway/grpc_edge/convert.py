"""Requests and events between the domain and `parley.chat.v1`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

import msgspec
from google.protobuf.json_format import SerializeToJsonError
from google.protobuf.struct_pb2 import Struct

from chat_gateway.convert.free_form import exact_json_of
from chat_gateway.convert.messages import (
    FINISH_REASONS,
    details_to_proto,
    message_from_proto,
    message_to_proto,
    provider_data_to_proto,
    usage_to_proto,
)
from chat_gateway.convert.sampling import sampling_from_proto
from chat_gateway.convert.times import to_timestamp
from chat_gateway.model.parts import BASE64_RULE, known, wrong_base64
from chat_gateway.model.tools import (
    Approval,
    CallFinished,
    CallStarted,
    StepFinished,
    ToolActivity,
    ToolOutcome,
    ToolsUnavailable,
    TurnResumed,
)
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import (
    Delta,
    Message,
    OnDisconnect,
    Part,
    TextPart,
    Tool,
    TurnOutcome,
    TurnRequest,
    TurnStarted,
)
from contract.chat_fields import FIELD_NAME, FIELD_NAME_RULE, MAX_EXTRA_FIELDS, OWN_FIELDS
from contract.enums import HistoryPolicy
from contract.fields import DEFAULT_PROJECT
from contract.json_numbers import parsed
from contract.wire import BUSY_POLICIES, ROLES
from parley.chat.v1 import chat_service_pb2 as pb
from parley.session.v1 import message_pb2
from servicekit.errors import InvalidArgument, Violation, Violations

_ON_DISCONNECT = {
    pb.ON_DISCONNECT_UNSPECIFIED: OnDisconnect.CANCEL,
    pb.ON_DISCONNECT_CANCEL: OnDisconnect.CANCEL,
    pb.ON_DISCONNECT_FINISH: OnDisconnect.FINISH,
}


_OUTCOMES = {outcome: pb.ToolOutcome.Value(f"TOOL_OUTCOME_{outcome.name}") for outcome in ToolOutcome}
_HISTORY = {
    pb.HISTORY_POLICY_UNSPECIFIED: None,
    pb.HISTORY_POLICY_MATCH: HistoryPolicy.MATCH,
    pb.HISTORY_POLICY_REPLACE: HistoryPolicy.REPLACE,
    pb.HISTORY_POLICY_APPEND: HistoryPolicy.APPEND,
}


def request_from_proto(turn: pb.TurnInput, timeout: float | None) -> TurnRequest:
    """Returns the turn that is asked for. Raises `InvalidArgument` for enum values that do not exist."""
    _check_sizes(turn)
    _check_enums(turn)
    extra = _extra(turn.extra) if turn.extra else {}
    return TurnRequest(
        agent_id=turn.agent_id,
        messages=_messages(turn),
        project=turn.project or DEFAULT_PROJECT,
        session_id=turn.session_id,
        user_id=turn.user_id,
        session_must_exist=turn.session_must_exist,
        store=_store(turn),
        stateless=turn.stateless or _store(turn) is False,
        busy=BUSY_POLICIES[turn.busy],
        request_id=turn.request_id,
        agent_revision=turn.agent_revision,
        sampling=sampling_from_proto(turn.sampling),
        tools=tuple(_tool(tool) for tool in turn.tools),
        tool_choice=turn.tool_choice,
        response_format=_object(turn.response_format, "response_format") if turn.HasField("response_format") else None,
        extra=extra,
        metadata=dict(turn.metadata),
        on_disconnect=OnDisconnect.FINISH if turn.resumable else _ON_DISCONNECT[turn.on_disconnect],
        resumable=turn.resumable,
        history=_HISTORY[turn.history],
        timeout=timeout,
        approvals=tuple([Approval(one.tool_call_id, one.approve, one.note) for one in turn.approvals]),
    )


def large_parts_bytes(turn: pb.TurnInput) -> int:
    """Returns the bytes of the parts, where converting them takes so long that it leaves the event loop; else 0."""
    size = sum(
        len(part.image_url.url) + len(part.input_audio.data) + len(part.file.data)
        for message in turn.messages
        if message.parts
        for part in message.parts
    )
    return size if size > _MAX_PARTS_ON_LOOP else 0


def started_to_proto(started: TurnStarted) -> pb.TurnStarted:
    """Returns the first event of a stream."""
    return pb.TurnStarted(
        turn_id=started.turn_id,
        session_id=started.session_id,
        session_created=started.session_created,
        agent_revision=started.agent_revision,
        session_expire_time=to_timestamp(started.session_expire_time) if started.session_expire_time else None,
        replayed=started.replayed,
    )


def events_to_proto(deltas: list[Delta]) -> list[pb.StreamCompleteResponse]:
    """Returns pieces of an answer as few events, and what the turn does in between as events of their own."""
    events = []
    for is_activity, pieces in groupby(deltas, lambda delta: delta.activity is not None):
        if is_activity:
            shown = [activity_to_proto(delta.activity) for delta in pieces if delta.activity is not None]
            events += [event for event in shown if event is not None]
        else:
            joined = list(pieces)
            events.append(pb.StreamCompleteResponse(delta=deltas_to_proto(joined), event_id=joined[-1].event_id))
    return events


def activity_to_proto(activity: ToolActivity) -> pb.StreamCompleteResponse | None:
    """Returns what a turn does between the pieces of its answer; None for what this API has no event for."""
    match activity:
        case CallStarted():
            started = pb.ToolCallStarted(
                step=activity.step,
                tool_call_id=activity.call_id,
                name=activity.name,
                arguments=activity.arguments,
                server=activity.server,
            )
            return pb.StreamCompleteResponse(tool_call_started=started)
        case CallFinished():
            finished = pb.ToolCallFinished(
                step=activity.step,
                tool_call_id=activity.call_id,
                name=activity.name,
                server=activity.server,
                outcome=_OUTCOMES[activity.outcome],
                duration_ms=round(activity.seconds * 1000),
            )
            return pb.StreamCompleteResponse(tool_call_finished=finished)
        case StepFinished():
            step = pb.StepFinished(step=activity.step, usage=usage_to_proto(activity.usage))
            return pb.StreamCompleteResponse(step_finished=step)
        case ToolsListed():
            return None
        case TurnResumed():
            return pb.StreamCompleteResponse(turn_resumed=pb.TurnResumed(step=activity.step, attempt=activity.attempt))


def deltas_to_proto(deltas: list[Delta]) -> pb.MessageDelta:
    """Returns several pieces of an answer as one."""
    return pb.MessageDelta(
        content="".join(delta.content for delta in deltas),
        tool_calls=[
            pb.ToolCallDelta(
                index=call.index,
                id=call.id,
                name=call.name,
                arguments=call.arguments,
                provider_data=provider_data_to_proto(call.provider_data),
            )
            for delta in deltas
            for call in delta.tool_calls
        ],
        refusal="".join(delta.refusal for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas),
        provider_data=provider_data_to_proto(
            next((delta.provider_data for delta in reversed(deltas) if delta.provider_data is not None), None)
        ),
    )


def outcome_to_proto(outcome: TurnOutcome) -> pb.TurnOutcome:
    """Returns how a turn ended."""
    out = pb.TurnOutcome(
        turn_id=outcome.turn_id,
        session_id=outcome.session_id,
        session_created=outcome.session_created,
        turn_number=outcome.turn_number,
        session_expire_time=to_timestamp(outcome.session_expire_time) if outcome.session_expire_time else None,
        agent_revision=outcome.agent_revision,
        finish_reason=FINISH_REASONS[outcome.finish_reason],
        usage=usage_to_proto(outcome.usage),
        model=outcome.model,
        replayed=outcome.replayed,
        details=details_to_proto(outcome.details),
    )
    if outcome.unavailable:
        out.unavailable_tool_servers.extend(unavailable_to_proto(outcome.unavailable))
    if outcome.pending:
        out.pending_approvals.extend(
            pb.PendingApproval(tool_call_id=one.call_id, name=one.name, arguments=one.arguments)
            for one in outcome.pending
        )
    return out


def unavailable_to_proto(servers: Iterable[ToolsUnavailable]) -> list[pb.UnavailableToolServer]:
    """Returns the tool servers that are unavailable to a turn."""
    return [pb.UnavailableToolServer(tool_server=one.server, reason=one.reason) for one in servers]


def tools_to_proto(tools: Iterable[Tool]) -> list[pb.Tool]:
    """Returns tools as the provider gets them."""
    out = []
    for tool in tools:
        one = pb.Tool(name=tool.name, description=tool.description, strict=tool.strict)
        if tool.parameters is not None:
            one.parameters.update(tool.parameters)
        out.append(one)
    return out


def messages_to_proto(messages: list[Message]) -> list[message_pb2.Message]:
    """Returns a prompt."""
    return [message_to_proto(message) for message in messages]


def _messages(turn: pb.TurnInput) -> tuple[Message, ...]:
    found = Violations()
    messages = tuple([_message(message, index, found) for index, message in enumerate(turn.messages)])
    found.check()
    return messages


def _message(message: message_pb2.Message, index: int, found: Violations) -> Message:
    converted = message_from_proto(message)
    if not converted.parts:
        return converted
    parts: list[Part] = []
    for number, part in enumerate(converted.parts):
        if isinstance(part, TextPart):
            parts.append(part)
            continue
        place = f"messages[{index}].parts[{number}]"
        if part.kept is not None:
            found.add(f"{place}.kept", "must not be set")
        if field := wrong_base64(part):
            found.add(f"{place}.{field}", BASE64_RULE)
        parts.append(replace(known(part), place=place))
    return replace(converted, parts=tuple(parts))


def _check_sizes(turn: pb.TurnInput) -> None:
    """Raises `InvalidArgument` for what would take long to convert."""
    found = Violations()
    if len(turn.messages) > _MAX_ITEMS:
        found.add("messages", f"must have at most {_MAX_ITEMS} messages")
    elif sum(len(message.parts) + len(message.tool_calls) for message in turn.messages) > _MAX_ITEMS:
        found.add("messages", f"must have at most {_MAX_ITEMS} parts and tool calls")
    if sum(tool.parameters.ByteSize() for tool in turn.tools) > _MAX_STRUCT_BYTES:
        found.add("tools", f"must have at most {_MAX_STRUCT_BYTES} bytes of parameters")
    found.check()


def _check_enums(turn: pb.TurnInput) -> None:
    found = Violations()
    for number, message in enumerate(turn.messages):
        if message.role not in ROLES:
            found.add(f"messages[{number}].role", "must be a role that exists")
    if turn.busy not in BUSY_POLICIES:
        found.add("busy", "must be a policy that exists")
    if turn.history not in _HISTORY:
        found.add("history", "must be a policy that exists")
    if turn.stateless and turn.HasField("store") and turn.store:
        found.add("store", "must not be true for a stateless turn")
    if turn.on_disconnect not in _ON_DISCONNECT:
        found.add("on_disconnect", "must be a value that exists")
    found.check()


def _store(turn: pb.TurnInput) -> bool | None:
    return turn.store if turn.HasField("store") else (False if turn.stateless else None)


def _extra(said: Mapping[str, str]) -> dict[str, bytes]:
    found = Violations()
    if len(said) > MAX_EXTRA_FIELDS or sum(map(len, said.values())) > _MAX_STRUCT_BYTES:
        found.add("extra", f"must have at most {MAX_EXTRA_FIELDS} entries and {_MAX_STRUCT_BYTES} characters")
        found.check()
    extra = {}
    for name, text in sorted(said.items()):
        if name in OWN_FIELDS:
            found.add(f"extra.{name}", "has a place of its own, or is not supported")
        elif not FIELD_NAME.fullmatch(name):
            found.add("extra", f"key {name[:80]!r} {FIELD_NAME_RULE}")
        elif (value := _json(text)) is None:
            found.add(f"extra.{name}", "must be JSON")
        elif value != b"null":
            extra[name] = value
    found.check()
    return extra


def _json(text: str) -> bytes | None:
    """Returns JSON text as compact bytes; None where it is none."""
    try:
        return msgspec.json.format(text.encode(), indent=-1) if parsed(text) is not None else b"null"
    except (ValueError, msgspec.DecodeError):
        return None


_MAX_STRUCT_BYTES = 256 * 1024
"""Of free-form JSON on the wire: converted on the event loop, which more of it would hold up."""
_MAX_ITEMS = 10_000
_MAX_PARTS_ON_LOOP = 64 * 1024


def _object(struct: Struct, field: str) -> dict[str, Any]:
    if struct.ByteSize() > _MAX_STRUCT_BYTES:
        raise InvalidArgument([Violation(field, f"must have at most {_MAX_STRUCT_BYTES} bytes")])
    try:
        fields: dict[str, Any] = exact_json_of(struct)
        return fields
    except (SerializeToJsonError, ValueError):
        problem = "must be JSON: numbers must be finite, and each value of a kind"
        raise InvalidArgument([Violation(field, problem)]) from None


def _tool(tool: pb.Tool) -> Tool:
    parameters = _object(tool.parameters, "tools.parameters") if tool.HasField("parameters") else None
    return Tool(tool.name, tool.description, parameters, tool.strict)
