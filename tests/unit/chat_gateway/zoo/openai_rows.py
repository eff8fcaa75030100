"""The oddities of servers that speak OpenAI's chat completions, each whole and streamed where it has both forms."""

import gzip
import json
import zlib
from typing import Any

from chat_gateway.model.provider_errors import (
    ProviderBadResponse,
    ProviderMisconfigured,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from chat_gateway.model.turn import Usage
from tests.unit.chat_gateway.zoo.row import CALLS, FILTER, LENGTH, OK, STOP, Answered, Fails, Row

DONE = b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}).encode()


def events(*datas: bytes, end: bytes = DONE) -> bytes:
    return b"".join(b"data: %b\n\n" % data for data in datas) + end


def completion(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"choices": [choice], **more}).encode()


def both(
    name: str, message: dict[str, Any], right: Answered | Fails, finish: str = "stop", more: Any = None, **row: Any
) -> list[Row]:
    """The same answer whole, and streamed as one piece with its end in a chunk of its own."""
    said = more or {}
    return [
        Row(name, completion(message, finish, **said), right, **row),
        Row(name, events(chunk(message), chunk({}, finish, **said)), right, stream=True, **row),
    ]


def indexed(*said: tuple[int, str, str | None]) -> bytes:
    return json.dumps(
        {"choices": [{"index": n, "delta": {"content": c}, "finish_reason": f} for n, c, f in said]}
    ).encode()


def call(name: str, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


TWO = Answered(finish_reason=CALLS, calls=(("f", '{"x":1}'), ("g", '{"y":2}')))
F, G = '{"x":1}', '{"y":2}'
END = chunk({}, "tool_calls")


def streamed_calls(name: str, *deltas: dict[str, Any], right: Answered = TWO) -> Row:
    return Row(name, events(*[chunk({"tool_calls": [one]}) for one in deltas], END), right, stream=True)


def escaped(*texts: str, arguments: bool = False) -> bytes:
    """Chunks whose texts end in half a character."""
    if arguments:
        pieces = [{"index": 0, "function": {"arguments": text}} for text in texts]
        deltas = [{"tool_calls": [{**piece, **({"id": "a"} if not n else {})}]} for n, piece in enumerate(pieces)]
        deltas[0]["tool_calls"][0]["function"]["name"] = "f"  # type: ignore[index]
        return events(*[chunk(delta) for delta in deltas], END)
    return events(*[chunk({"content": text}) for text in texts], chunk({}, "stop"))


TOOL_CALLS = [
    Row("a character in two pieces", escaped("o\ud83d", "\ude00k"), Answered("o\U0001f600k", STOP), stream=True),
    Row("half a character, and more", escaped("o\ud83d", "k\ud83d"), Answered("o\ufffdk", STOP), stream=True),
    Row(
        "a character of arguments in two pieces",
        escaped('{"x":"\ud83d', '\ude00"}', arguments=True),
        Answered(finish_reason=CALLS, calls=(("f", '{"x":"\U0001f600"}'),)),
        stream=True,
    ),
    Row("more answers than asked for", events(indexed((1, "x", "stop"), (0, "ok", "stop"))), OK, stream=True),
    Row(
        "other answers in between",
        events(indexed((0, "o", None)), indexed((1, "x", "length")), indexed((0, "k", "stop"))),
        OK,
        stream=True,
    ),
    Row("an only answer of index 1", events(indexed((1, "ok", "stop"))), OK, stream=True),
    Row(
        "more whole answers than asked for",
        b'{"choices": [{"index": 1, "message": {"content": "x"}, "finish_reason": "stop"},'
        b' {"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}]}',
        OK,
    ),
    Row("content as one part", completion({"content": {"type": "text", "text": "ok"}}), OK),
    streamed_calls("no index", call("f", F, id="a"), call("g", G, id="b")),
    streamed_calls("both index 0", call("f", F, id="a", index=0), call("g", G, id="b", index=0)),
    streamed_calls("both index 0, without ids", call("f", F, index=0), call("g", G, index=0)),
    streamed_calls("neither index nor id", call("f", F), call("g", G)),
    streamed_calls("index null", call("f", F, id="a", index=None), call("g", G, id="b", index=None)),
    streamed_calls("index as text", call("f", F, id="a", index="0"), call("g", G, id="b", index="1")),
    streamed_calls("indices from 1, with a gap", call("f", F, id="a", index=1), call("g", G, id="b", index=7)),
    streamed_calls(
        "pieces that alternate",
        call("f", '{"x"', id="a", index=0),
        call("g", '{"y"', id="b", index=1),
        {"index": 0, "function": {"arguments": ":1}"}},
        {"index": 1, "function": {"arguments": ":2}"}},
    ),
    streamed_calls(
        "an id of its own on each piece",
        call("f", '{"x"', id="a", index=0),
        {"id": "z", "index": 0, "function": {"arguments": ":1}"}},
        call("g", G, id="b", index=1),
    ),
    streamed_calls(
        "the name on each piece",
        call("f", '{"x"', id="a", index=0),
        call("f", ":1}", id="a", index=0),
        call("g", G, id="b", index=1),
    ),
    streamed_calls(
        "an empty id on later pieces",
        call("f", '{"x"', id="a", index=0),
        {"id": "", "index": 0, "function": {"name": "", "arguments": ":1}"}},
        call("g", G, id="b", index=1),
    ),
    streamed_calls("arguments as objects", call("f", {"x": 1}, id="a", index=0), call("g", {"y": 2}, id="b", index=1)),
    Row(
        "ids empty",
        completion({"content": None, "tool_calls": [call("f", F, id=""), call("g", G, id="")]}, "tool_calls"),
        TWO,
    ),
    *both("an end for calls without one", {"content": "I'll look."}, Fails(ProviderBadResponse), "tool_calls"),
    *both(
        "usage by other names",
        {"content": "ok"},
        Answered("ok", STOP, usage=Usage(7, 3)),
        more={"usage": {"input_tokens": 7, "output_tokens": 3}},
    ),
    *both(
        "usage as a total",
        {"content": "ok"},
        Answered("ok", STOP, usage=Usage(7, 3)),
        more={"usage": {"prompt_tokens": 7, "total_tokens": "10"}},
    ),
    Row("an empty error beside the answer", completion({"content": "ok"}, error="", code=0), OK),
    Row("false as an error beside the answer", completion({"content": "ok"}, error=False), OK),
    Row(
        "a whole answer to who asked for a stream",
        completion({"content": "ok"}),
        OK,
        stream=True,
        headers={"Content-Type": "application/json; charset=utf-8"},
    ),
    Row(
        "whole calls to who asked for a stream",
        completion({"content": None, "tool_calls": [call("f", F, id="a"), call("g", G, id="b")]}, "tool_calls"),
        TWO,
        stream=True,
        headers={"Content-Type": "application/json"},
    ),
    Row(
        "an error of status 200 to who asked for a stream",
        b'{"error": {"message": "slow down", "code": 429}}',
        Fails(ProviderRateLimited),
        stream=True,
        headers={"Content-Type": "application/json"},
    ),
    Row("a reason with every piece", events(*[chunk({"content": one}, "stop") for one in "ok"]), OK, stream=True),
    Row("ids missing", completion({"content": None, "tool_calls": [call("f", F), call("g", G)]}, "tool_calls"), TWO),
    *both("arguments as an object", {"tool_calls": [call("f", {"x": 1}, id="a"), call("g", {"y": 2}, id="b")]}, TWO),
    *both("calls that end with stop", {"tool_calls": [call("f", F, id="a"), call("g", G, id="b")]}, TWO),
    *both(
        "a call without a name",
        {"tool_calls": [{"id": "a", "type": "function", "function": {"arguments": "{}"}}]},
        Fails(ProviderBadResponse),
        "tool_calls",
    ),
    *both(
        "a signature with a call",
        {"tool_calls": [call("f", F, id="a", extra_content={"google": {"thought_signature": "s"}})]},
        Answered(
            calls=(("f", F),),
            also=lambda answer: b"thought_signature" in answer.message.tool_calls[0].provider_data.json,  # type: ignore[union-attr]
        ),
        "tool_calls",
    ),
]

REASONS = [
    row
    for word, right in {
        "abort": Fails(ProviderBadResponse),
        "error": Fails(ProviderBadResponse),
        "insufficient_system_resource": Fails(ProviderBadResponse),
        "whatever": Fails(ProviderBadResponse),
        "MAX_TOKENS": Answered("half", LENGTH),
        "max_tokens": Answered("half", LENGTH),
        "model_length": Answered("half", LENGTH),
        "SAFETY": Answered("half", FILTER),
        "eos": Answered("half", STOP),
        "end_turn": Answered("half", STOP),
    }.items()
    for row in both(f"finish reason {word}", {"content": "half"}, right, word)
]

FORMS = [
    *both("content as text parts", {"content": [{"type": "text", "text": "o"}, "k"]}, OK),
    *both(
        "content with a thinking part",
        {"content": [{"type": "thinking", "thinking": [{"text": "hm"}]}, {"type": "text", "text": "ok"}]},
        Answered("ok", STOP, "hm"),
    ),
    *both(
        "usage as floats",
        {"content": "ok"},
        Answered("ok", usage=Usage(5, 4)),
        more={"usage": {"prompt_tokens": 5.0, "completion_tokens": 3.5}},
    ),
    *both(
        "usage as text",
        {"content": "ok"},
        Answered("ok", usage=Usage(5, 0)),
        more={"usage": {"prompt_tokens": "5", "completion_tokens": "many"}},
    ),
    *both(
        "usage as a list", {"content": "ok"}, Answered("ok", usage=Usage()), more={"usage": [5, 3]}
    ),
    *both(
        "usage in detail",
        {"content": "ok"},
        Answered("ok", usage=Usage(5, 3, 2, 1)),
        more={
            "usage": {
                "prompt_tokens": 5,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 1},
            }
        },
    ),
    *both(
        "details of the answer",
        {"content": "ok"},
        Answered(
            "ok",
            also=lambda answer: (
                (answer.details.system_fingerprint, answer.details.service_tier, answer.model) == ("fp", "flex", "m-1")
            ),
        ),
        more={"system_fingerprint": "fp", "service_tier": "flex", "model": "m-1"},
    ),
    *both("reasoning only", {"content": None, "reasoning_content": "hm"}, Answered("", LENGTH, "hm"), "length"),
    *both("reasoning by its other name", {"content": "ok", "reasoning": "hm"}, Answered("ok", STOP, "hm")),
    *both(
        "reasoning in tags",
        {"content": "<think>\nhm</think>\n\nok"},
        Answered("ok", STOP, "hm"),
        settings={"switches": {"think_tags": True}},
    ),
    Row(
        "tags in pieces",
        events(*[chunk({"content": text}) for text in ("<th", "ink>h", "m</", "think>", "ok")], chunk({}, "stop")),
        Answered("ok", STOP, "hm"),
        stream=True,
        settings={"switches": {"think_tags": True}},
    ),
    *both(
        "details of reasoning",
        {"content": "ok", "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]},
        Answered(
            "ok",
            also=lambda answer: b"reasoning.encrypted" in answer.message.provider_data.json,  # type: ignore[union-attr]
        ),
    ),
    Row("NaN for a number", b'{"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}], "x": NaN, '
        b'"usage": {"prompt_tokens": NaN}}', Answered("ok", usage=Usage())),
    Row("a number without end", b'{"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}], '
        b'"usage": {"prompt_tokens": 1%b, "completion_tokens": 1e999}}' % (b"0" * 5000), OK),
    Row("nesting without end", b'{"choices": %b' % (b"[" * 100_000), Fails(ProviderBadResponse)),
    Row("nesting without end in an error", b"[" * 100_000, Fails(ProviderRejected), status=422),
    Row("half a surrogate pair", b'{"choices": [{"message": {"content": "ok\\ud83d"}, "finish_reason": "stop"}]}',
        Answered("ok\ufffd")),
    Row("bytes that are no text", b'{"choices": [{"message": {"content": "ok\xff"}, "finish_reason": "stop"}]}',
        Answered("ok\ufffd")),
    Row("gzip that nobody asked for", gzip.compress(completion({"content": "ok"})), OK,
        headers={"Content-Encoding": "gzip"}),
    Row("deflate", zlib.compress(completion({"content": "ok"})), OK, headers={"Content-Encoding": "deflate"}),
    Row("gzip of a stream", gzip.compress(events(chunk({"content": "ok"}), chunk({}, "stop"))), OK, stream=True,
        headers={"Content-Encoding": "gzip"}),
]  # fmt: skip

PIECES = (chunk({"content": "ok"}), chunk({}, "stop"))
GRAMMAR = [
    Row("an empty data event", b"data: \n\n" + events(*PIECES), OK, stream=True),
    Row("data without a colon", b"data\n\n" + events(*PIECES), OK, stream=True),
    Row("[DONE] with a space", events(*PIECES, end=b"data: [DONE] \n\n"), OK, stream=True),
    Row("the last event without its blank line", events(*PIECES, end=b"").rstrip(), OK, stream=True),
    Row("carriage returns", events(*PIECES).replace(b"\n", b"\r"), OK, stream=True),
    Row("both", events(*PIECES).replace(b"\n", b"\r\n"), OK, stream=True),
    Row("a byte order mark", b"\xef\xbb\xbf" + events(*PIECES), OK, stream=True),
    Row("comments and other fields", b": hi\n\nevent: x\nid: 1\nretry: 5\n" + events(*PIECES), OK, stream=True),
    Row("no [DONE], but an end", events(*PIECES, end=b""), OK, stream=True),
    Row("no [DONE], no end", events(*PIECES, end=b""), OK, stream=True, stays_open=True),
    Row("a reset after the finish reason", events(*PIECES, end=b""), OK, stream=True, cut=True),
    Row("half a usage after the finish reason", events(*PIECES, end=b'data: {"choices": [], "usa'), OK, stream=True),
    Row("an end without a finish reason", events(PIECES[0], end=b""), Fails(ProviderBadResponse), stream=True),
    Row("[DONE] without a finish reason", events(PIECES[0]), Fails(ProviderBadResponse), stream=True),
    Row("a reset without a finish reason", events(PIECES[0], end=b""), Fails(ProviderUnavailable), stream=True,
        cut=True),
    Row("a stream of a dialect that never says why", events(PIECES[0]), OK, stream=True,
        settings={"switches": {"finish_reason": False}}),
    Row("no finish reason", completion({"content": "half"}, None), Fails(ProviderBadResponse)),
    Row("an empty finish reason", completion({"content": "half"}, ""), Fails(ProviderBadResponse)),
    Row("no finish reason, with calls", completion({"tool_calls": [call("f", F)]}, None), Fails(ProviderBadResponse)),
    Row("a dialect that never says why", completion({"content": "ok"}, None), OK,
        settings={"switches": {"finish_reason": False}}),
    Row("nothing, of a dialect that never says why", completion({"content": ""}, None), Fails(ProviderBadResponse),
        settings={"switches": {"finish_reason": False}}),
    Row("a million lines", b"data: x\n" * 1_000_000, Fails(ProviderBadResponse), stream=True),
    Row("tool calls without end", events(*[
        chunk({"tool_calls": [call("f", "", index=n, id="x" * 1000)]}) for n in range(1000)
    ]), Fails(ProviderBadResponse), stream=True),
]  # fmt: skip


def error(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


REFUSALS = [
    Row(f"{name}{' of a stream' if stream else ''}", body, right, stream, status, headers)
    for stream in (False, True)
    for name, status, headers, body, right in (
        ("429 with milliseconds", 429, {"retry-after-ms": "1500", "Retry-After": "2"}, b"",
         Fails(ProviderRateLimited, also=lambda e: e.retry_after == 1.5)),
        ("429 with odd milliseconds", 429, {"retry-after-ms": "nan", "Retry-After": "2"}, b"",
         Fails(ProviderRateLimited, also=lambda e: e.retry_after == 2)),
        ("429 with nan", 429, {"Retry-After": "nan"}, error("slow down"),
         Fails(ProviderRateLimited, also=lambda e: e.retry_after is None)),
        ("429 with nonsense", 429, {"Retry-After": "soon"}, b"",
         Fails(ProviderRateLimited, also=lambda e: e.retry_after is None)),
        ("429 with infinity", 429, {"Retry-After": "1e999"}, b"",
         Fails(ProviderRateLimited, also=lambda e: e.retry_after is None)),
        ("429 with a date", 429, {"Retry-After": "Fri, 31 Dec 2027 23:59:59 GMT"}, b"",
         Fails(ProviderRateLimited, also=lambda e: e.retry_after is not None)),
        ("503 with a number", 503, {"Retry-After": "7"}, b"<html>",
         Fails(ProviderUnavailable, also=lambda e: e.retry_after == 7)),
        ("context too long", 400, {}, error("This model takes 8192 tokens", code="context_length_exceeded"),
         Fails(ProviderRejected, "This model takes 8192 tokens", metadata={"code": "context_length_exceeded"})),
        ("context too long, in words", 400, {}, error("the request exceeds the available context size"),
         Fails(ProviderRejected, metadata={"code": "context_length_exceeded"})),
        ("content filter", 400, {}, error("filtered", code="content_filter"),
         Fails(ProviderRejected, metadata={"code": "content_filter"})),
        ("a wrong field", 422, {}, error("n must be 1", code="invalid_value", param="n"),
         Fails(ProviderRejected, "n must be 1", metadata={"code": "invalid_value", "param": "n"})),
        ("an error as text", 400, {}, b'{"error": "no such thing"}', Fails(ProviderRejected, "no such thing")),
        ("detail", 400, {}, b'{"detail": "no such thing"}', Fails(ProviderRejected, "no such thing")),
        ("a key in a message", 400, {}, error("your key key-1 and sk-abcdef123456"),
         Fails(ProviderRejected, hides="sk-abcdef")),
        ("wrong key of ours", 401, {}, error("Incorrect API key provided: key-1"), Fails(ProviderMisconfigured)),
        ("forbidden", 403, {}, b"", Fails(ProviderMisconfigured)),
        ("no such model", 404, {}, error("no such model"), Fails(ProviderMisconfigured)),
        *[(f"redirect {status}", status, {"Location": "http://elsewhere.test/v1"}, b"",
           Fails(ProviderMisconfigured, "elsewhere.test")) for status in (301, 302, 307, 308)],
        ("204", 204, {}, b"", Fails(ProviderBadResponse)),
    )
]  # fmt: skip
REPORTED = [
    Row("an error in a stream", events(PIECES[0], error("x", code=502)), Fails(ProviderUnavailable), stream=True),
    Row("a limit in a stream", events(error("x", code=429)), Fails(ProviderRateLimited), stream=True),
    Row("a rejection with status 200", error("x", type="invalid_request_error"), Fails(ProviderRejected)),
]
ROWS = [*TOOL_CALLS, *REASONS, *FORMS, *GRAMMAR, *REFUSALS, *REPORTED]
