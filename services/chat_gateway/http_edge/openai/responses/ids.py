"""The ids of responses and of items. They contain what they name, so that no index is needed.

A response is `resp_TURN.SESSION`; of a stateless turn `resp_TURN`. An item is `KIND_PLACE.TURN.SESSION`, and its place
in the turn is always the same: while it is streamed, once it is stored, and on another gateway. A colon of the
session's id is written as `~`, which no such id has: in a path it would begin a custom verb.
"""

import base64
import binascii
import re
from typing import Final

from servicekit.values import value

_TURN: Final = r"(?P<turn>[A-Za-z0-9_-]{1,64})"
_SESSION: Final = r"(?:\.(?P<session>[A-Za-z0-9._~-]{1,128}))?"
_RESPONSE: Final = re.compile(rf"resp_{_TURN}{_SESSION}")
_ITEM: Final = re.compile(rf"(?P<kind>[a-z]{{2,8}})_(?P<place>[A-Za-z0-9_-]{{1,512}})\.{_TURN}{_SESSION}")

APPROVAL: Final = "mcpr"
"""The kind of the items that ask for an approval: their place is the id of the call."""


@value
class TurnRef:
    """A turn, and the session that has it: empty for a stateless one."""

    turn_id: str
    session_id: str

    @property
    def response_id(self) -> str:
        """The id of the turn as a response."""
        return f"resp_{self._suffix}"

    def item_id(self, kind: str, place: str) -> str:
        """Returns the id of an item of the turn."""
        return f"{kind}_{place}.{self._suffix}"

    def approval_id(self, call_id: str) -> str:
        """Returns the id of the item that asks for the approval of a call."""
        return self.item_id(APPROVAL, base64.urlsafe_b64encode(call_id.encode("utf-8", "replace")).decode().rstrip("="))

    @property
    def _suffix(self) -> str:
        return f"{self.turn_id}.{self.session_id.replace(':', '~')}" if self.session_id else self.turn_id


@value
class ItemRef:
    """An item: its kind, such as `msg`, its place within the turn, and the turn."""

    kind: str
    place: str
    turn: TurnRef


def parse_response_id(text: str) -> TurnRef | None:
    """Returns the turn of a response; None if it is not the id of a response."""
    found = _RESPONSE.fullmatch(text)
    return _turn(found) if found else None


def parse_item_id(text: str) -> ItemRef | None:
    """Returns what an item's id names; None for what is none."""
    found = _ITEM.fullmatch(text)
    return ItemRef(found["kind"], found["place"], _turn(found)) if found else None


def approved_call_id(text: str) -> str:
    """Returns the id of the call for which an item asks approval; empty if it is not the id of such an item."""
    item = parse_item_id(text)
    if item is None or item.kind != APPROVAL:
        return ""
    try:
        return base64.urlsafe_b64decode(item.place + "=" * (-len(item.place) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _turn(found: re.Match[str]) -> TurnRef:
    return TurnRef(found["turn"], (found["session"] or "").replace("~", ":"))
