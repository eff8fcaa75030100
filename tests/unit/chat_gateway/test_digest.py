"""The digest of a request: the same for a repeat, on gateways of this release and the one before."""

from dataclasses import replace

from chat_gateway.digest import request_digest
from chat_gateway.model.tools import Approval
from chat_gateway.model.turn import ImagePart, Message, ProviderData, TextPart, ToolCall, TurnRequest
from contract.enums import BusyPolicy, HistoryPolicy, Role

CALLED = Message(Role.ASSISTANT, tool_calls=(ToolCall("c", "f", "{}"),))
REQUEST = TurnRequest(
    "support",
    (
        Message(Role.USER, "hi"),
        CALLED,
        Message(Role.TOOL, "4", tool_call_id="c"),
        Message(Role.USER, parts=(TextPart("a"), ImagePart("https://x"))),
    ),
)


OF_THE_RELEASE_BEFORE = "0961d0826863b610dd78f0d1021ec9dbe6cc51e4fffa1c0a9bc8ef6d663f78c3"


def test_what_the_release_before_knew_has_its_digest_and_metadata_stand_behind_it() -> None:
    assert request_digest(REQUEST).hex() == OF_THE_RELEASE_BEFORE
    with_metadata = request_digest(replace(REQUEST, metadata={"a": "b"}))
    assert with_metadata.hex().startswith(OF_THE_RELEASE_BEFORE)
    assert len(with_metadata) == 40


def test_everything_that_changes_the_outcome_counts() -> None:
    data = ProviderData("gemini", "g", b"{}")
    messages = [
        replace(CALLED, reasoning="hm"),
        replace(CALLED, provider_data=data),
        replace(CALLED, tool_calls=(ToolCall("c", "f", "{}", data),)),
        CALLED,
    ]
    others = [replace(REQUEST, messages=(REQUEST.messages[0], other)) for other in messages]
    others += [
        replace(REQUEST, history=HistoryPolicy.REPLACE),
        replace(REQUEST, history=HistoryPolicy.APPEND),
        replace(REQUEST, extra={"top_k": b"1"}),
        replace(REQUEST, extra={"top_k": b"2"}),
        replace(REQUEST, metadata={"a": "b"}),
        replace(REQUEST, approvals=(Approval("c", True),)),
    ]
    assert len({request_digest(other) for other in [REQUEST, *others]}) == len(others) + 1


def test_how_it_is_asked_for_does_not_count() -> None:
    same = replace(REQUEST, history=HistoryPolicy.MATCH, store=True, timeout=3.0, busy=BusyPolicy.REJECT)
    assert request_digest(same) == request_digest(REQUEST)
