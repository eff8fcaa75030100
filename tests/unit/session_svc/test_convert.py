"""What requests mean to session_svc."""

import pytest

from parley.session.v1 import message_pb2, turn_service_pb2
from servicekit.errors import InvalidArgument
from session_svc.convert import commit_turn
from session_svc.model import Usage
from session_svc.rules import MOST_TOKENS


@pytest.mark.parametrize(("said", "counted"), [(7, 7), (-1, 0), (2**63 - 1, MOST_TOKENS)])
def test_token_counts_are_bounded(said: int, counted: int) -> None:
    messages = [
        message_pb2.Message(role=message_pb2.ROLE_USER, content="hi"),
        message_pb2.Message(role=message_pb2.ROLE_ASSISTANT, content="yes"),
    ]
    usage = message_pb2.Usage(prompt_tokens=said, completion_tokens=said, cached_tokens=said)
    lease = turn_service_pb2.TurnLease(project="default", session_id="s1", turn_id="t1", token=1)
    request = turn_service_pb2.CommitTurnRequest(lease=lease, turn=message_pb2.Turn(messages=messages, usage=usage))
    assert commit_turn(request).usage == Usage(counted, counted, counted)


def test_metadata_that_is_no_json_is_a_wrong_field() -> None:
    request = turn_service_pb2.CommitTurnRequest()
    request.turn.metadata["share"] = float("nan")
    with pytest.raises(InvalidArgument) as wrong:
        commit_turn(request)
    assert "turn.metadata" in {violation.field for violation in wrong.value.violations}
