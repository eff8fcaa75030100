"""Answers whose content, calls, counts and ends are where other APIs and earlier ones have them."""

import json
from typing import Any

from chat_gateway.model.turn import Usage
from tests.unit.chat_gateway.zoo import gemini_rows
from tests.unit.chat_gateway.zoo.openai_rows import both, call, chunk, events
from tests.unit.chat_gateway.zoo.row import BAD, CALLS, FILTER, LENGTH, OK, STOP, Answered, Row

F = Answered("", CALLS, calls=(("f", '{"x":1}'),))
CALL = {"content": None, "tool_calls": [call("f", '{"x":1}', id="a")]}


def choice(**fields: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, **fields}]}).encode()


ENDS = [
    *[row for word in ("FINISH_REASON_STOP", "FinishReason.STOP", "stop_word", "end_of_turn")
      for row in both(f"end {word}", {"content": "ok"}, OK, word)],
    *[row for word in ("maxTokens", "MAX_NEW_TOKENS", "FINISH_REASON_MAX_TOKENS", "token_limit")
      for row in both(f"end {word}", {"content": "ok"}, Answered("ok", LENGTH), word)],
    *[row for word in ("contentFilter", "moderation", "censored", "FINISH_REASON_SAFETY")
      for row in both(f"end {word}", {"content": "ok"}, Answered("ok", FILTER), word)],
    *[row for word in ("toolUse", "toolCalls", "TOOL_CALLS") for row in both(f"end {word}", CALL, F, word)],
    *[row for word in ("FINISH_REASON_OTHER", "networkError", "cancelled", "pending", "stopped_early")
      for row in both(f"end {word}", {"content": "ok"}, BAD, word)],
]  # fmt: skip

OPENAI = [
    *ENDS,
    *both("a refusal among the parts", {"content": [{"type": "refusal", "refusal": "no"}]},
          Answered("", STOP, also=lambda answer: answer.message.refusal == "no")),
    *both("reasoning as an object", {"content": "ok", "reasoning": {"content": "hm"}}, Answered("ok", STOP, "hm")),
    *both("reasoning as parts", {"content": "ok", "reasoning_content": [{"type": "text", "text": "hm"}]},
          Answered("ok", STOP, "hm")),
    *both("an empty call beside the answer", {"content": "ok", "tool_calls": [{}]}, OK),
    *both("an empty call with a number", {"content": "ok", "tool_calls": [{"index": 0, "function": {}}]}, OK),
    *both("usage by the names of responses", {"content": "ok"}, Answered("ok", STOP, usage=Usage(4, 3, 2, 1)),
          more={"usage": {"input_tokens": 4, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 2},
                          "output_tokens_details": {"reasoning_tokens": 1}}}),
    Row("a text in place of a message", choice(text="ok", finish_reason="stop"), OK),
    Row("texts in place of pieces", events(choice(text="o"), choice(text="k", finish_reason="stop")), OK, stream=True),
    Row("a piece that is a text", events(choice(delta="ok"), chunk({}, "stop")), OK, stream=True),
    Row("a piece that is a list", events(choice(delta=[{"content": "ok"}]), chunk({}, "stop")), OK, stream=True),
]  # fmt: skip

GEMINI = [
    *gemini_rows.both("names of the protos", [{"function_call": {"name": "f", "args": {"x": 1}}}], F),
    Row("contents as a list", gemini_rows.coded({"candidates": [
        {"content": [{"parts": [{"text": "ok"}]}], "finish_reason": "STOP"}]}), OK),
]  # fmt: skip
