"""What requests mean to session_svc."""

from collections.abc import Callable
from typing import Any

import pytest

from parley.session.v1 import message_pb2, turn_service_pb2
from servicekit.errors import InvalidArgument
from session_svc.edge.turn_convert import commit_turn
from session_svc.model.rules import (
    MAX_HANDED_TO,
    MAX_TOKENS,
    MAX_TOOL_RUNS,
    MAX_TURN_METADATA_DEPTH,
    MAX_UNAVAILABLE_TOOLS,
)
from session_svc.model.session import Usage


@pytest.mark.parametrize(("said", "counted"), [(7, 7), (-1, 0), (2**63 - 1, MAX_TOKENS)])
def test_token_counts_are_bounded(said: int, counted: int) -> None:
    request = _commit()
    request.turn.usage.MergeFrom(
        message_pb2.Usage(
            prompt_tokens=said,
            completion_tokens=said,
            cached_tokens=said,
            reasoning_tokens=said,
            cache_write_tokens=said,
        ),
    )
    assert commit_turn(request).usage == Usage(counted, counted, counted, counted, counted)


def test_metadata_that_is_no_json_is_a_wrong_field() -> None:
    request = turn_service_pb2.CommitTurnRequest()
    request.turn.metadata["share"] = float("nan")
    with pytest.raises(InvalidArgument) as wrong:
        commit_turn(request)
    assert "turn.metadata" in {violation.field for violation in wrong.value.violations}


@pytest.mark.parametrize("nested", [lambda inner: {"k": inner}, lambda inner: [inner]])
def test_metadata_is_nested_as_deep_as_a_stream_of_turns_can_carry(nested: Callable[[Any], Any]) -> None:
    def commit(depth: int) -> turn_service_pb2.CommitTurnRequest:
        value: Any = 1
        for _ in range(depth - 1):
            value = nested(value)
        request = _commit()
        request.turn.metadata["k"] = value
        return request

    deepest = commit(MAX_TURN_METADATA_DEPTH)
    stored = message_pb2.Turn.FromString(commit_turn(deepest).turn)
    begun = turn_service_pb2.BeginTurnResponse(window=[stored])
    answer = turn_service_pb2.TurnsResponse(results=[turn_service_pb2.TurnResult(begin=begun)])
    assert turn_service_pb2.TurnsResponse.FromString(answer.SerializeToString()) == answer
    with pytest.raises(InvalidArgument) as wrong:
        commit_turn(commit(MAX_TURN_METADATA_DEPTH + 1))
    assert {violation.field for violation in wrong.value.violations} == {"turn.metadata"}


@pytest.mark.parametrize(
    ("field", "most", "one"),
    [
        ("tool_runs", MAX_TOOL_RUNS, message_pb2.ToolRun(tool_call_id="c")),
        ("handed_to", MAX_HANDED_TO, "billing"),
        ("unavailable_tools", MAX_UNAVAILABLE_TOOLS, message_pb2.ToolsUnavailable(server="files", reason="down")),
    ],
)
def test_what_is_kept_of_tools_is_bounded(field: str, most: int, one: Any) -> None:
    request = _commit()
    getattr(request.turn, field).extend([one] * most)
    assert getattr(message_pb2.Turn.FromString(commit_turn(request).turn), field)[-1] == one
    getattr(request.turn, field).append(one)
    with pytest.raises(InvalidArgument) as wrong:
        commit_turn(request)
    assert {violation.field for violation in wrong.value.violations} == {f"turn.{field}"}


def _commit() -> turn_service_pb2.CommitTurnRequest:
    messages = [
        message_pb2.Message(role=message_pb2.ROLE_USER, content="hi"),
        message_pb2.Message(role=message_pb2.ROLE_ASSISTANT, content="yes"),
    ]
    lease = turn_service_pb2.TurnLease(project="default", session_id="s1", turn_id="t1", token=1)
    return turn_service_pb2.CommitTurnRequest(lease=lease, turn=message_pb2.Turn(messages=messages))
