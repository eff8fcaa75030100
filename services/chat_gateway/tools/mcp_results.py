"""MCP's results as text for the model: text as it is, everything else described."""

import json
from typing import Any

_MAX_COMPARED = 256 * 1024


def as_text(content: list[Any], structured: Any) -> str:
    """Returns the text of content blocks, and of structured content unless a text block says the same.

    Images, audio and binary resources are named by kind and size: a tool's result is text for every provider.
    """
    parts = [_block(block) for block in content]
    if structured is not None and not any(_says(block, structured) for block in content):
        parts.append(json.dumps(structured, ensure_ascii=False))
    return "\n".join([part for part in parts if part])


def _block(block: Any) -> str:
    match block.type:
        case "text":
            return str(block.text)
        case "image" | "audio":
            return f"[{block.type}, {block.mime_type}, about {len(block.data) * 3 // 4} bytes: not shown]"
        case "resource_link":
            described = f": {block.description}" if block.description else ""
            return f"[resource {block.name}, {block.mime_type or 'unknown type'}, at {block.uri}{described}]"
        case "resource":
            held = block.resource
            text = getattr(held, "text", None)
            if text is not None:
                return f"[resource {held.uri}]\n{text}"
            return (
                f"[resource {held.uri}, {held.mime_type or 'binary'}, about {len(held.blob) * 3 // 4} bytes: not shown]"
            )
    return f"[{block.type}: not shown]"


def _says(block: Any, structured: Any) -> bool:
    if block.type != "text" or len(block.text) > _MAX_COMPARED:
        return False
    if isinstance(structured, dict) and structured.keys() == {"result"}:
        return True  # how the SDK wraps values that are not objects, which the text has, too
    try:
        return bool(json.loads(block.text) == structured)
    except (ValueError, RecursionError):
        return False
