"""A request for a response as a turn."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from access.binding import bound_user
from access.caller import Caller
from chat_gateway.http_edge.openai.chat.request import named_agent, opaque_user
from chat_gateway.http_edge.openai.responses import request_schema as shapes
from chat_gateway.http_edge.openai.responses.echo import RequestEcho
from chat_gateway.http_edge.openai.responses.ids import TurnRef, parse_item_id, parse_response_id
from chat_gateway.http_edge.openai.responses.input_items import InputMessages
from chat_gateway.http_edge.openai.responses.options import Options
from chat_gateway.http_edge.openai.responses.request_schema import ResponseRequest
from chat_gateway.http_edge.openai.responses.shapes import Findings, decoded, shaped
from chat_gateway.http_edge.wire.auth import named_project
from chat_gateway.http_edge.wire.bodies import check_width, decode
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.model import turn as model
from chat_gateway.model.history import has_answers
from chat_gateway.model.not_found import ModelNotFound
from chat_gateway.model.rules import DEFAULT_BOUNDS, RequestBounds, check_turn_request
from contract.enums import BusyPolicy, HistoryPolicy, Role
from contract.fields import is_resource_id
from servicekit.errors import InvalidArgument, MessageTooLarge
from servicekit.values import value

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_DECODERS: Final = {field.name: msgspec.json.Decoder(field.type) for field in msgspec.structs.fields(ResponseRequest)}
_BUSY: Final = {policy.value: policy for policy in BusyPolicy}
_HISTORY: Final = {policy.value: policy for policy in HistoryPolicy}
_CONVERSATION_RULE: Final = "must be the id of a conversation, or an object with its id"


class FieldNames:
    """Gives the fields of a turn the names that they have in a request for a response, once it is read."""

    def __init__(self, field: str = "input") -> None:
        self._field = field
        self.session = "conversation"
        self.items: InputMessages | None = None
        """None where the input is a text."""

    def param_of(self, field: str) -> str:
        """Returns the caller's name for a field of `TurnRequest`, or of a chat completion."""
        if (item := _ITEM.match(field)) is not None:
            return self._of_item(item["list"], int(item["index"]), item["rest"])
        if field == "session_id":
            return self.session
        if field in ("messages", "approvals"):
            return self._field
        return _NAMES.get(field, field.removeprefix("sampling."))

    def _of_item(self, name: str, index: int, rest: str) -> str:
        if name == "tools":
            return f"tools[{index}]{rest}"
        items = self.items
        if items is None:
            return self._field
        places = items.places if name == "messages" else items.approval_places
        place = places[index] if index < len(places) else len(places)
        if name == "approvals":
            return f"{self._field}[{place}]{_APPROVAL_FIELDS.get(rest, rest)}"
        call = _CALL.fullmatch(rest)
        rest = f".{call['field']}" if call else rest.replace(".parts", ".content")
        return f"{self._field}[{place}]{_MESSAGE_FIELDS.get(rest, rest)}"


_ITEM: Final = re.compile(r"(?P<list>messages|approvals|tools)\[(?P<index>\d+)\](?P<rest>.*)", re.DOTALL)
_CALL: Final = re.compile(r"\.tool_calls\[\d+\]\.(?P<field>.*)")
_MESSAGE_FIELDS: Final = {".tool_call_id": ".call_id", ".id": ".call_id"}
_APPROVAL_FIELDS: Final = {".tool_call_id": ".approval_request_id", ".note": ".reason"}
_NAMES: Final = {
    "agent_id": "model",
    "agent_revision": "model",
    "request_id": "Idempotency-Key",
    "sampling.max_output_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "logprobs": "include",
}


@value
class AskedResponse:
    """A request for a response, read: the turn, and what the answer repeats and shows of it."""

    turn: model.TurnRequest
    echo: RequestEcho
    streamed: bool


def read_response_request(
    body: bytes,
    headers: TurnHeaders,
    caller: Caller,
    bounds: RequestBounds = DEFAULT_BOUNDS,
    names: FieldNames | None = None,
) -> AskedResponse:
    """Returns what is asked for, bound to `caller`.

    Raises `MalformedBody` unless it is a JSON object, `InvalidArgument` with every violation otherwise, `ModelNotFound`
    where nothing but the model is wrong; `ProjectDenied` and `UserDenied`.
    """
    check_width(body, items="input")
    said = decode(_fields, body)
    found = Findings()
    asked = _request(said, found)
    return _Reader(asked, said.keys(), headers, caller, found, names or FieldNames()).read(bounds)


def _request(said: Mapping[str, msgspec.Raw], found: Findings) -> ResponseRequest:
    good: dict[str, Any] = {"model": ""}
    if "model" not in said:
        found.add("model", "is required")
    for name, raw in said.items():
        if (decoder := _DECODERS.get(name)) is None:
            found.refuse(name[:64], "is not a field of this method")
        elif (value := decoded(decoder, raw, name, found)) is not None:
            good[name] = value
    return ResponseRequest(**good)


class _Reader:
    """Reads one request."""

    def __init__(
        self,
        asked: ResponseRequest,
        given: Any,
        headers: TurnHeaders,
        caller: Caller,
        found: Findings,
        names: FieldNames,
    ) -> None:
        self._asked = asked
        self._given = given
        self._headers = headers
        self._caller = caller
        self._found = found
        self._names = names

    def read(self, bounds: RequestBounds) -> AskedResponse:
        asked, headers, found = self._asked, self._headers, self._found
        project = named_project(self._caller, headers.project)
        before = found.fields()
        agent_id, revision = named_agent(asked.model, found) if asked.model else ("", 0)
        self._refuse_unsupported()
        items = self._items()
        session_id, previous = self._session()
        self._check_references(items, session_id)
        options = Options(asked, found)
        opaque = opaque_user(asked.user, found) if asked.user else ""
        messages = tuple(items.messages)
        echo = options.echo(asked.previous_response_id or "")
        echo.developers = items.developers
        request = model.TurnRequest(
            project=project,
            agent_id=agent_id,
            agent_revision=revision,
            messages=messages,
            session_id=session_id,
            session_must_exist=bool(session_id) and (previous is not None or session_id.startswith("conv_")),
            after_turn=previous.turn_id if previous is not None else "",
            user_id=bound_user(self._caller, headers.user_id or opaque),
            store=asked.store,
            stateless=asked.store is False,
            busy=self._busy(),
            history=self._history(messages, session_id),
            request_id=headers.request_id,
            resumable=asked.resumable is True or asked.background is True,
            background=asked.background is True,
            on_disconnect=(
                model.OnDisconnect.FINISH if asked.resumable or asked.background else model.OnDisconnect.CANCEL
            ),
            sampling=options.sampling,
            tools=options.tools,
            allowed_tools=options.allowed_tools,
            tool_choice=options.tool_choice,
            response_format=options.response_format,
            instructions=asked.instructions or "",
            extra=options.extra,
            metadata=asked.metadata or {},
            approvals=tuple(items.approvals),
            notes=echo.encoded(),
            lists_tools=not items.knows_tools,
        )
        is_no_agent = bool(agent_id) and not is_resource_id(agent_id)
        if found or is_no_agent:
            self._check_the_rest(request, bounds, "model" in before)
        if is_no_agent and found.fields() == {"model"}:
            raise ModelNotFound(asked.model)
        found.check()
        return AskedResponse(request, echo, asked.stream is True)

    def _refuse_unsupported(self) -> None:
        asked, found = self._asked, self._found
        for field, instead in shapes.UNSUPPORTED.items():
            if getattr(asked, field) is not None:
                found.refuse(field, f"is not supported{instead}")
        if asked.background and asked.store is False:
            found.add("background", "needs store: the response is read later")
        if asked.stream_options is not None:
            options = shaped(shapes.StreamOptions, asked.stream_options, "stream_options", found)
            if not asked.stream:
                found.add("stream_options", "needs stream")
            if options is not None and options.include_obfuscation:
                found.refuse("stream_options.include_obfuscation", "is not supported: events are not padded")

    def _items(self) -> InputMessages:
        items, given = InputMessages(self._found), self._asked.input
        if isinstance(given, str):
            if "input" not in self._given:
                self._found.add("input", "is required")
            items.messages.append(model.Message(Role.USER, given))
            items.places.append(0)
            return items
        self._names.items = items
        items.add_all(given)
        if not given:
            self._found.add("input", "must have at least one item")
        elif not (items.messages or items.approvals or items.references or self._found):
            self._found.add("input", "must have an item that the model is shown")
        return items

    def _check_references(self, items: InputMessages, session_id: str) -> None:
        """What the session has, its agent is shown anyway; no other item is looked up."""
        for number, item_id in items.references.items():
            ref = parse_item_id(item_id)
            if ref is None or not session_id or ref.turn.session_id != session_id:
                rule = "is not supported for an item that the conversation does not have: give the item itself"
                self._found.refuse(f"input[{number}].id", rule)

    def _session(self) -> tuple[str, TurnRef | None]:
        """Returns the session to continue, and the turn to go on from."""
        asked, found, headers = self._asked, self._found, self._headers
        session_id, previous = "", None
        if isinstance(asked.conversation, str):
            session_id = asked.conversation
        elif asked.conversation is not None:
            ref = shaped(shapes.ConversationRef, asked.conversation, "conversation", found)
            session_id = ref.id if ref is not None else ""
        if (
            asked.conversation is not None
            and not session_id
            and not any(field.startswith("conversation") for field in found.fields())
        ):
            found.add("conversation", _CONVERSATION_RULE)
        if headers.session_id and session_id and headers.session_id != session_id:
            found.add("conversation", "must be the same in the body and in X-Session-ID")
        session_id = session_id or headers.session_id
        if asked.previous_response_id:
            self._names.session = "previous_response_id"
            previous = parse_response_id(asked.previous_response_id)
            if asked.conversation is not None:
                found.add("previous_response_id", "must not be given with a conversation")
            if previous is None or not previous.session_id:
                found.add("previous_response_id", "must be the id of a response that is stored")
            elif headers.session_id and headers.session_id != previous.session_id:
                found.add("previous_response_id", "must be of the session in X-Session-ID")
            else:
                session_id = previous.session_id
        if session_id and asked.store is False:
            found.add("store", "must not be false with a conversation or a previous response")
        return session_id, previous

    def _busy(self) -> BusyPolicy:
        # OpenAI's clients repeat a 409 by themselves, at the time that it names.
        named = self._headers.busy or "reject"
        if named not in _BUSY:
            self._found.add("X-Session-Busy", "must be wait, reject or interrupt")
        return _BUSY.get(named, BusyPolicy.REJECT)

    def _history(self, messages: tuple[model.Message, ...], session_id: str) -> HistoryPolicy | None:
        named = self._headers.history
        if named and named not in _HISTORY:
            self._found.add("X-Session-History", "must be match, replace or append")
        if named:
            return _HISTORY.get(named)
        # Items of the assistant's are more of the conversation, and no transcript of it.
        return HistoryPolicy.APPEND if session_id and has_answers(messages) else None

    def _check_the_rest(self, request: model.TurnRequest, bounds: RequestBounds, model_noted: bool) -> None:
        """Notes what the rules of turns would refuse next, so that the caller learns everything at once."""
        try:
            check_turn_request(request, bounds)
        except InvalidArgument as error:
            noted = self._found.fields()
            if any(field.startswith("input[") for field in noted):
                noted.add("input")  # what is wrong with an item is said: it is no message
            for violation in error.violations:
                name = self._names.param_of(violation.field)
                if name not in noted and not (name == "model" and model_noted):
                    self._found.add(name, violation.description)
        except MessageTooLarge:
            pass  # said once the rest is right
