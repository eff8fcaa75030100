"""JSON merge patch (RFC 7396) of a resource with an etag."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from chat_gateway.http_edge.admin.routing import merged_etag
from chat_gateway.http_edge.wire.bodies import wrong_shape
from contract.reasons import Reason
from servicekit.errors import InvalidArgument, ServiceError, Violation

PATCH_ATTEMPTS = 5
"""How often a patch without an etag is tried while others write the same resource."""

J = TypeVar("J", bound=msgspec.Struct)
R = TypeVar("R")


class Identified(Protocol):
    """The message of a resource with an id and an etag."""

    id: str
    etag: str


M = TypeVar("M", bound=Identified)


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


def patched_message(
    current: M,
    resource_id: str,
    change: Mapping[str, Any],
    to_json: Callable[[M], J],
    to_message: Callable[[J], M],
    paths: Mapping[str, str],
) -> tuple[M, list[str]]:
    """Returns the resource with `change` applied, with its etag, and the mask of the fields that `change` names.

    `paths` maps the names of fields in JSON to their paths. Raises `MalformedBody`, and `InvalidArgument` for
    another id.
    """
    wanted = patched(to_json(current), change)
    mask = [path for name, path in paths.items() if name in change]
    if not mask:
        return current, mask
    message = to_message(wanted)
    set_id(message, resource_id)
    message.etag = current.etag
    return message, mask


def set_id(message: Identified, resource_id: str) -> None:
    """Sets the id from the request's path. Raises `InvalidArgument` where the body has another."""
    if message.id and message.id != resource_id:
        raise InvalidArgument([Violation("id", "can't be changed")])
    message.id = resource_id


async def write_patch(
    change: Mapping[str, Any], if_match: str | None, read_and_write: Callable[[str], Awaitable[R]]
) -> R:
    """Returns what `read_and_write` does, which gets the etag that the caller asks for, or "".

    Without one it is called again after a concurrent write, at most `PATCH_ATTEMPTS`
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
