"""Images and audio of an answer, as callers get them; and they may send them again."""

import json
from datetime import UTC, datetime

from chat_gateway.http_edge.openai.chat.answer import CompletionChunks, completion
from chat_gateway.model.turn import AnswerDetails, FinishReason, Message, TurnOutcome, TurnStarted, Usage
from contract.enums import Role
from tests.unit.chat_gateway.http_edge.openai.chat.asked import USER, answered, asked, sent

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}
SOUND = {"id": "audio_1", "data": "aaaa", "transcript": "ok"}
TIME = datetime(2026, 1, 1, tzinfo=UTC)
DETAILS = AnswerDetails("local", images=json.dumps([IMAGE]).encode(), audio=json.dumps(SOUND).encode())


def outcome(details: AnswerDetails) -> TurnOutcome:
    message = Message(Role.ASSISTANT, "ok")
    return TurnOutcome("t", "", False, 0, None, 1, message, FinishReason.STOP, Usage(), "m", TIME, details=details)


def test_they_are_in_the_message_and_in_the_last_piece() -> None:
    message = json.loads(completion(outcome(DETAILS), "support"))["choices"][0]["message"]
    assert (message["images"], message["audio"]) == ([IMAGE], SOUND)
    chunks = CompletionChunks("support", include_usage=False)
    chunks.start(TurnStarted("t", "", False, None, 1, TIME))
    last = json.loads(chunks.finish(outcome(DETAILS)).split(b"\n\n")[0].removeprefix(b"data: "))["choices"][0]
    assert last["delta"] == {"images": [IMAGE], "audio": SOUND}
    assert last["finish_reason"] == "stop"


def test_an_answer_without_them_has_no_such_fields() -> None:
    message = json.loads(completion(outcome(AnswerDetails("local")), "support"))["choices"][0]["message"]
    assert {"images", "audio"}.isdisjoint(message)


def test_they_are_taken_back() -> None:
    request = asked([USER, answered(images=[IMAGE], audio={"id": "audio_1"}), USER])
    assert sent(request, "openai")["messages"][1] == {"role": "assistant", "content": "yes"}
    assert sent(request)["messages"][1]["audio"] == {"id": "audio_1"}
