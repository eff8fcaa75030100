"""Converts OpenAI's chat completion requests to turns."""

import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from access.binding import bound_user
from access.caller import ANONYMOUS, Caller
from chat_gateway.http_edge.openai.chat.messages import PART_FIELDS, to_message
from chat_gateway.http_edge.openai.chat.nested_fields import (
    NO_NESTED,
    NestedFields,
    extra_of,
    strict_within,
    unknown_to_all,
    without_unknown,
)
from chat_gateway.http_edge.openai.chat.schema import (
    ChatCompletionRequest,
    Tool,
    ToolChoice,
)
from chat_gateway.http_edge.wire.auth import named_project
from chat_gateway.http_edge.wire.bodies import check_free_form, check_width, decode, raw_json
from chat_gateway.http_edge.wire.errors import MalformedBody
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.model import turn as model
from chat_gateway.model.not_found import ModelNotFound
from chat_gateway.model.provider_errors import UNKNOWN_FIELD, UnsupportedField
from chat_gateway.model.rules import DEFAULT_BOUNDS, MAX_CHOICES, RequestBounds, check_turn_request
from chat_gateway.model.tools import Approval
from contract.enums import BusyPolicy, HistoryPolicy
from contract.fields import is_resource_id, is_user_id
from servicekit.errors import InvalidArgument, MessageTooLarge, Violations

MAX_USER_CHARACTERS: Final = 256

_decoder = msgspec.json.Decoder(strict_within(ChatCompletionRequest))
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_KNOWN = frozenset(ChatCompletionRequest.__struct_fields__)
_NO_EXTRA: Mapping[str, bytes] = {}

_BUSY = {policy.value: policy for policy in BusyPolicy}
_HISTORY = {policy.value: policy for policy in HistoryPolicy}
_ON_DISCONNECT = {choice.value: choice for choice in model.OnDisconnect}
_DIGESTED_USER = re.compile("user-[0-9a-f]{64}")
_DEFAULT_SAMPLING = model.Sampling()
_NOTHING = (None,) * 7


def decode_request(body: bytes) -> tuple[ChatCompletionRequest, NestedFields]:
    """Returns the body as a request, and what its objects say beyond their shapes. Raises `MalformedBody`."""
    check_width(body)
    try:
        return decode(_decoder.decode, body), NO_NESTED
    except MalformedBody as error:
        known, nested = without_unknown(body, ChatCompletionRequest) if error.violations else (body, NO_NESTED)
        if known is body:
            raise
        return decode(_decoder.decode, known), nested


def extra_fields(body: bytes) -> Mapping[str, bytes]:
    """Returns the fields of a request that was decoded that are not Parley's to understand, each as its JSON.

    Raises `MalformedBody` for what no provider could read.
    """
    said = decode(_fields, body)
    names = said.keys() - _KNOWN
    return _said_in(said, names) if names else _NO_EXTRA


def _said_in(said: Mapping[str, msgspec.Raw], names: Collection[str]) -> dict[str, bytes]:
    return {name: text for name in sorted(names) if (text := raw_json(said[name], name[:64])) != b"null"}


def to_turn_request(
    chat: ChatCompletionRequest,
    headers: TurnHeaders,
    caller: Caller = ANONYMOUS,
    extra: Mapping[str, bytes] = {},
    bounds: RequestBounds = DEFAULT_BOUNDS,
    nested: NestedFields = NO_NESTED,
) -> model.TurnRequest:
    """Returns the requested turn, bound to `caller`, with what `extra_fields` and `decode_request` returned.

    Raises `InvalidArgument` with every violation: of what can't be honoured, and of fields that contradict headers;
    `ModelNotFound` where nothing but the model is wrong, and `UnsupportedField` where nothing is but fields that nobody
    knows; `ProjectDenied` and `UserDenied`.
    """
    project = named_project(caller, headers.project)
    found = Violations()
    agent_id, revision = named_agent(chat.model, found)
    _refuse_unsupported(chat, found)
    busy, history, on_disconnect = _policies(chat, headers, found)
    opaque = opaque_user(chat.user, found) if chat.user else ""
    messages = tuple([to_message(message, i, found, nested) for i, message in enumerate(chat.messages)])
    tools = _tools(chat.tools, found, nested) if chat.tools else ()
    allowed = _allowed_tools(chat.tool_choice, found)
    request = model.TurnRequest(
        project=project,
        agent_id=agent_id,
        agent_revision=revision,
        messages=messages,
        session_id=_agreed("session_id", chat.session_id, headers.session_id, found),
        user_id=bound_user(caller, _agreed("user_id", chat.user_id, headers.user_id, found) or opaque),
        session_must_exist=chat.session_must_exist is True,
        store=chat.store,
        stateless=chat.store is False,
        busy=busy,
        history=history,
        request_id=headers.request_id,
        choices=chat.n or 1,
        sampling=_sampling(chat),
        tools=tuple([tool for tool in tools if tool.name in allowed]) if allowed else tools,
        allowed_tools=allowed,
        tool_choice=_tool_choice(chat.tool_choice, found) if chat.tool_choice else "",
        response_format=chat.response_format,
        extra=extra,
        metadata=chat.metadata or {},
        on_disconnect=on_disconnect,
        resumable=chat.resumable is True or chat.background is True,
        background=chat.background is True,
        approvals=tuple([Approval(one.tool_call_id, one.approve, one.note) for one in chat.approvals or ()]),
    )
    _check(request, chat.model, unknown_to_all(nested) if nested else [], bounds, found)
    if chat.response_format:
        check_free_form(chat.response_format, "response_format")
    return request


def _policies(
    chat: ChatCompletionRequest, headers: TurnHeaders, found: Violations
) -> tuple[BusyPolicy, HistoryPolicy | None, model.OnDisconnect]:
    busy = _agreed("busy", chat.busy, headers.busy, found) or "wait"
    if busy not in _BUSY:
        found.add("busy", "must be wait, reject or interrupt")
    history = _agreed("history", chat.history, headers.history, found)
    if history and history not in _HISTORY:
        found.add("history", "must be match, replace or append")
    on_disconnect = chat.on_disconnect or ("finish" if chat.resumable or chat.background else "cancel")
    if on_disconnect not in _ON_DISCONNECT:
        found.add("on_disconnect", "must be cancel or finish")
    elif (chat.resumable or chat.background) and on_disconnect == "cancel":
        found.add("on_disconnect", "must be finish with resumable and background")
    if chat.background and chat.stream:
        found.add("stream", "must be false with background: the events of the completion are a stream")
    return (
        _BUSY.get(busy, BusyPolicy.WAIT),
        _HISTORY.get(history),
        _ON_DISCONNECT.get(on_disconnect, model.OnDisconnect.CANCEL),
    )


def _check(
    request: model.TurnRequest, model_name: str, unknown: list[str], bounds: RequestBounds, found: Violations
) -> None:
    """Raises for everything found so far, and for `unknown`, the unknown fields of messages."""
    for path in unknown:
        found.add(path, UNKNOWN_FIELD)
    is_no_agent = bool(request.agent_id) and not is_resource_id(request.agent_id)
    if found or is_no_agent:
        _check_the_rest(request, bounds, found)
    if is_no_agent and found.fields() == {"model"}:
        raise ModelNotFound(model_name)
    if unknown and found.fields() <= {*unknown}:
        raise UnsupportedField("", unknown)
    found.check()


def _check_the_rest(request: model.TurnRequest, bounds: RequestBounds, found: Violations) -> None:
    """Notes what the rules of turns would refuse next, so that the caller learns everything at once."""
    try:
        check_turn_request(request, bounds)
    except InvalidArgument as error:
        for violation in error.violations:
            said = {"sampling.max_output_tokens": "max_tokens", "choices": "n"}.get(violation.field)
            if said in found.fields():
                continue  # by the name that the caller used
            found.add(param_of(violation.field), violation.description)
    except MessageTooLarge:
        pass  # said once the rest is right


_SAMPLING = {"sampling.max_output_tokens": "max_completion_tokens"}
_ITEM = re.compile(
    r"(?P<list>messages\[\d+\]\.(?:parts|tool_calls)|tools)(?P<index>\[\d+\])(?P<rest>(?:\.name|\.text|\.image_url|\.input_audio|\.file).*)"
)


def param_of(field: str) -> str:
    """Returns the name that a field of `TurnRequest` has in this API."""
    if field in ("agent_id", "agent_revision"):
        return "model"
    if field == "choices":
        return "n"
    if field == "request_id":
        return "Idempotency-Key"
    if field.startswith("sampling."):
        return _SAMPLING.get(field, field.removeprefix("sampling."))
    item = _ITEM.fullmatch(field)
    if item is None:
        return field.replace(".parts", ".content")
    if item["list"].endswith(("tools", "tool_calls")):
        return f"{item['list']}{item['index']}.function{item['rest']}"
    rest = item["rest"].removeprefix(".")
    return f"{item['list'].removesuffix('parts')}content{item['index']}.{PART_FIELDS.get(rest, rest)}"


def named_agent(name: str, found: Violations) -> tuple[str, int]:
    """Returns the id and the revision (0: the current one) that a model's name means; notes violations."""
    agent_id, at, number = name.partition("@")
    if not at:
        return agent_id, 0
    if not is_resource_id(agent_id):
        return name, 0
    if not (number.isascii() and number.isdigit() and len(number) < 19 and int(number) > 0):
        if is_resource_id(number):
            rule = "would be a release, and agents have none yet: name a revision, as in support@3"
            found.add("model", f"{number!r} {rule}")
            return agent_id, 0
        found.add("model", "must be the id of an agent, or its id and a revision, such as support@3")
        return agent_id, 0
    return agent_id, int(number)


def opaque_user(user: str, found: Violations) -> str:
    """Returns the user id for OpenAI's `user`: the text itself if it is a valid id, a digest otherwise.

    Different texts are different users: a text that reads like such a digest is digested, too.
    """
    if len(user) > MAX_USER_CHARACTERS:
        found.add("user", f"must have at most {MAX_USER_CHARACTERS} characters")
        return ""
    if is_user_id(user) and not _DIGESTED_USER.fullmatch(user):
        return user
    return f"user-{hashlib.sha256(user.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _agreed(field: str, in_body: str | None, in_header: str, found: Violations) -> str:
    if in_body and in_header and in_body != in_header:
        found.add(field, "must be the same in the body and in the header")
    return in_body or in_header


def _refuse_unsupported(chat: ChatCompletionRequest, found: Violations) -> None:
    _check_numbers(chat, found)
    if chat.stream_options is not None and not chat.stream:
        found.add("stream_options", "needs stream")
    elif chat.stream_options is not None and chat.stream_options.include_obfuscation:
        found.add("stream_options.include_obfuscation", "is not supported: chunks are not padded")
    for field in ("functions", "function_call"):
        if getattr(chat, field) is not None:
            found.add(field, "is not supported: use tools and tool_choice")
    if chat.audio is not None:
        found.add("audio", "is not supported: answers are text")
    if chat.modalities is not None and chat.modalities != ["text"]:
        found.add("modalities", 'must be ["text"]: answers are text')
    for index, message in enumerate(chat.messages):
        if message.function_call is not None:
            found.add(f"messages[{index}].function_call", "is not supported: use tool_calls")


def _check_numbers(chat: ChatCompletionRequest, found: Violations) -> None:
    if chat.n is not None and not 1 <= chat.n <= MAX_CHOICES:
        found.add("n", f"must be from 1 to {MAX_CHOICES}")
    elif chat.n is not None and chat.n > 1 and chat.store is not False:
        found.add("n", "must be 1 in a session, where a turn has one answer: set store to false")
    for field in ("seed", "max_tokens", "max_completion_tokens"):
        number = getattr(chat, field)
        if number is not None and not -(2**63) <= number < 2**63:
            found.add(field, "must be a number of 64 bits")
    if chat.max_tokens is not None:
        if chat.max_completion_tokens not in (None, chat.max_tokens):
            found.add("max_tokens", "must not differ from max_completion_tokens")
        elif -(2**63) <= chat.max_tokens < 1 and chat.max_completion_tokens is None:
            found.add("max_tokens", "must be at least 1")


def _sampling(chat: ChatCompletionRequest) -> model.Sampling:
    limit = chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens
    given = (chat.temperature, chat.top_p, limit, chat.stop, chat.seed, chat.presence_penalty, chat.frequency_penalty)
    if given == _NOTHING:
        return _DEFAULT_SAMPLING
    return model.Sampling(
        temperature=chat.temperature,
        top_p=chat.top_p,
        max_output_tokens=limit,
        stop=(chat.stop,) if isinstance(chat.stop, str) else tuple(chat.stop or ()),
        seed=chat.seed,
        presence_penalty=chat.presence_penalty,
        frequency_penalty=chat.frequency_penalty,
    )


def _tools(tools: list[Tool], found: Violations, nested: NestedFields) -> tuple[model.Tool, ...]:
    converted = []
    for index, tool in enumerate(tools):
        function = tool.function
        if tool.type != "function":
            found.add(f"tools[{index}].type", "must be function")
            continue
        if function is None:
            found.add(f"tools[{index}].function", "is required")
            continue
        if function.parameters:
            check_free_form(function.parameters, f"tools[{index}].function.parameters")
        converted.append(
            model.Tool(
                name=function.name,
                description=function.description or "",
                parameters=function.parameters,
                strict=function.strict is True,
                extra=extra_of(nested, f"tools[{index}]", ("function",)),
            )
        )
    return tuple(converted)


def _tool_choice(choice: str | ToolChoice, found: Violations) -> str:
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            found.add("tool_choice", "must be auto, none, required, or an object that names a function")
        return choice
    if choice.type == "allowed_tools" and choice.allowed_tools is not None:
        return choice.allowed_tools.mode
    if choice.type != "function" or choice.function is None:
        found.add("tool_choice", "must name a function, or the allowed tools")
        return ""
    if choice.function.name in ("auto", "none", "required"):
        found.add("tool_choice.function.name", "is a reserved word: give the tool another name")
    return choice.function.name


def _allowed_tools(choice: str | ToolChoice | None, found: Violations) -> frozenset[str]:
    if not isinstance(choice, ToolChoice) or choice.type != "allowed_tools" or choice.allowed_tools is None:
        return frozenset()
    allowed = choice.allowed_tools
    if allowed.mode not in ("auto", "required"):
        found.add("tool_choice.allowed_tools.mode", "must be auto or required")
    if not allowed.tools:
        found.add("tool_choice.allowed_tools.tools", "must not be empty: tool_choice none allows none")
    for index, tool in enumerate(allowed.tools):
        if tool.type != "function":
            found.add(f"tool_choice.allowed_tools.tools[{index}].type", "must be function")
    return frozenset([tool.function.name for tool in allowed.tools])
