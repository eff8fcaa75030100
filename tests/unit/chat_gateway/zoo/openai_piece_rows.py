"""How servers that speak OpenAI's chat completions cut answers into pieces, and where else they put what they say."""

import json
from typing import Any

from chat_gateway.model.provider_errors import (
    ProviderBadResponse,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from chat_gateway.model.turn import Usage
from chat_gateway.providers.provider import ModelAnswer
from tests.unit.chat_gateway.zoo.openai_rows import END, F, both, call, chunk, completion, error, events
from tests.unit.chat_gateway.zoo.row import CALLS, FILTER, LENGTH, OK, STOP, Answered, Fails, Row

ONE = Answered(finish_reason=CALLS, calls=(("get_weather", F),))
EMPTY = Answered(finish_reason=CALLS, calls=(("f", "{}"),))
TOOLS = ("f", "g", "get", "get_weather")


def piece(name: Any = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {**more, "function": {key: value for key, value in function.items() if value is not None}}


def calls(name: str, right: Answered | Fails, *pieces: dict[str, Any]) -> list[Row]:
    """The same pieces where the model was offered these tools, and where it was offered none."""
    body = events(*[chunk({"tool_calls": [one]}) for one in pieces], END)
    return [Row(name, body, right, stream=True), Row(f"{name}, of tools", body, right, stream=True, tools=TOOLS)]


def streamed(name: str, right: Answered | Fails, *chunks: bytes, **row: Any) -> Row:
    return Row(name, events(*chunks), right, stream=True, **row)


NAMES = [
    *calls("a name in two pieces", ONE, piece("get_", "", id="a", index=0), piece("weather", F, index=0)),
    *calls("a name in three pieces", ONE, *[piece(one, index=0) for one in ("g", "et_", "weather")],
           piece(None, F, index=0)),
    *calls("a name in pieces, with the id on each", ONE, piece("get_", "", id="a", index=0),
           piece("weather", "", id="a", index=0), piece("", F, id="a", index=0)),
    *calls("a name in pieces, without an index", ONE, piece("get_", id="a"), piece("weather"), piece(None, F)),
    *calls("a name whose first piece is a tool", ONE, piece("get", id="a", index=0), piece("_weather", index=0),
           piece(None, F, index=0)),
    *calls("a name that grows", ONE, piece("get", "", id="a", index=0), piece("get_weather", "", id="a", index=0),
           piece(None, F, index=0)),
    *calls("the whole name on each piece", ONE, piece("get_weather", "", id="a", index=0),
           piece("get_weather", '{"x"', id="a", index=0), piece("get_weather", ":1}", id="a", index=0)),
    *calls("another name behind the arguments", ONE, piece("get_weather", F, id="a", index=0),
           piece("weather", "", id="a", index=0)),
    *calls("two names in pieces", Answered(finish_reason=CALLS, calls=(("no_such", F), ("nor_such", ""))),
           piece("no_", id="a", index=0), piece("such", F, index=0), piece("nor_", id="b", index=1),
           piece("such", index=1)),
    *calls("a name behind another call", Answered(finish_reason=CALLS, calls=(("f", F), ("g", F))),
           piece(None, F, id="a", index=0), piece("g", F, id="b", index=1), piece("f", index=0)),
    calls("calls without arguments, ids or indices of their own",
          Answered(finish_reason=CALLS, calls=(("f", ""), ("g", ""))), piece("f", "", index=0),
          piece("g", "", index=0))[1],
]  # fmt: skip

ARGUMENTS = [
    *calls("an empty object first", EMPTY, piece("f", "{}", id="a", index=0)),
    *calls("an empty object, then the arguments", ONE, piece("get_weather", "{}", id="a", index=0),
           piece(None, '{"x"', index=0), piece(None, ":1}", index=0)),
    *calls("empty objects first of two calls", Answered(finish_reason=CALLS, calls=(("get_weather", F), ("f", "{}"))),
           piece("get_weather", "{}", id="a", index=0), piece("f", "{}", id="b", index=1), piece(None, F, index=0)),
    *calls("the whole call once more at its end", ONE, piece("get_weather", '{"x"', id="a", index=0),
           piece(None, ":1}", index=0), piece("get_weather", F, id="a", index=0)),
    *calls("an empty object at the end", ONE, piece("get_weather", F, id="a", index=0), piece("", "{}", index=0)),
    *calls("objects", ONE, piece("get_weather", {}, id="a", index=0), piece(None, {"x": 1}, id="a", index=0)),
    *both("one call that is no list", {"tool_calls": call("f", "{}", id="a")}, EMPTY, "tool_calls"),
    *both("a call without its function", {"tool_calls": [{"id": "a", "name": "f", "arguments": {}}]}, EMPTY),
    *both("a call as there was one once", {"function_call": {"name": "f", "arguments": "{}"}}, EMPTY, "function_call"),
]  # fmt: skip


def counted(prompt: Any = None, completion: Any = None) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def ended(**more: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", **more}]}).encode()


OKAY = chunk({"content": "ok"})
COUNTED = Answered("ok", STOP, usage=Usage(7, 3))
PLACES = [
    streamed("usage in the choice", COUNTED, OKAY, ended(**counted(7, 3))),
    streamed("usage as Groq has it", COUNTED, OKAY, chunk({}, "stop", x_groq={"id": "r", **counted(7, 3)})),
    streamed("usage, then zeros", COUNTED, OKAY, chunk({}, "stop", **counted(7, 3)), chunk({}, **counted(0, 0))),
    streamed("usage, then nothing", COUNTED, OKAY, chunk({}, "stop", **counted(7, 3)), chunk({}, usage={})),
    streamed("usage in two pieces", COUNTED,
             chunk({"content": "ok"}, **counted(7)), chunk({}, "stop", **counted(None, 3))),
    streamed("usage that grows", COUNTED,
             chunk({"content": "ok"}, **counted(7, 1)), chunk({}, "stop", **counted(7, 3))),
    *[row for name in ("thinking", "reasoning_text")
      for row in both(f"reasoning as {name}", {"content": "ok", name: "hm"}, Answered("ok", STOP, "hm"))],
    streamed("the whole message at the end", Answered("ok", STOP, "hm"), chunk({"reasoning_content": "hm"}),
             chunk({"content": "o"}), chunk({"content": "k"}),
             b'{"choices": [{"message": {"content": "ok", "reasoning_content": "hm"}, "finish_reason": "stop"}]}'),
    *both("content as the object that was asked for", {"content": {"x": 1}}, Answered('{"x":1}', STOP)),
    Row("one choice that is no list", b'{"choices": {"message": {"content": "ok"}, "finish_reason": "stop"}}', OK),
    Row("a byte order mark", b"\xef\xbb\xbf" + completion({"content": "ok"}), OK),
    Row("a byte order mark, to who asked for a stream",
        b"\xef\xbb\xbf" + completion({"content": "ok"}), OK, stream=True),
    Row("blank lines before the answer", b"\n\n \n" + completion({"content": "ok"}), OK),
    Row("blank lines before what is no stream", b"\n\n \n" + completion({"content": "ok"}), OK, stream=True),
    Row("lines that are no events", b"data: %b\ndata: %b\ndata: [DONE]\n\n" % (OKAY, ended()), OK, stream=True),
]  # fmt: skip

REASONS = [
    streamed("no reason yet, in words", OK, chunk({"content": "o"}, "null"), chunk({"content": "k"}, "None"), ended()),
    streamed("no reason but in words", Fails(ProviderBadResponse), chunk({"content": "ok"}, "null")),
    Row("no whole reason but in words", completion({"content": "ok"}, "null"), Fails(ProviderBadResponse)),
    streamed("cut off, then ended", Answered("ok", LENGTH), OKAY, chunk({}, "length"), ended()),
    streamed("ended, then cut off", Answered("ok", LENGTH), OKAY, ended(), chunk({}, "length")),
    streamed("filtered, then ended", Answered("ok", FILTER), OKAY, chunk({}, "content_filter"), ended()),
    streamed("failed, then ended", Fails(ProviderBadResponse), OKAY, chunk({}, "abort"), ended()),
    *[row for word, reason in (("content-filter", FILTER), ("sensitive", FILTER), ("COMPLETE", STOP))
      for row in both(f"finish reason {word}", {"content": "ok"}, Answered("ok", reason), word)],
]  # fmt: skip


def kept(name: str, right: list[Any]) -> Any:
    def check(answer: ModelAnswer) -> bool:
        data = answer.message.provider_data
        return data is not None and json.loads(data.json) == {name: right}

    return check


def blocks(name: str, *pieces: dict[str, Any], right: list[Any]) -> Row:
    body = [chunk({name: [one]}) for one in pieces]
    return streamed(f"{name} in pieces", Answered("ok", STOP, also=kept(name, right)), *body, OKAY, ended())


TEXT, THOUGHT = {"type": "reasoning.text", "index": 0}, {"type": "thinking"}
SEALED = {"type": "reasoning.encrypted", "data": "x"}
BLOCKS = [
    blocks("reasoning_details", {**TEXT, "text": "h", "format": "f"}, {**TEXT, "text": "m"}, {**TEXT, "signature": "s"},
           {**TEXT, "index": 1, "text": "so"}, SEALED, SEALED,
           right=[{**TEXT, "text": "hm", "format": "f", "signature": "s"}, {**TEXT, "index": 1, "text": "so"},
                  SEALED, SEALED]),
    blocks("thinking_blocks", {**THOUGHT, "thinking": "h"}, {**THOUGHT, "thinking": "m", "signature": ""},
           {**THOUGHT, "thinking": "", "signature": "s"}, {**THOUGHT, "thinking": "so"},
           right=[{**THOUGHT, "thinking": "hm", "signature": "s"}, {**THOUGHT, "thinking": "so"}]),
]  # fmt: skip

LONG = Fails(ProviderRejected, metadata={"code": "context_length_exceeded"})
FILTERED = Fails(ProviderRejected, metadata={"code": "content_filter"})
ERRORS = [
    *[Row(f"an error as a type{' in a stream' if stream else ''}", events(OKAY, body) if stream else body,
          Fails(ProviderRejected, "no such thing"), stream)
      for stream in (False, True)
      for body in [b'{"object": "error", "message": "no such thing", "type": "BadRequestError", "code": 400}']],
    Row("an error in the choice", b'{"choices": [{"message": {"content": ""}, "finish_reason": "stop", '
        b'"error": {"code": 429, "message": "slow down"}}]}', Fails(ProviderRateLimited)),
    streamed("an error in a choice of the stream", Fails(ProviderUnavailable), OKAY,
             b'{"choices": [{"delta": {"content": ""}, "finish_reason": "error", "error": {"code": 502}}]}'),
    *[Row(f"context too long: {words}", error(words), LONG, status=status) for status, words in (
        (400, "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"),
        (400, "Input is too long for requested model."),
        (400, "This model's maximum prompt length is 131072 but the request contains 200000 tokens."),
        (413, "Please reduce the length of the messages or completion."),
        (400, "Invalid request: Your request exceeded model token limit: 8192"),
        (400, "Range of input length should be [1, 30720]"),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"),
        (400, "The input (9000 tokens) is longer than the model's context length (8192 tokens)."),
        (500, "the request exceeds the available context size, try increasing it"),
    )],
    Row("context too long, by its code", error("no", code="model_max_prompt_tokens_exceeded"), LONG, status=400),
    Row("context too long, by its type", error("no", type="exceed_context_size_error"), LONG, status=400),
    *[Row(f"content filter: {said}", error("Your prompt.", code=said), FILTERED, status=400)
      for said in ("content_policy_violation", "data_inspection_failed", "DataInspectionFailed")],
    *[Row(f"content filter: {words}", error(words), FILTERED, status=400)
      for words in ("Content Exists Risk", "Your request was rejected by our safety system.")],
]  # fmt: skip

ROWS = [*NAMES, *ARGUMENTS, *PLACES, *REASONS, *BLOCKS, *ERRORS]
