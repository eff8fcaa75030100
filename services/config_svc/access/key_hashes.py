"""What is kept of an API key: HMAC-SHA256 of it, under a secret that is not in the database, if it is set."""

import hashlib
import hmac
from collections.abc import Sequence


class KeyHashes:
    """Hashes keys under the newest of some secrets, and knows hashes under any of them. The newest is the first."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)

    def of(self, key: str) -> bytes:
        """Returns what is stored of a new key."""
        return _hash(self._secrets[0], key)

    def candidates(self, key: str) -> Sequence[bytes]:
        """Returns what may be stored of a key, by the newest secret first."""
        return [_hash(secret, key) for secret in self._secrets]

    def outdated(self, stored: bytes, key: str) -> bytes | None:
        """Returns the hash under the newest secret, when what is stored is under another one."""
        newest = self.of(key)
        return None if hmac.compare_digest(newest, stored) else newest


def same(candidates: Sequence[bytes], stored: bytes) -> bool:
    """Returns whether what is stored is one of them, in a time that does not depend on where they differ."""
    return any([hmac.compare_digest(candidate, stored) for candidate in candidates])  # noqa: C419 - all are compared


def _hash(secret: bytes, key: str) -> bytes:
    return hmac.new(secret, key.encode(), hashlib.sha256).digest()
