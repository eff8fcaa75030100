"""The Messages API as it is documented, and its oddities: each whole and streamed where it has both forms."""

import gzip
import json
from collections.abc import Callable
from typing import Any

from chat_gateway.model.provider_errors import (
    ProviderBadResponse,
    ProviderMisconfigured,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from chat_gateway.model.turn import Usage
from chat_gateway.providers.provider import ModelAnswer
from tests.unit.chat_gateway.zoo.row import BAD, CALLS, FILTER, LENGTH, OK, STOP, Answered, Fails, Row

USAGE = {"input_tokens": 25, "output_tokens": 15}
TEXT = {"type": "text", "text": "ok"}
END = {"type": "message_stop"}


def event(said: dict[str, Any]) -> bytes:
    return f"event: {said.get('type')}\ndata: {json.dumps(said)}\n\n".encode()


def events(*said: dict[str, Any]) -> bytes:
    return b"".join(map(event, said))


def start(**more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 25, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-1", "content": []}
    return {"type": "message_start", "message": {**message, "stop_reason": None, "usage": usage, **more}}


def stop(reason: str | None = "end_turn", usage: Any = None, **more: Any) -> dict[str, Any]:
    delta = {"stop_reason": reason, "stop_sequence": None, **more}
    return {"type": "message_delta", "delta": delta, "usage": usage or {"output_tokens": 15}}


def began(index: Any, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def piece(index: Any, kind: str, name: str, said: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, name: said}}


def closed(index: Any) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def streamed_block(index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    """A block in the pieces in which the API streams it."""
    empty: dict[str, Any] = dict(block)
    pieces: list[tuple[str, str, str]] = []
    if block["type"] == "text":
        empty["text"] = ""
        pieces = [("text_delta", "text", part) for part in (block["text"][:1], block["text"][1:]) if part]
    elif block["type"] == "thinking":
        empty.update(thinking="", signature="")
        pieces = [
            ("thinking_delta", "thinking", block["thinking"]),
            ("signature_delta", "signature", block["signature"]),
        ]
    elif block["type"] in ("tool_use", "server_tool_use"):
        empty["input"] = {}
        coded = json.dumps(block["input"], separators=(",", ":"))
        pieces = [("input_json_delta", "partial_json", part) for part in ("", coded[:4], coded[4:])]
    return [began(index, empty), *[piece(index, *one) for one in pieces], closed(index)]


def both(
    name: str, blocks: list[dict[str, Any]], right: Answered | Fails, reason: str = "end_turn", **more: Any
) -> list[Row]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-1", "content": blocks}
    whole = json.dumps({**message, "stop_reason": reason, "stop_sequence": None, "usage": USAGE, **more}).encode()
    pieces = [one for index, block in enumerate(blocks) for one in streamed_block(index, block)]
    ping = {"type": "ping"}
    stream = events(start(), ping, *pieces, stop(reason, **more), END)
    return [Row(name, whole, right), Row(name, stream, right, stream=True)]


def call(name: str, said: dict[str, Any], call_id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": said}


def kept(right: list[Any]) -> Callable[[ModelAnswer], bool]:
    def check(answer: ModelAnswer) -> bool:
        data = answer.message.provider_data
        return data is not None and (data.kind, json.loads(data.json)) == ("anthropic", right)

    return check


THINKING = {"type": "thinking", "thinking": "hm", "signature": "EqQB=="}
REDACTED = {"type": "redacted_thinking", "data": "EmwK"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
F, G = call("f", {"x": 1}, "toolu_1"), call("g", {"y": 2}, "toolu_2")
TWO = Answered(finish_reason=CALLS, calls=(("f", '{"x":1}'), ("g", '{"y":2}')))

ANSWERS = [
    *both("a text", [TEXT], Answered("ok", STOP, usage=Usage(25, 15))),
    *both("two texts", [TEXT, TEXT], Answered("okok", STOP)),
    *both("nothing at all", [], Answered("", STOP)),
    *both("two calls", [F, G], TWO, "tool_use"),
    *both("calls that end with end_turn", [F, G], TWO),
    *both("calls with one id", [F, {**G, "id": "toolu_1"}], TWO, "tool_use"),
    *both("calls without ids", [{**F, "id": ""}, {**G, "id": None}], TWO, "tool_use"),
    *both("a call without a name", [{**F, "name": ""}], BAD, "tool_use"),
    *both("tool_use without a call", [TEXT], BAD, "tool_use"),
    *both(
        "thinking, signed",
        [THINKING, REDACTED, TEXT, F],
        Answered("ok", CALLS, "hm", (("f", '{"x":1}'),), also=kept([THINKING, REDACTED, 2, "call"])),
        "tool_use",
    ),
    *both("two thoughts", [THINKING, THINKING, TEXT], Answered("ok", STOP, "hm\n\nhm")),
    *both("thinking only", [THINKING], Answered("", LENGTH, "hm"), "max_tokens"),
    *both("blocks of the server's tools", [SEARCH, FOUND, TEXT], Answered("ok", also=kept([SEARCH, FOUND, 2]))),
    *both("stop_sequence", [TEXT], OK, "stop_sequence"),
    *both("max_tokens", [TEXT], Answered("ok", LENGTH), "max_tokens"),
    *both("model_context_window_exceeded", [TEXT], Answered("ok", LENGTH), "model_context_window_exceeded"),
    *both("refusal", [], Answered("", FILTER), "refusal"),
    *both(
        "refusal, explained",
        [],
        Answered("", FILTER, also=lambda answer: answer.message.refusal == "no"),
        "refusal",
        stop_details={"type": "refusal", "category": None, "explanation": "no"},
    ),
    *both("pause_turn with a call", [F], Answered("", CALLS, calls=(("f", '{"x":1}'),)), "pause_turn"),
    *both("an unknown reason", [TEXT], Fails(ProviderBadResponse, hides="whatever"), "whatever"),
]


def whole(content: Any, right: Answered | Fails = OK, name: str = "", **more: Any) -> Row:
    said = {"type": "message", "content": content, "stop_reason": "end_turn", "usage": USAGE, **more}
    return Row(name, json.dumps(said).encode(), right)


CACHED = {"input_tokens": 5, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 11, "output_tokens": 9}
THOUGHT = {**CACHED, "output_tokens_details": {"thinking_tokens": 4}}
FORMS = [
    whole([TEXT], Answered("ok", usage=Usage(23, 9, 11, 4, 7)), "usage with the cache", usage=THOUGHT),
    whole([TEXT], Answered("ok", usage=Usage(5, 4)), "odd usage", usage={"input_tokens": "5", "output_tokens": 3.5}),
    whole([TEXT], Answered("ok", usage=Usage()), "usage that is none", usage={"input_tokens": -1, "output_tokens": []}),
    whole([TEXT], Answered("ok", usage=Usage()), "no usage", usage=None),
    whole([TEXT], OK, "the tier", usage={"service_tier": "standard"}),
    whole("ok", OK, "content as text"),
    whole(TEXT, OK, "content as one block"),
    whole(["o", {"type": "text", "text": "k"}], OK, "a block that is a text"),
    whole([SEARCH, TEXT], Answered("ok", also=kept([SEARCH, 2])), "a block of the server's tools"),
    whole(None, BAD, "no content"),
    whole([True], BAD, "a block that is no object"),
    whole([7, TEXT], BAD, "a number among its blocks"),
    whole([TEXT], BAD, "no reason", stop_reason=None),
    Row("not JSON", b"<html>", BAD),
    Row("a list", b"[]", BAD),
    Row("NaN", b'{"content": "ok", "stop_reason": "end_turn", "usage": {"input_tokens": NaN}}', OK),
    Row("a byte order mark", b"\xef\xbb\xbf" + whole([TEXT]).body, OK),
    Row("half a surrogate pair", b'{"content": "ok\\ud83d", "stop_reason": "end_turn"}', Answered("ok\ufffd")),
    Row("bytes that are no text", b'{"content": "ok\xff", "stop_reason": "end_turn"}', Answered("ok\ufffd")),
    Row("nested too deep", b'{"content": ' + b"[" * 9000 + b"]" * 9000 + b"}", BAD),
    Row("not UTF-8", b'{"content": "\xff"}', BAD),
    Row("too long", json.dumps({"content": "x" * 250_000, "stop_reason": "end_turn"}).encode(), BAD),
    Row("gzip", gzip.compress(whole([TEXT]).body), OK, headers={"Content-Encoding": "gzip"}),
]


def streamed(name: str, *said: dict[str, Any], right: Answered | Fails = OK, **row: Any) -> Row:
    return Row(name, events(*said), right, stream=True, **row)


OPEN = began(0, {"type": "text", "text": ""})
OKAY = piece(0, "text_delta", "text", "ok")
F_OPEN = began(0, {**F, "input": {}})
HALF = piece(0, "input_json_delta", "partial_json", '{"x"')
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
STREAMS = [
    streamed("usage in the end", start(usage=CACHED), OPEN, OKAY, stop(usage={"output_tokens": 20}), END,
             right=Answered("ok", usage=Usage(23, 20, 11, 0, 7))),
    streamed("null in the last usage", start(usage=CACHED), OPEN, OKAY, stop(usage={"input_tokens": None}), END,
             right=Answered("ok", usage=Usage(23, 9, 11, 0, 7))),
    streamed("zeros in the last usage", start(usage=CACHED), OPEN, OKAY, stop(usage={**CACHED, "input_tokens": 0}), END,
             right=Answered("ok", usage=Usage(23, 9, 11, 0, 7))),
    streamed("content in the start", start(content=[F, TEXT]), stop("tool_use"), END,
             right=Answered("ok", CALLS, calls=(("f", '{"x":1}'),))),
    streamed("all of it in the start", start(content=[TEXT], stop_reason="end_turn"), END),
    streamed("cut off, then ended", start(), OPEN, OKAY, stop("max_tokens"), stop(), END,
             right=Answered("ok", LENGTH)),
    streamed("ended, then cut off", start(), OPEN, OKAY, stop(), stop("max_tokens"), END,
             right=Answered("ok", LENGTH)),
    streamed("a server's tool that is cut off", start(), began(0, {**SEARCH, "input": {}}), HALF, stop("max_tokens"),
             right=Answered("", LENGTH, also=kept([{**SEARCH, "input": {}}]))),
    streamed("overloaded in the middle", start(), OPEN, OKAY, OVERLOADED, right=Fails(ProviderUnavailable)),
    streamed("rate limit in the middle", start(), {"type": "error", "error": {"type": "rate_limit_error"}},
             right=Fails(ProviderRateLimited)),
    streamed("an event that is new", start(), {"type": "weather", "index": []}, OPEN, OKAY, stop(), END),
    streamed("a delta that is new", start(), OPEN, piece(0, "mood_delta", "mood", "x"), OKAY, stop(), END),
    streamed("what follows the end", start(), OPEN, OKAY, stop(), END, OVERLOADED),
    streamed("a block that is no object", start(content=[True]), stop(), END, right=BAD),
    streamed("no reason", start(), OPEN, OKAY, closed(0), END, right=BAD),
    streamed("cut off", start(), OPEN, OKAY, right=BAD),
    streamed("reset", start(), OPEN, OKAY, right=Fails(ProviderUnavailable), cut=True),
    streamed("no message_stop", start(), OPEN, OKAY, stop()),
    streamed("no message_stop, and open", start(), OPEN, OKAY, stop(), stays_open=True),
    streamed("no message_start", OPEN, OKAY, stop(), END),
    streamed("no block start", start(), OKAY, stop(), END),
    streamed("index null", start(), began(None, TEXT | {"text": ""}), piece(None, "text_delta", "text", "ok"), stop()),
    streamed("one index twice", start(), F_OPEN, closed(0), began(0, {**G, "input": {}}),
             piece(0, "input_json_delta", "partial_json", '{"y":2}'), stop("tool_use"),
             right=Answered(finish_reason=CALLS, calls=(("f", "{}"), ("g", '{"y":2}')))),
    streamed("input whole in the start", start(), began(0, F), closed(0), stop("tool_use"), END,
             right=Answered(finish_reason=CALLS, calls=(("f", '{"x":1}'),))),
    streamed("a call cut by max_tokens", start(), F_OPEN, HALF, closed(0), stop("max_tokens"), END,
             right=Answered(finish_reason=LENGTH, calls=(("f", '{"x"'),))),
    streamed("input without a block", start(), HALF, stop("tool_use"), right=BAD),
    streamed("too long", start(), OPEN, piece(0, "text_delta", "text", "x" * 250_000), stop(), right=BAD),
    Row("not JSON", b"data: {\n\n", BAD, stream=True),
    Row("CR as line end", events(start(), OPEN, OKAY, stop(), END).replace(b"\n", b"\r"), OK, stream=True),
    Row("empty data", b"data:\n\n" + events(start(), OPEN, OKAY, stop(), END), OK, stream=True),
    Row("no last blank line", events(start(), OPEN, OKAY, stop())[:-1], OK, stream=True),
]  # fmt: skip


def refused(status: int, kind: str, right: Fails, message: str = "no", **row: Any) -> list[Row]:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).encode()
    return [Row(f"{status} {kind}", body, right, stream, status, **row) for stream in (False, True)]


ERRORS = [
    *refused(400, "invalid_request_error", Fails(ProviderRejected)),
    *refused(400, "invalid_request_error", Fails(ProviderRejected, metadata={"code": "context_length_exceeded"}),
             "prompt is too long: 210000 tokens > 200000 maximum"),
    *refused(401, "authentication_error", Fails(ProviderMisconfigured), "invalid x-api-key key-1"),
    *refused(403, "permission_error", Fails(ProviderMisconfigured)),
    *refused(404, "not_found_error", Fails(ProviderMisconfigured)),
    *refused(413, "request_too_large", Fails(ProviderRejected)),
    *refused(429, "rate_limit_error", Fails(ProviderRateLimited), headers={"retry-after": "nan"}),
    *refused(500, "api_error", Fails(ProviderUnavailable)),
    *refused(529, "overloaded_error", Fails(ProviderUnavailable)),
    refused(200, "overloaded_error", Fails(ProviderUnavailable))[0],
]  # fmt: skip

ROWS = [*ANSWERS, *FORMS, *STREAMS, *ERRORS]
