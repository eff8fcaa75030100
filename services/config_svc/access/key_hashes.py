"""Hashes of API keys: HMAC-SHA256 under a secret that, if configured, is not in the database."""

import hashlib
import hmac
from collections.abc import Sequence


class KeyHashes:
    """Hashes keys under the first and newest of several secrets, and recognises hashes under any of them."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)

    def of(self, key: str) -> bytes:
        """Returns the hash to store of a new key."""
        return _hash(self._secrets[0], key)

    def candidates(self, key: str) -> Sequence[bytes]:
        """Returns the possible stored hashes of a key, that of the newest secret first."""
        return [_hash(secret, key) for secret in self._secrets]

    def outdated(self, stored: bytes, key: str) -> bytes | None:
        """Returns the hash under the newest secret, if the stored one is under another secret."""
        newest = self.of(key)
        return None if hmac.compare_digest(newest, stored) else newest


def same(candidates: Sequence[bytes], stored: bytes) -> bool:
    """Returns whether the stored hash is one of them, in constant time."""
    return any([hmac.compare_digest(candidate, stored) for candidate in candidates])  # noqa: C419 - all are compared


def _hash(secret: bytes, key: str) -> bytes:
    return hmac.new(secret, key.encode(), hashlib.sha256).digest()
