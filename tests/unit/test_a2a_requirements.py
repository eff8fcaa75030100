"""What A2A demands of a server (its compatibility kit's MUSTs), with the tests that assert it, over every binding."""

import ast
from pathlib import Path
from typing import Final

import pytest
from a2a.utils.errors import A2A_ERROR_MAPPING, JSON_RPC_ERROR_CODE_MAP

from chat_gateway.a2a import errors as ours
from chat_gateway.http_edge.wire.errors import STATUS

TESTS: Final = Path(__file__).resolve().parents[1]
ORDINARY, BESIDE, PUSH = "system/test_a2a.py", "system/test_a2a_protocol.py", "system/test_a2a_push.py"
MATRIX: Final = "system/test_access_matrix.py"
EVERY: Final = "every binding"

Row = tuple[str, str, str]
"""A file, a test of it, and whether that runs over every binding, or over which one."""

REQUIREMENTS: Final[dict[str, Row]] = {
    "CORE-SEND-001": (ORDINARY, "test_a_message_is_a_turn_of_a_session", EVERY),
    "CORE-SEND-002": (ORDINARY, "test_what_the_protocol_refuses", EVERY),
    "CORE-SEND-003": (ORDINARY, "test_what_the_protocol_refuses", EVERY),
    "CORE-STREAM-001": (ORDINARY, "test_a_stream_begins_with_the_task_and_ends_with_its_state", EVERY),
    "CORE-STREAM-003": (ORDINARY, "test_a_stream_begins_with_the_task_and_ends_with_its_state", EVERY),
    "CORE-GET-001": (ORDINARY, "test_a_message_is_a_turn_of_a_session", EVERY),
    "CORE-GET-002": (ORDINARY, "test_what_the_protocol_refuses", EVERY),
    "CORE-LIST-001": (BESIDE, "test_what_is_another_users_is_not_there", EVERY),
    "CORE-LIST-002": (ORDINARY, "test_lists_are_in_pages_and_filtered", EVERY),
    "CORE-LIST-003": (ORDINARY, "test_lists_are_in_pages_and_filtered", EVERY),
    "CORE-LIST-004": (ORDINARY, "test_lists_are_in_pages_and_filtered", EVERY),
    "CORE-LIST-005": (ORDINARY, "test_lists_are_in_pages_and_filtered", EVERY),
    "CORE-CANCEL-001": (ORDINARY, "test_a_task_is_cancelled_from_another_gateway", EVERY),
    "CORE-CANCEL-002": (ORDINARY, "test_a_task_is_cancelled_from_another_gateway", EVERY),
    "CORE-CANCEL-003": (ORDINARY, "test_a_task_is_cancelled_from_another_gateway", EVERY),
    "CORE-EXECUTION-MODE-001": (ORDINARY, "test_a_task_waits_for_the_callers_tools", EVERY),
    "CORE-EXECUTION-MODE-002": (ORDINARY, "test_a_task_is_returned_at_once_and_watched_from_another_gateway", EVERY),
    "CORE-ERR-001": (ORDINARY, "test_json_rpc_and_rest_refuse_in_their_own_words", "JSON-RPC, REST"),
    "CORE-ERR-002": (ORDINARY, "test_what_the_protocol_refuses", EVERY),
    "CORE-CAP-003": (BESIDE, "test_no_extended_card_where_nobody_is_authenticated", EVERY),
    "CORE-MULTI-001a": (BESIDE, "test_a_context_is_kept_named_or_refused", EVERY),
    "CORE-MULTI-002a": (BESIDE, "test_a_context_is_kept_named_or_refused", EVERY),
    "CORE-MULTI-003": (BESIDE, "test_a_context_is_kept_named_or_refused", EVERY),
    "CORE-MULTI-004": (ORDINARY, "test_what_the_protocol_refuses", EVERY),
    "CORE-MULTI-005": (ORDINARY, "test_a_task_waits_for_the_callers_tools", EVERY),
    "CORE-MULTI-006": (ORDINARY, "test_what_the_protocol_refuses", EVERY),
    "CORE-HIST-002": (BESIDE, "test_history_is_as_long_as_it_is_asked_for", EVERY),
    "STREAM-ORDER-001": (ORDINARY, "test_a_stream_begins_with_the_task_and_ends_with_its_state", EVERY),
    "STREAM-ORDER-002": (BESIDE, "test_every_stream_of_a_task_has_the_same_events", EVERY),
    "STREAM-ORDER-003": (BESIDE, "test_every_stream_of_a_task_has_the_same_events", EVERY),
    "STREAM-ORDER-004": (BESIDE, "test_every_stream_of_a_task_has_the_same_events", EVERY),
    "STREAM-SUB-001": (BESIDE, "test_every_stream_of_a_task_has_the_same_events", EVERY),
    "STREAM-SUB-002": (BESIDE, "test_every_stream_of_a_task_has_the_same_events", EVERY),
    "STREAM-SUB-003": (ORDINARY, "test_a_task_is_returned_at_once_and_watched_from_another_gateway", EVERY),
    "STREAM-SUB-004": (BESIDE, "test_a_stream_of_a_task_that_is_not_there", EVERY),
    "VER-SERVER-001": (BESIDE, "test_grpc_says_errors_as_the_protocol_does", "gRPC"),
    "VER-SERVER-002": (ORDINARY, "test_json_rpc_and_rest_refuse_in_their_own_words", "JSON-RPC, REST"),
    "VER-SERVER-003": (BESIDE, "test_grpc_says_errors_as_the_protocol_does", "gRPC"),
    "VER-CLIENT-002": (BESIDE, "test_grpc_says_errors_as_the_protocol_does", "gRPC"),
    "CARD-DISC-001": (ORDINARY, "test_the_card_says_what_the_agent_is", "HTTP"),
    "CARD-PROTO-001": (ORDINARY, "test_the_card_says_what_the_agent_is", "HTTP"),
    "CARD-PROTO-002": (ORDINARY, "test_the_card_says_what_the_agent_is", "HTTP"),
    "CARD-STRUCT-001": (ORDINARY, "test_the_card_says_what_the_agent_is", "HTTP"),
    "CARD-EXT-001": (BESIDE, "test_the_extended_card_names_tools", EVERY),
    "GRPC-SVC-001": ("unit/chat_gateway/test_a2a_methods.py", "test_they_are_those_of_the_service", "gRPC"),
    "GRPC-META-001": (BESIDE, "test_grpc_says_errors_as_the_protocol_does", "gRPC"),
    "GRPC-ERR-001": (BESIDE, "test_grpc_says_errors_as_the_protocol_does", "gRPC"),
    "GRPC-ERR-002": (BESIDE, "test_grpc_says_errors_as_the_protocol_does", "gRPC"),
    "GRPC-ERR-003": (ORDINARY, "test_a_stream_begins_with_the_task_and_ends_with_its_state", EVERY),
    "HTTP_JSON-URL-001": (
        "system/test_access_matrix.py",
        "test_every_operation_of_a2a_with_every_kind_of_credentials",
        "REST",
    ),
    "HTTP_JSON-URL-002": (BESIDE, "test_rest_streams_are_server_sent_events", "REST"),
    "HTTP_JSON-SVC-002": (ORDINARY, "test_json_rpc_and_rest_refuse_in_their_own_words", "REST"),
    "HTTP_JSON-QP-001": (ORDINARY, "test_json_rpc_and_rest_refuse_in_their_own_words", "REST"),
    "HTTP_JSON-ERR-001": (ORDINARY, "test_json_rpc_and_rest_refuse_in_their_own_words", "REST"),
    "HTTP_JSON-ERR-002": (ORDINARY, "test_json_rpc_and_rest_refuse_in_their_own_words", "REST"),
    "HTTP_JSON-SSE-001": (BESIDE, "test_rest_streams_are_server_sent_events", "REST"),
    "PUSH-CREATE": (PUSH, "test_configurations_are_made_read_listed_and_deleted", EVERY),
    "PUSH-DELIVER": (PUSH, "test_a_message_names_where_its_task_is_notified_of", EVERY),
    "PUSH-REFUSE": (PUSH, "test_what_can_not_be_kept_is_refused", EVERY),
}
"""By the kit's ids, but for push notifications. Left out is what asks for capabilities that cards do not declare
(signed cards, required extensions, answers that are a message alone), and what is demanded of clients or of TLS."""


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_each_has_a_test_over_the_bindings_that_it_is_for(requirement: str) -> None:
    file, name, bindings = REQUIREMENTS[requirement]
    functions = [one for one in ast.parse((TESTS / file).read_text()).body if getattr(one, "name", "") == name]
    assert functions, f"{file} has no {name}"
    parameters = [one.arg for one in functions[0].args.args]  # type: ignore[attr-defined]
    assert ("binding" in parameters) == (bindings == EVERY)


def test_errors_have_the_codes_and_reasons_of_the_protocols_own_sdk() -> None:
    named = {one.reason: one for one in vars(ours).values() if isinstance(one, type) and hasattr(one, "json_rpc")}
    theirs = {one.reason: (one.grpc_status, one.http_code) for one in A2A_ERROR_MAPPING.values()}
    codes = {A2A_ERROR_MAPPING[kind].reason: JSON_RPC_ERROR_CODE_MAP[kind] for kind in A2A_ERROR_MAPPING}
    known = named.keys() & theirs.keys() - {"INVALID_REQUEST"}  # which is also that of a body that is no JSON
    assert len(known) >= 7
    for reason in known:
        kind = named[reason]
        assert (kind.code.name, STATUS[kind.code], kind.json_rpc) == (*theirs[reason], codes[reason]), reason
