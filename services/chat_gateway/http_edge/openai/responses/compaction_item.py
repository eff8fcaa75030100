"""The opaque item that stands for a conversation which was made shorter. Its content is not secret."""

import base64
import binascii
from typing import Final

import msgspec

from chat_gateway.http_edge.openai.responses.answer_schema import Item
from chat_gateway.http_edge.openai.responses.ids import TurnRef
from chat_gateway.model.turn import Message
from contract.enums import Role

SUMMARY: Final = "Summary of the conversation so far:\n\n"
"""What such an item begins with where a model is shown it."""


class _Content(msgspec.Struct):
    summary: str


_decode = msgspec.json.Decoder(_Content).decode


def summary_item(ref: TurnRef, summary: str) -> Item:
    """Returns the item that stands for a conversation."""
    content = base64.urlsafe_b64encode(msgspec.json.encode(_Content(summary))).decode()
    return {"type": "compaction", "id": ref.item_id("cmp", "0"), "encrypted_content": content}


def summary_message(encrypted_content: str) -> Message | None:
    """Returns what a model is shown of such an item; None for one that is none of ours."""
    try:
        summary = _decode(base64.urlsafe_b64decode(encrypted_content)).summary
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        return None
    return Message(Role.USER, SUMMARY + summary) if summary else None
