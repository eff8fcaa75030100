"""Gemini's generateContent as it is documented, and its oddities: each whole and streamed where it has both forms."""

import gzip
import json
from collections.abc import Callable
from typing import Any

from chat_gateway.model.provider_errors import (
    ProviderMisconfigured,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from chat_gateway.model.turn import Usage
from chat_gateway.providers.provider import ModelAnswer
from tests.unit.chat_gateway.zoo.row import BAD, CALLS, FILTER, LENGTH, OK, STOP, Answered, Fails, Row

USAGE = {"promptTokenCount": 25, "candidatesTokenCount": 10, "thoughtsTokenCount": 5, "totalTokenCount": 40}
TEXT = {"text": "ok"}


def response(parts: Any, reason: Any = "STOP", **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "usageMetadata": USAGE, "modelVersion": "gemini-9", "responseId": "r", **more}


def coded(said: Any) -> bytes:
    return json.dumps(said).encode()


def events(*said: Any) -> bytes:
    return b"".join(b"data: %b\r\n\r\n" % coded(one) for one in said)


def both(name: str, parts: list[Any], right: Answered | Fails, reason: Any = "STOP", **more: Any) -> list[Row]:
    """The same parts whole, and streamed as a response for each with the reason in the last."""
    pieces = [response([part], None) for part in parts[:-1]] + [response(parts[-1:], reason, **more)]
    return [
        Row(name, coded(response(parts, reason, **more)), right),
        Row(name, events(*pieces), right, stream=True),
    ]


def call(name: str, args: Any, call_id: str = "", signature: str = "") -> dict[str, Any]:
    said = {"name": name, "args": args}
    part: dict[str, Any] = {"functionCall": {"id": call_id, **said} if call_id else said}
    return {**part, "thoughtSignature": signature} if signature else part


def kept(right: list[Any], *calls: dict[str, str] | None) -> Callable[[ModelAnswer], bool]:
    def check(answer: ModelAnswer) -> bool:
        message = answer.message
        data = json.loads(message.provider_data.json) if message.provider_data else []
        own = [json.loads(one.provider_data.json) if one.provider_data else None for one in message.tool_calls]
        return data == right and own == list(calls)

    return check


F, G = call("f", {"x": 1}), call("g", {"y": 2})
TWO = Answered(finish_reason=CALLS, calls=(("f", '{"x":1}'), ("g", '{"y":2}')))
TWICE = [call("f", {"x": 1}, "c"), call("g", {"y": 2}, "c")]
SIGNED = {"id": "c1", "thoughtSignature": "Sig="}
CODE = {"executableCode": {"language": "PYTHON", "code": "1"}}
FILTERED = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "LANGUAGE", "safety")
FAILED = (
    "OTHER",
    "MALFORMED_FUNCTION_CALL",
    "MISSING_THOUGHT_SIGNATURE",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
)

ANSWERS = [
    *both("a text", [TEXT], Answered("ok", STOP, usage=Usage(25, 15, 0, 5))),
    *both("texts", [{"text": "o"}, {"text": "k"}], OK),
    *both("parallel calls", [F, G], TWO),
    *both("calls with ids", [call("f", {"x": 1}, "c1"), call("g", {"y": 2}, "c2")], TWO),
    *both("calls with one id", TWICE, TWO),
    *both("a call without arguments", [{"functionCall": {"name": "f"}}], Answered(calls=(("f", "{}"),))),
    *both("a call without a name", [{"functionCall": {"args": {}}}], BAD),
    *both(
        "a signed call",
        [{"text": "hm", "thought": True}, call("f", {"x": 1}, "c1", "Sig="), G],
        Answered("", CALLS, "hm", (("f", '{"x":1}'), ("g", '{"y":2}')), also=kept([], SIGNED, None)),
    ),
    *both(
        "a signed text",
        [{"text": "o"}, {"text": "k", "thoughtSignature": "Sig="}],
        Answered("ok", STOP, also=kept([1, [1, "Sig="]])),
    ),
    *both("a signature after the text", [TEXT, {"text": "", "thoughtSignature": "S"}],
          Answered("ok", also=kept([2, [0, "S"]]))),
    *both("a signature alone", [TEXT, {"thoughtSignature": "S"}], Answered("ok", also=kept([2, [0, "S"]]))),
    *both("a part that is unknown", [CODE, TEXT], Answered("ok", also=kept([CODE, 2]))),
    *both("thoughts only", [{"text": "hm", "thought": True}], Answered("", LENGTH, "hm"), "MAX_TOKENS"),
    *both("MAX_TOKENS", [TEXT], Answered("ok", LENGTH), "MAX_TOKENS"),
    *[row for word in FILTERED for row in both(word, [TEXT], Answered("ok", FILTER), word)],
    *[row for word in (*FAILED, "FINISH_REASON_UNSPECIFIED", "whatever") for row in both(word, [TEXT], BAD, word)],
]  # fmt: skip

BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7}}
ERROR = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
CACHED = {**USAGE, "cachedContentTokenCount": 20, "toolUsePromptTokenCount": 2}
ODD = {"promptTokenCount": "5", "candidatesTokenCount": 3.5, "thoughtsTokenCount": None, "totalTokenCount": []}


def alike(name: str, said: Any, right: Answered | Fails) -> list[Row]:
    return [Row(name, coded(said), right), Row(name, events(said), right, stream=True)]


FORMS = [
    *alike("a blocked prompt", BLOCKED, Answered("", FILTER, usage=Usage(7))),
    *alike("a candidate without content", {"candidates": [{"finishReason": "SAFETY"}]}, Answered("", FILTER)),
    *alike("no candidates", {"usageMetadata": USAGE}, BAD),
    *alike("no finish reason", response([TEXT], None), BAD),
    *alike("usage with the cache", response([TEXT], usageMetadata=CACHED), Answered("ok", usage=Usage(27, 15, 20, 5))),
    *alike("odd usage", response([TEXT], usageMetadata=ODD), Answered("ok", usage=Usage(5, 4))),
    *alike("no usage", response([TEXT], usageMetadata=None), Answered("ok", usage=Usage())),
    *alike("a blocked prompt, with an empty candidate", {**BLOCKED, "candidates": [{"content": {}}]},
           Answered("", FILTER)),
    *alike("one candidate that is no list", {"candidates": response([TEXT])["candidates"][0]}, OK),
    *alike("one part that is no list", response(TEXT), OK),
    *alike("half a surrogate pair", response([{"text": "ok\ud83d"}]), Answered("ok\ufffd", STOP)),
    *alike("an error", ERROR, Fails(ProviderUnavailable)),
    *alike("too long", response([{"text": "x" * 250_000}]), BAD),
    Row("a placeholder as reason before the last", events(response([{"text": "o"}], "FINISH_REASON_UNSPECIFIED"),
                                                         response([{"text": "k"}])), OK, stream=True),
    Row("a reason with every piece", events(response([{"text": "o"}]), response([{"text": "k"}])), OK, stream=True),
    Row("cut off, then ended", events(response([TEXT], "MAX_TOKENS"), response([])), Answered("ok", LENGTH),
        stream=True),
    Row("ended, then cut off", events(response([TEXT]), response([], "MAX_TOKENS")), Answered("ok", LENGTH),
        stream=True),
    Row("ended, then failed", events(response([TEXT]), response([], "OTHER")), BAD, stream=True),
    Row("zeros in the last usage", events(response([TEXT]), {"usageMetadata": {"promptTokenCount": 0}}),
        Answered("ok", usage=Usage(25, 15, 0, 5)), stream=True),
    Row("bytes that are no text", coded(response([{"text": "ok~"}])).replace(b"~", b"\xff"), Answered("ok\ufffd")),
    Row("a byte order mark", b"\xef\xbb\xbf" + coded(response([TEXT])), OK),
    Row("a whole answer to who asked for a stream", coded(response([TEXT])), OK, stream=True,
        headers={"Content-Type": "application/json"}),
    Row("an empty error beside the answer", coded(response([TEXT], error={})), OK),
    Row("not JSON", b"<html>", BAD),
    Row("NaN", b'{"candidates": NaN}', BAD),
    Row("nested too deep", b'{"candidates": ' + b"[" * 9000 + b"]" * 9000 + b"}", BAD),
    Row("gzip", gzip.compress(coded(response([TEXT]))), OK, headers={"Content-Encoding": "gzip"}),
    Row("an error in the middle", events(response([TEXT], None), ERROR), Fails(ProviderUnavailable), stream=True),
    Row("cut off", events(response([TEXT], None)), BAD, stream=True),
    Row("reset", events(response([TEXT], None)), Fails(ProviderUnavailable), stream=True, cut=True),
    Row("open after the end", events(response([TEXT])), OK, stream=True, stays_open=True),
    Row("[DONE] of a proxy", events(response([TEXT])) + b"data: [DONE]\n\n", OK, stream=True, stays_open=True),
    Row("usage after the end", events(response([TEXT], usageMetadata=None), {"usageMetadata": USAGE}),
        Answered("ok", usage=Usage(25, 15, 0, 5)), stream=True),
    Row("no last blank line", events(response([TEXT]))[:-2], OK, stream=True),
]  # fmt: skip


def refused(status: int, word: str, right: Fails, message: str = "no", details: Any = None, **row: Any) -> list[Row]:
    body = coded({"error": {"code": status, "message": message, "status": word, "details": details}})
    return [Row(f"{status} {word}", body, right, stream, status, **row) for stream in (False, True)]


ERRORS = [
    *refused(400, "INVALID_ARGUMENT", Fails(ProviderRejected)),
    *refused(400, "INVALID_ARGUMENT", Fails(ProviderRejected, metadata={"code": "context_length_exceeded"}),
             "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
    *refused(400, "INVALID_ARGUMENT", Fails(ProviderMisconfigured), "API key not valid.",
             [7, {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]),
    *refused(403, "PERMISSION_DENIED", Fails(ProviderMisconfigured), "key-1 is not allowed"),
    *refused(404, "NOT_FOUND", Fails(ProviderMisconfigured)),
    *refused(429, "RESOURCE_EXHAUSTED", Fails(ProviderRateLimited)),
    *refused(429, "RESOURCE_EXHAUSTED", Fails(ProviderRateLimited, also=lambda e: e.retry_after == 30.5), "in 30.5s",
             [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "30.5s"}]),
    *refused(429, "RESOURCE_EXHAUSTED", Fails(ProviderRateLimited, also=lambda e: e.retry_after == 7), "header: 7",
             [{"retryDelay": "30s"}], headers={"Retry-After": "7"}),
    *refused(429, "RESOURCE_EXHAUSTED", Fails(ProviderRateLimited, also=lambda e: e.retry_after is None), "nonsense",
             [{"retryDelay": "-1s"}, {"retryDelay": "NaNs"}, {"retryDelay": 30}, {"retryDelay": {"seconds": 1}}]),
    *refused(500, "INTERNAL", Fails(ProviderUnavailable)),
    *refused(503, "UNAVAILABLE", Fails(ProviderUnavailable)),
]  # fmt: skip

ROWS = [*ANSWERS, *FORMS, *ERRORS]
