"""The items of a conversation: the content of its turns, with ids that contain their positions."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from chat_gateway.admission import new_turn_id
from chat_gateway.convert.messages import message_to_proto, turn_from_proto
from chat_gateway.convert.times import to_timestamp
from chat_gateway.http_edge.admin.responses.pages import page_of
from chat_gateway.http_edge.dependencies import Dependencies
from chat_gateway.http_edge.openai.responses.answer_schema import Item, ItemList
from chat_gateway.http_edge.openai.responses.echo import RequestEcho
from chat_gateway.http_edge.openai.responses.ids import ItemRef, parse_item_id
from chat_gateway.http_edge.openai.responses.input_items import InputMessages
from chat_gateway.http_edge.openai.responses.request import FieldNames
from chat_gateway.http_edge.openai.responses.shapes import Findings
from chat_gateway.http_edge.openai.responses.stored_items import input_items, turn_items
from chat_gateway.model.history import EMPTY, grown
from chat_gateway.model.not_found import ConversationItemNotFound, ConversationNotFound
from chat_gateway.model.rules import check_turn_request
from chat_gateway.model.turn import Message, TurnRequest
from contract.reasons import Reason
from parley.session.v1 import message_pb2, turn_service_pb2
from parley.session.v1 import session_service_pb2 as pb
from servicekit.errors import InvalidArgument, MessageTooLarge, ServiceError
from servicekit.values import value

MAX_ITEMS_ADDED = 100
_TURNS_A_READ = 50
_GONE = (Reason.SESSION_NOT_FOUND, Reason.TURN_NOT_FOUND, Reason.INVALID_FIELD)


@value
class GivenItems:
    """Items to add, as messages; `developers` as in `RequestEcho`."""

    messages: tuple[Message, ...]
    developers: list[int]


def messages_of(given: Sequence[dict[str, Any]], *, required: bool = False) -> GivenItems:
    """Returns items as messages. Raises `InvalidArgument` with every violation, `FieldsUnsupported`."""
    found = Findings()
    items, names = InputMessages(found, "items"), FieldNames("items")
    names.items = items
    if len(given) > MAX_ITEMS_ADDED or (required and not given):
        found.add("items", f"must have 1 to {MAX_ITEMS_ADDED} items")
        found.check()
    items.add_all(given)
    for number in items.references:
        found.refuse(f"items[{number}].type", "item_reference is not supported: give the item itself")
    if items.approvals:
        found.refuse("items", "is not supported with approvals: create a response with them")
    if items.messages:
        try:
            check_turn_request(TurnRequest("a", tuple(items.messages), session_id="s"))
        except InvalidArgument as error:
            for violation in error.violations:
                found.add(names.param_of(violation.field), violation.description)
        except MessageTooLarge:
            found.check()
            raise
    elif required and not found:
        found.add("items", "must have an item that a model is shown")
    found.check()
    return GivenItems(tuple(items.messages), items.developers)


class ConversationItems:
    """The items of one conversation."""

    def __init__(self, deps: Dependencies, project: str, session_id: str, user_id: str, *, keep: bool = False) -> None:
        self._deps = deps
        self._project = project
        self._session_id = session_id
        self._user_id = user_id
        self._keep = keep

    async def page(self, after: str, limit: int, *, newest_first: bool) -> ItemList:
        """Returns a page of items; what is read does not grow with the conversation. Raises `InvalidArgument`."""
        first = 0
        if after:
            ref = self._ref(after)
            first = (await self._turn(ref, after)).number
        found: list[Item] = []
        wanted = limit + 1
        async for items in self._turns(first, newest_first=newest_first):
            found += items
            seen = next((n for n, one in enumerate(found, 1) if one["id"] == after), 0) if after else 0
            if len(found) - seen >= wanted:
                break
        return page_of(found, after, limit)

    async def get(self, item_id: str) -> Item:
        """Returns an item. Raises `ConversationItemNotFound`."""
        turn = await self._turn(self._ref(item_id), item_id)
        items = turn_items(turn_from_proto(turn), self._session_id, keep=self._keep)
        found = next((item for item in items if item["id"] == item_id), None)
        if found is None:
            raise ConversationItemNotFound(item_id)
        return found

    async def add(self, given: GivenItems) -> ItemList:
        """Adds a turn that holds what others have said. Raises `RemoteError`: SESSION_BUSY, and others."""
        messages, turns, session_svc = given.messages, self._deps.stubs.turns, self._deps.session_svc
        begin = turn_service_pb2.BeginTurnRequest(
            project=self._project,
            session_id=self._session_id,
            session_must_exist=True,
            user_id=self._user_id,
            turn_id=new_turn_id(),
            busy=turn_service_pb2.BUSY_POLICY_REJECT,
        )
        begun = await session_svc.call(turns.BeginTurn, begin)
        now = to_timestamp(datetime.now(UTC))
        turn = message_pb2.Turn(
            id=begin.turn_id,
            messages=[message_to_proto(message) for message in messages],
            answer_start=len(messages),
            begin_time=now,
            end_time=now,
        )
        if given.developers:
            turn.request_notes = RequestEcho(developers=given.developers).encoded()
        commit = turn_service_pb2.CommitTurnRequest(lease=begun.lease, turn=turn, idle_ttl=begun.session.idle_ttl)
        digest = begun.history_digest or (b"" if begun.session.message_count else EMPTY)
        if digest:
            commit.history_digest = grown(digest, messages)
        try:
            await session_svc.call(turns.CommitTurn, commit)
        except BaseException:
            await session_svc.call(turns.AbortTurn, turn_service_pb2.AbortTurnRequest(lease=begun.lease))
            raise
        return page_of(input_items(turn_from_proto(turn), self._session_id), "", MAX_ITEMS_ADDED * 3)

    def _ref(self, item_id: str) -> ItemRef:
        ref = parse_item_id(item_id)
        if ref is None or ref.turn.session_id != self._session_id:
            raise ConversationItemNotFound(item_id)
        return ref

    async def _turn(self, ref: ItemRef, item_id: str) -> message_pb2.Turn:
        request = pb.GetTurnRequest(
            project=self._project, session_id=self._session_id, turn_id=ref.turn.turn_id, user_id=self._user_id
        )
        try:
            return (await self._deps.session_svc.call(self._deps.stubs.sessions.GetTurn, request)).turn
        except ServiceError as error:
            raise ConversationItemNotFound(item_id) if error.reason in _GONE else error from None

    async def _turns(self, first: int, *, newest_first: bool) -> AsyncIterator[list[Item]]:
        request = pb.ListMessagesRequest(
            project=self._project,
            session_id=self._session_id,
            user_id=self._user_id,
            page_size=_TURNS_A_READ,
            order=pb.ORDER_NEWEST_FIRST if newest_first else pb.ORDER_OLDEST_FIRST,
            from_turn=first,
        )
        while True:
            try:
                page = await self._deps.session_svc.call(self._deps.stubs.sessions.ListMessages, request)
            except ServiceError as error:
                gone = error.reason == Reason.SESSION_NOT_FOUND
                raise ConversationNotFound(self._session_id) if gone else error from None
            for turn in page.turns:
                items = turn_items(turn_from_proto(turn), self._session_id, keep=self._keep)
                yield items[::-1] if newest_first else items
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return
