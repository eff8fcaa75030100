"""The digest of a request: the same for a repeat, on gateways of this release and the one before."""

from dataclasses import replace

from chat_gateway.digest import request_digest
from chat_gateway.model.turn import ImagePart, Message, ProviderData, TextPart, ToolCall, TurnRequest
from contract.enums import Role

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


def test_a_request_without_what_came_later_has_the_digest_of_the_release_before() -> None:
    assert request_digest(REQUEST).hex() == "0961d0826863b610dd78f0d1021ec9dbe6cc51e4fffa1c0a9bc8ef6d663f78c3"


def test_what_came_later_counts() -> None:
    data = ProviderData("gemini", "g", b"{}")
    others = [
        replace(CALLED, reasoning="hm"),
        replace(CALLED, provider_data=data),
        replace(CALLED, tool_calls=(ToolCall("c", "f", "{}", data),)),
    ]
    digests = {request_digest(replace(REQUEST, messages=(REQUEST.messages[0], other))) for other in [CALLED, *others]}
    assert len(digests) == 4
