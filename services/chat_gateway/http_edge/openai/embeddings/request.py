"""Converts OpenAI's embedding requests to those of the use case."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from access.binding import bound_user
from access.caller import Caller
from chat_gateway.embedding import MODEL_RULE, EmbeddingRequest
from chat_gateway.http_edge.openai.chat.request import MAX_USER_CHARACTERS, named_agent
from chat_gateway.http_edge.openai.embeddings.schema import MAX_INPUTS, MAX_TOKENS, EmbeddingsRequest
from chat_gateway.http_edge.wire.auth import named_project
from chat_gateway.http_edge.wire.bodies import check_width, decode, raw_json
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.model.not_found import ModelNotFound
from chat_gateway.providers.provider import VectorFormat
from contract.fields import is_resource_id
from servicekit.errors import Violations

_MAX_DIMENSIONS = 65_536
_MAX_MODEL = 512

_decoder = msgspec.json.Decoder(EmbeddingsRequest)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_KNOWN = frozenset(EmbeddingsRequest.__struct_fields__)
_FORMATS = {known.value: known for known in VectorFormat}


def read_request(body: bytes, headers: TurnHeaders, caller: Caller) -> tuple[str, EmbeddingRequest]:
    """Returns the model as the caller names it, and what is asked for, bound to `caller`.

    Raises `MalformedBody`, `InvalidArgument` with every violation, `ModelNotFound`, `ProjectDenied`, `UserDenied`.
    """
    check_width(body, unbounded="input")
    said = decode(_decoder.decode, body)
    found = Violations()
    project = named_project(caller, headers.project)
    user = said.user or ""
    # What is asked for has no owner; who may name one user only may not name another one, all the same.
    for named in (headers.user_id, user):
        bound_user(caller, named)
    if len(user) > MAX_USER_CHARACTERS:
        found.add("user", f"must have at most {MAX_USER_CHARACTERS} characters")
    agent_id, revision, provider, model = _target(said.model, found)
    inputs = _inputs(said.input, found)
    encoding = said.encoding_format or VectorFormat.FLOAT.value
    if encoding not in _FORMATS:
        found.add("encoding_format", "must be float or base64")
    if said.dimensions is not None and not 1 <= said.dimensions <= _MAX_DIMENSIONS:
        found.add("dimensions", f"must be from 1 to {_MAX_DIMENSIONS}")
    extra = _extra(body)
    found.check()
    if not provider and not is_resource_id(agent_id):
        raise ModelNotFound(said.model, MODEL_RULE)
    return said.model, EmbeddingRequest(
        project,
        inputs,
        agent_id,
        revision,
        provider,
        model,
        _FORMATS[encoding],
        said.dimensions,
        user,
        extra,
    )


def _target(name: str, found: Violations) -> tuple[str, int, str, str]:
    if not 1 <= len(name) <= _MAX_MODEL:
        found.add("model", f"must have 1 to {_MAX_MODEL} characters")
        return "", 0, "", ""
    provider, slash, model = name.partition("/")
    if not slash:
        return (*named_agent(name, found), "", "")
    if not (is_resource_id(provider) and model):
        raise ModelNotFound(name, MODEL_RULE)
    return "", 0, provider, model


def _inputs(said: str | list[Any], found: Violations) -> Sequence[str | Sequence[int]]:
    inputs: list[Any] = [said] if isinstance(said, str) or (said and type(said[0]) is int) else said
    if not 1 <= len(inputs) <= MAX_INPUTS:
        found.add("input", f"must have 1 to {MAX_INPUTS} items")
        return []
    tokens = sum(len(one) for one in inputs if isinstance(one, list))
    for number, one in enumerate(inputs):
        where = f"input[{number}]" if inputs is said else "input"
        if one in ("", []):
            found.add(where, "must not be empty")
        elif not (isinstance(one, str) or _is_tokens(one, tokens)):
            found.add(where, "must be a text, or the numbers of its tokens")
    if tokens > MAX_TOKENS:
        found.add("input", f"must have at most {MAX_TOKENS} tokens")
    if len({type(one) for one in inputs}) > 1:
        found.add("input", "must be all texts, or all tokens")
    return inputs


def _is_tokens(said: object, in_all: int) -> bool:
    # Of too many they are not looked at: that there are too many is said anyway.
    return isinstance(said, list) and (
        in_all > MAX_TOKENS or all(type(token) is int and 0 <= token < 2**31 for token in said)
    )


def _extra(body: bytes) -> Mapping[str, bytes]:
    fields = decode(_fields, body)
    names = fields.keys() - _KNOWN
    return {name: text for name in sorted(names) if (text := raw_json(fields[name], name[:64])) != b"null"}
