"""A target for each parser of foreign bytes: what may come in, and that nothing but its own named errors comes out."""

import base64
import ipaddress
import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import jwt
from google.protobuf.message import DecodeError
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import SecretStr

from access.api_key import is_api_key, new_api_key
from access.caller import ANONYMOUS
from access.errors import Unauthenticated
from access.jwks import FetchFailed, read_document, usable_keys
from access.oidc import OidcTokens
from access.oidc_settings import OidcIssuer
from chat_gateway.clients.turn_calls import TURNS
from chat_gateway.http_edge.openai.chat.request import decode_request, extra_fields, to_turn_request
from chat_gateway.http_edge.openai.embeddings.request import read_request
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.providers.adapter import BadAnswer, ReportedError
from chat_gateway.providers.gemini.embeddings import read_embeddings as read_batch
from chat_gateway.providers.openai.embeddings import read_embeddings
from chat_gateway.providers.openai.usage import to_usage
from chat_gateway.providers.openai.wire import decode_completion
from chat_gateway.providers.provider import EmbeddingCall, VectorFormat
from chat_gateway.providers.sse import EventTooLarge, SseParser
from chat_gateway.tools.http_operation import BadArgument
from chat_gateway.tools.openapi import operations
from chat_gateway.tools.server import ServerUnavailable
from config_svc import paging
from config_svc.model.errors import InvalidPageToken as InvalidConfigToken
from config_svc.model.filter import parse_filter
from config_svc.settings import ConfigSettings
from config_svc.tool_servers.openapi_document import MAX_PROBLEMS, openapi_problems
from parley.session.v1 import turn_service_pb2 as pb
from servicekit.egress import EgressDenied, EgressRules, is_public
from servicekit.errors import ServiceError, StartupError, Violations
from servicekit.settings import SettingsError
from session_svc.edge.page_tokens import make_token, read_token
from session_svc.model.errors import InvalidPageToken, TurnDamaged
from session_svc.redis_client.url import parse_redis_url
from session_svc.redis_store.turn_codec import body_of, number_of, plain_element, stored_turn
from tests.fuzz import answers, http, others, responses
from tests.fuzz.inputs import damaged, deep_json, foreign, json_values, text_of, with_foreign_members


class Target(NamedTuple):
    """`check` fails, by any exception, for an input that its parser does not take as it should."""

    inputs: SearchStrategy[Any]
    check: Callable[[Any], None]


def sse(data: tuple[bytes, list[int]]) -> None:
    """However the network cuts a stream, its events are the same, and there are no others."""
    stream, cuts = data
    whole, pieces = SseParser(), SseParser()
    try:
        expected = whole.feed(stream) + whole.close()
    except EventTooLarge:
        return
    bounds = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    found = [event for start, end in itertools.pairwise(bounds) for event in pieces.feed(stream[start:end])]
    assert found + pieces.close() == expected


def completion(data: bytes) -> None:
    with suppress(BadAnswer):
        usage = to_usage(decode_completion(data).usage)
        assert min(usage.prompt_tokens, usage.completion_tokens) >= 0


def embeddings(data: bytes) -> None:
    """A provider's vectors, in either form: each is JSON of what was asked for."""
    for asked, read in itertools.product(VectorFormat, (read_embeddings, read_batch)):
        with suppress(BadAnswer, ReportedError):
            answer = read(data, EmbeddingCall("m", ["a"], asked), "p")
            [vector] = map(json.loads, answer.vectors)
            assert isinstance(vector, str if asked is VectorFormat.BASE64 else list)


def embeddings_body(data: bytes) -> None:
    with suppress(ServiceError):
        read_request(data, TurnHeaders(), ANONYMOUS)


def jwks(data: bytes) -> None:
    with suppress(FetchFailed):
        keys = usable_keys(read_document(data, "https://id.example/keys"))
        assert all(isinstance(key, str) for key in keys)


_TOKENS = OidcTokens([OidcIssuer(issuer="https://id.example", audience="parley", project="p", scopes=("chat",))])


def token(data: str) -> None:
    """What is read of a token before its signature is verified: anybody may send it."""
    with suppress(Unauthenticated):
        _TOKENS._unverified(data)


def turn_in_redis(element: bytes) -> None:
    with suppress(TurnDamaged):
        number_of(element)
    with suppress(TurnDamaged):
        stored = stored_turn(element)
        assert len(stored.turn()) == stored.size
        plain_element(element)


def session_page_token(data: str) -> None:
    with suppress(InvalidPageToken):
        assert isinstance(read_token(data, "digest"), list)


def config_page_token(body: bytes) -> None:
    """The checksum is no secret, so it is right here: what is behind it is anything."""
    query = ("agents", "default")
    forged = base64.urlsafe_b64encode(paging._checksum(query, body) + body).rstrip(b"=").decode()
    for given in (forged, text_of(body)):
        with suppress(InvalidConfigToken):
            [text] = paging.read_token(query, given, [str])
            assert isinstance(text, str)


def filter_of_a_list(text: str) -> None:
    found = Violations()
    if parse_filter(found, text) is None and text.strip():
        assert found


def redis_url(text: str) -> None:
    complaint = ""
    try:
        parse_redis_url(text)
    except StartupError as error:
        complaint = str(error)
    assert "hunter2" not in complaint


def postgres_url(text: str) -> None:
    complaint = ""
    try:
        ConfigSettings(database_url=SecretStr(text))
    except SettingsError as error:
        complaint = str(error)
    assert "hunter2" not in complaint


def stream_message(data: bytes) -> None:
    """Of calls that share a stream; each comes out once, or none where it is no message."""
    with suppress(DecodeError):
        read = TURNS.read_requests(data)
        assert all(call.id >= 0 for call in read.calls)


def chat_body(data: bytes) -> None:
    with suppress(ServiceError):
        chat, nested = decode_request(data)
        to_turn_request(chat, TurnHeaders(), extra=extra_fields(data), nested=nested)


def stored_openapi(text: str) -> None:
    """Whatever it holds, problems are named, and few."""
    problems = openapi_problems(text)
    assert len(problems) <= MAX_PROBLEMS
    assert all(len(problem) < 1000 for problem in problems)


def api_key(text: str) -> None:
    assert not is_api_key(text) or text.isascii()


_CHUNK = {"id": "1", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}], "usage": None}
_ANSWER = _CHUNK | {"usage": {"prompt_tokens": 3, "completion_tokens": 4}, "model": "m"}
_VECTORS: list[dict[str, Any]] = [
    {"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 1}},
    {"data": [{"index": 0, "embedding": "AAAAPw=="}]},
    {"embeddings": [{"values": [0.5]}]},
]
_EMBEDDED = {"model": "a", "input": ["x"], "encoding_format": "base64", "dimensions": 2, "user": "u"}
_STREAM = b"data: " + json.dumps(_CHUNK).encode() + b"\n\n"
_STREAMS = damaged(
    _STREAM * 3 + b"data: [DONE]\n\n", b"\xef\xbb\xbf: hi\r\n\r\ndata: a\r\rdata\r\ndata:b\n\n", b"data:\n" * 50
)
_KEY = {
    "kty": "RSA",
    "kid": "a",
    "use": "sig",
    "alg": "RS256",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78Lh",
    "e": "AQAB",
}
_CURVE = {"kty": "EC", "kid": "b", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
          "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}  # fmt: skip
_JWT = jwt.encode({"iss": "https://id.example", "sub": "a"}, "k" * 32, algorithm="HS256")
_CHAT = {
    "model": "a",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
    "temperature": 0.5,
    "tools": [],
    "stop": ["a"],
    "session_id": "s",
    "user_id": "u",
    "metadata": {"a": "b"},
    "response_format": {"type": "text"},
}
_TURN = b"\n\x05" + b"words " * 200
_HEAD = bytes.fromhex("0002020000000000000007000000000000")
_LZ4, _ = body_of(_TURN, continues=False, compressing=True)


_STORED_OPENAPI = {
    "openapi": "3.1.0",
    "paths": {"/a": {"get": {"operationId": "a", "parameters": [{"$ref": "#/components/a"}]}}},
    "components": {"a": {"$ref": "#/paths"}},
}


def _forged_jwt(payload: bytes) -> str:
    part = base64.urlsafe_b64encode(payload).rstrip(b"=").decode()
    return f"{_JWT.split('.')[0]}.{part}.AAAA"


def _session_token(payload: bytes) -> str:
    return base64.urlsafe_b64encode(payload).rstrip(b"=").decode()


def egress_url(url: str) -> None:
    """A URL is read as one place or refused by name, and what is not public is never allowed by its notation."""
    with suppress(EgressDenied):
        target = EgressRules().check_url(url)
        assert target.scheme == "https"
        with suppress(ValueError):
            assert is_public(ipaddress.ip_address(target.host))


def openapi_document(data: bytes) -> None:
    """Whatever a document holds becomes operations whose arguments have a schema, or is refused by name."""
    with suppress(ServerUnavailable):
        for operation in operations(text_of(data)):
            json.dumps(operation.parameters())
            with suppress(BadArgument):
                operation.request(dict.fromkeys(operation.named(), "x"))


_URLS = (
    b"https://[::ffff:127.0.0.1]:8443/a?b#c",
    b"https://2130706433/",
    b"https://0x7f.1/",
    b"https://u@example.com/",
)
_PARAMETER = {"name": "id", "in": "path", "required": True, "schema": {"$ref": "#/components/schemas/S"}}
_BODY = {"content": {"application/json": {"schema": {"type": "object", "nullable": True, "allOf": [{}]}}}}
_OPENAPI = {
    "openapi": "3.0.0",
    "paths": {"/a/{id}": {"post": {"operationId": "o", "parameters": [_PARAMETER], "requestBody": _BODY}}},
    "components": {"schemas": {"S": {"type": "integer", "minimum": 1, "exclusiveMinimum": True}}},
}


TARGETS = {
    "egress_url": Target(foreign(*_URLS).map(text_of), egress_url),
    "openapi_document": Target(
        foreign(json.dumps(_OPENAPI).encode()) | with_foreign_members(_OPENAPI), openapi_document
    ),
    "sse": Target(st.tuples(_STREAMS | st.binary(max_size=80), st.lists(st.integers(0, 10_000), max_size=6)), sse),
    "completion": Target(foreign(json.dumps(_ANSWER).encode()) | with_foreign_members(_ANSWER), completion),
    "embeddings": Target(
        st.one_of(*(foreign(json.dumps(one).encode()) | with_foreign_members(one) for one in _VECTORS)), embeddings
    ),
    "embeddings_body": Target(
        foreign(json.dumps(_EMBEDDED).encode()) | with_foreign_members(_EMBEDDED), embeddings_body
    ),
    "response_body": Target(responses.bodies, responses.response_body),
    "response_texts": Target(responses.texts, responses.kept_text),
    "response_details": Target(responses.answers, responses.said_of_answer),
    "response_stored": Target(responses.stored, responses.kept_with_turn),
    "jwks": Target(
        st.one_of(
            foreign(json.dumps({"keys": [_KEY, _CURVE]}).encode()),
            with_foreign_members(_KEY).map(lambda key: b'{"keys": [%s]}' % key),
            with_foreign_members(_CURVE).map(lambda key: b'{"keys": [%s]}' % key),
        ),
        jwks,
    ),
    "token": Target(foreign(_JWT.encode()).map(text_of) | (deep_json | foreign(b"{}")).map(_forged_jwt), token),
    "stored_turn": Target(
        damaged(_HEAD + _LZ4, _HEAD[:2] + b"\0" + _HEAD[3:] + _TURN) | st.binary(max_size=60), turn_in_redis
    ),
    "session_page_token": Target(
        st.one_of(
            foreign(make_token("digest", [1, "s"]).encode()).map(text_of),
            deep_json.map(_session_token),
            json_values.map(lambda value: make_token("digest", [value])),
        ),
        session_page_token,
    ),
    "config_page_token": Target(foreign(b'["a"]', b"[1]"), config_page_token),
    "filter": Target(
        st.one_of(
            foreign(b'display_name = "a" AND (labels.team:* OR NOT id != "b")').map(text_of),
            st.sampled_from(["(", "NOT ", "-", "a OR ", '"']).flatmap(
                lambda part: st.integers(1, 5000).map(lambda count: part * count)
            ),
        ),
        filter_of_a_list,
    ),
    "redis_url": Target(
        damaged(
            b"redis://user:hunter2@host:6379/0",
            b"rediss://:hunter2@[::1]:1/1?timeout=2",
            b"unix:///run/redis?password=hunter2",
            b"redis+sentinel://u:hunter2@a,b:1/primary/0?sentinel_password=hunter2",
            b"redis+cluster://u:hunter2@a:1,[::1]:2",
        ).map(text_of),
        redis_url,
    ),
    "postgres_url": Target(
        damaged(
            b"postgresql+psycopg://user:hunter2@host:5432/parley?sslmode=require",
            b"postgresql://u:hunter2@a:1,b:2/x?target_session_attrs=any",
            b"postgres://:hunter2@[::1]/x",
        ).map(text_of),
        postgres_url,
    ),
    "stream_message": Target(
        damaged(
            pb.TurnsRequest(
                calls=[
                    pb.TurnCall(id=n, timeout_ms=5, begin=pb.BeginTurnRequest(session_id="s", agent_id="a"))
                    for n in (1, 2)
                ],
                cancelled_ids=[3, 400],
            ).SerializeToString()
        )
        | st.binary(max_size=60),
        stream_message,
    ),
    "chat_body": Target(foreign(json.dumps(_CHAT).encode()) | with_foreign_members(_CHAT), chat_body),
    "stored_openapi": Target(
        (foreign(json.dumps(_STORED_OPENAPI).encode()) | with_foreign_members(_STORED_OPENAPI)).map(text_of),
        stored_openapi,
    ),
    "anthropic_answer": Target(answers.anthropic_pieces, answers.anthropic),
    "gemini_answer": Target(answers.gemini_pieces, answers.gemini),
    "request_target": Target(answers.heads, answers.request_target),
    "metrics_head": Target(http.metrics_heads, http.metrics_head),
    "chunked_body": Target(http.chunked_bodies, http.chunked_body),
    "agent_card": Target(others.cards, others.agent_card),
    "remote_task": Target(others.remote_answers, others.remote_task),
    "tool_answer": Target(others.tool_answers, others.tool_answer),
    "returned_id": Target(others.ids, others.returned_id),
    "agent_file": Target(others.agent_files, others.agent_file),
    "stored_session": Target(others.sessions, others.stored_session),
    "api_key": Target(damaged(new_api_key().encode()).map(text_of), api_key),
}
