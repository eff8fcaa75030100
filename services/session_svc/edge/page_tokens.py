"""Page tokens: a position that belongs to one query."""

import base64
import binascii
import hashlib
import json

from session_svc.model.errors import InvalidPageToken


def query_digest(*query: object) -> str:
    """Returns the digest of a query, to which page tokens are bound."""
    return hashlib.sha256(repr(query).encode()).hexdigest()[:16]


def make_token(digest: str, position: list[int | str]) -> str:
    """Returns a token for a position in the query of this digest."""
    text = json.dumps([digest, *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(token: str, digest: str) -> list[int | str]:
    """Returns the position of a token. Raises `InvalidPageToken` for a token of another query."""
    try:
        read = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise InvalidPageToken from error
    if not isinstance(read, list) or not read or read[0] != digest:
        raise InvalidPageToken
    return read[1:]
