"""A request id that was taken."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """A request id and what its first request made (AIP-155). `fingerprint` is a digest of the request's content."""

    request_id: str
    fingerprint: str
    uid: str
    resource_id: str
    create_time: datetime
