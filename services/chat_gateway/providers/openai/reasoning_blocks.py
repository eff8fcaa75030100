"""Assembles the reasoning that providers need back from its streamed pieces."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

_TEXTS: Final = ("text", "summary", "thinking")
_TYPES: Final = frozenset({"reasoning.text", "reasoning.summary", "thinking"})
"""Blocks that come in pieces; others are whole."""
_decode = msgspec.json.Decoder(list[dict[str, Any]]).decode
_encode = msgspec.json.Encoder().encode


def joined_blocks(pieces: Sequence[bytes]) -> bytes:
    """Returns lists of pieces of blocks as one list of blocks: a signature is of the whole text of a block.

    Nothing for no pieces; pieces that are not what they should be stay as they came.
    """
    if len(pieces) < 2:
        return b"".join(pieces)
    blocks: list[dict[str, Any]] = []
    try:
        for piece in [one for listed in pieces for one in _decode(listed)]:
            if blocks and _goes_on(blocks[-1], piece):
                _add(blocks[-1], piece)
            else:
                blocks.append(piece)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return b"[%b]" % b",".join([listed[1:-1] for listed in pieces])
    return _encode(blocks)


def _goes_on(block: dict[str, Any], piece: dict[str, Any]) -> bool:
    if block.get("type") not in _TYPES or piece.get("type") != block["type"]:
        return False
    if block.get("index") != piece.get("index"):
        return False
    return not (block.get("signature") and any(piece.get(name) for name in _TEXTS))


def _add(block: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, said in piece.items():
        before = block.get(name)
        if name in _TEXTS and isinstance(before, str) and isinstance(said, str):
            block[name] = before + said
        elif said or before is None:
            block[name] = said
