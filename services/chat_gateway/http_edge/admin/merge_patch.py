"""JSON merge patch (RFC 7396) of a resource with an etag."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from chat_gateway.http_edge.admin.routing import merged_etag
from chat_gateway.http_edge.wire.bodies import wrong_shape
from contract.reasons import Reason
from servicekit.errors import ServiceError

PATCH_ATTEMPTS = 5
"""How often a patch without an etag is tried while others write the same resource."""

J = TypeVar("J", bound=msgspec.Struct)
R = TypeVar("R")


def merge(target: Any, patch: Any) -> Any:
    """Returns `target` with `patch` applied: null removes, objects merge, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def patched(current: J, change: Mapping[str, Any]) -> J:
    """Returns `current` with `change` applied. Raises `MalformedBody` for unknown fields and wrong types."""
    unknown = [name for name in change if name not in current.__struct_fields__]
    if unknown:
        raise wrong_shape(f"Object contains unknown field `{unknown[0]}`")
    try:
        return msgspec.convert(merge(msgspec.to_builtins(current), change), type(current))
    except msgspec.ValidationError as error:
        raise wrong_shape(str(error)) from None


async def write_patch(
    change: Mapping[str, Any], if_match: str | None, read_and_write: Callable[[str], Awaitable[R]]
) -> R:
    """Returns what `read_and_write` does, which gets the etag that the caller asks for, or "".

    Without one it is called again where somebody wrote between its reading and its writing, at most `PATCH_ATTEMPTS`
    times. Raises `MalformedBody`, `InvalidArgument` for an etag that is none, and what `read_and_write` raises.
    """
    in_body = change.get("etag")
    if in_body is not None and not isinstance(in_body, str):
        raise wrong_shape("Expected `str` - at `$.etag`")
    etag = merged_etag(if_match, in_body)
    attempt = 1
    while True:
        try:
            return await read_and_write(etag)
        except ServiceError as error:
            if etag or error.reason != Reason.ETAG_MISMATCH or attempt == PATCH_ATTEMPTS:
                raise
        attempt += 1
