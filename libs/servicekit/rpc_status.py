"""`ServiceError` to and from gRPC's rich status (`google.rpc.Status`, AIP-193)."""

import math
import re
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped, unused-ignore]

from servicekit.errors import (
    DOMAIN,
    Code,
    DeadlineExceeded,
    Internal,
    MessageTooLarge,
    RemoteError,
    ServiceError,
    Unavailable,
    UnknownMethod,
    Violation,
)

DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata entry that carries the serialized `google.rpc.Status`."""

# A status travels in HTTP/2 trailers, which a peer with default settings cuts at 8 KiB: base64 makes 4 bytes of 3, and
# the message travels a second time, percent-encoded.
_MESSAGE_BYTES = 768
_DETAILS_BYTES = 3 * 1024
_DESCRIPTION_BYTES = 256

# grpcio's own words: nothing else distinguishes these two.
_TOO_LARGE = re.compile(r"message larger than max \(\d+ vs\. (\d+)\)")
_OVERLOAD_PAUSE = 0.5


def to_status(error: ServiceError) -> status_pb2.Status:
    """Returns the status that carries all of `error`, small enough for any peer's header limit.

    Violations beyond the limit are counted in a last one instead of being listed. `RetryInfo` is there only when
    `retry_after` is.
    """
    status = status_pb2.Status(code=error.code.value, message=_cut(error.message, _MESSAGE_BYTES))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=error.domain)
    for key, value in error.metadata.items():
        info.metadata[key] = _cut(value, _DESCRIPTION_BYTES)
    status.details.add().Pack(info)
    if error.retry_after is not None and math.isfinite(error.retry_after):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(math.ceil(max(error.retry_after, 0.0) * 1e9))
        status.details.add().Pack(retry)
    if error.quota_subject is not None:
        quota = error_details_pb2.QuotaFailure()
        quota.violations.add(
            subject=_cut(error.quota_subject, _DESCRIPTION_BYTES), description=_cut(error.message, _DESCRIPTION_BYTES)
        )
        status.details.add().Pack(quota)
    if error.violations:
        status.details.add().Pack(_bad_request(error.violations, _DETAILS_BYTES - status.ByteSize()))
    return status


def to_grpc_status(error: ServiceError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Returns code, details and trailing metadata, the three arguments of `ServicerContext.abort`."""
    status = to_status(error)
    return STATUS_CODES[error.code], status.message, ((DETAILS_KEY, status.SerializeToString()),)


def from_rpc_error(error: grpc.aio.AioRpcError, peer: str = "the peer") -> ServiceError:
    """Returns what a failed call means to the caller; `peer` is the name the error will use for the other side.

    An error that Parley made comes back whole, as `RemoteError`. Anything else was made on the way: `Unavailable`,
    `DeadlineExceeded`, `MessageTooLarge`, `UnknownMethod`, or `Internal` without the foreign text.
    """
    remote = _remote_error(error)
    if remote is not None:
        return remote
    code = error.code()
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return Unavailable(peer)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{peer} did not answer before the deadline")
        case grpc.StatusCode.CANCELLED:
            return Unavailable(peer)  # it was ended by a peer that stops: another replica may take it
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return _exhausted(error.details() or "", peer)
        case grpc.StatusCode.UNIMPLEMENTED:
            return UnknownMethod(peer)  # grpcio's own answer: the peer is of another release
        case _:
            return Internal(f"{peer} answered {code.name}")


STATUS_CODES: dict[Code, grpc.StatusCode] = {code: grpc.StatusCode[code.name] for code in Code}
"""grpcio's name for each canonical code."""


def _exhausted(details: str, peer: str) -> ServiceError:
    too_large = _TOO_LARGE.search(details)
    if too_large is not None:
        return MessageTooLarge(f"the message is larger than {peer} takes or may send", limit=int(too_large[1]))
    if "Concurrent RPC limit exceeded" in details:
        return Unavailable(peer, retry_after=_OVERLOAD_PAUSE)
    return Internal(f"{peer} answered RESOURCE_EXHAUSTED")


def from_status(data: bytes) -> ServiceError:
    """Returns the error of a serialized status that a peer of ours sent outside of a call's trailers."""
    try:
        status = status_pb2.Status.FromString(data)
    except DecodeError:
        return Internal("the peer answered a failure that can't be read")
    return _from_status(status) or Internal(f"the peer answered code {status.code}")


def _remote_error(error: grpc.aio.AioRpcError) -> RemoteError | None:
    status = _status_of(error)
    return None if status is None else _from_status(status)


def _from_status(status: status_pb2.Status) -> RemoteError | None:
    info = error_details_pb2.ErrorInfo()
    if not _unpack(status.details, info) or info.domain != DOMAIN:
        return None
    bad_request = error_details_pb2.BadRequest()
    _unpack(status.details, bad_request)
    retry = error_details_pb2.RetryInfo()
    has_retry = _unpack(status.details, retry)
    quota = error_details_pb2.QuotaFailure()
    _unpack(status.details, quota)
    return RemoteError(
        status.message,
        code=Code(status.code),
        reason=info.reason,
        metadata=dict(info.metadata),
        violations=[Violation(v.field, v.description) for v in bad_request.field_violations],
        retry_after=retry.retry_delay.ToNanoseconds() / 1e9 if has_retry else None,
        quota_subject=quota.violations[0].subject if quota.violations else None,
    )


def _status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    trailing: Any = error.trailing_metadata()
    for key, value in trailing or ():
        if key == DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _unpack(details: Iterable[AnyMessage], into: Message) -> bool:
    for detail in details:
        if detail.TypeName() == into.DESCRIPTOR.full_name:
            try:
                return detail.Unpack(into)
            except DecodeError:
                return False
    return False


def _bad_request(violations: tuple[Violation, ...], limit: int) -> error_details_pb2.BadRequest:
    bad_request = error_details_pb2.BadRequest()
    for listed, violation in enumerate(violations):
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field, _DESCRIPTION_BYTES),
            description=_cut(violation.description, _DESCRIPTION_BYTES),
        )
        if listed and bad_request.ByteSize() + entry.ByteSize() > limit:
            left_out = sum(violation.count for violation in violations[listed:])
            bad_request.field_violations.add(description=f"and {left_out} more")
            break
        bad_request.field_violations.append(entry)
    return bad_request


def _cut(text: str, limit: int) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode("utf-8")
    return data[: limit - 3].decode("utf-8", "ignore") + "…"
