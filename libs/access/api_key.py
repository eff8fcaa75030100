"""The format of API keys: `parley_sk_`, 35 characters of secret, 8 of mark, 6 of checksum.

The checksum (CRC-32 of everything before it) is no protection, since anybody can compute it: it distinguishes typos and
truncated keys from invalid ones, and rejects garbage without a look-up. The mark (HMAC-SHA256 of everything before it,
under a secret of the installation) proves that a key was created here, whether or not it is still valid. Keys of
releases before the mark, and those created under another secret, have a secret of 43 characters and no mark: they may
be valid, but cannot be told from made-up keys.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from typing import Final

PREFIX: Final = "parley_sk_"
"""The prefix of every key, so that secret scanners can recognise it."""

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET: Final = 35  # 62**35 is more than 2**208
_MARK: Final = 8  # 62**8 is more than 2**47: each try is a call
_CHECKSUM: Final = 6
_FORM: Final = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_SECRET + _MARK + _CHECKSUM}}}")


def mark_secret_of(operator_key: str) -> bytes:
    """Returns the secret for an installation's marks, derived from the operator key that all services share."""
    return hmac.new(operator_key.encode(), b"parley api key mark v1", hashlib.sha256).digest()


def new_api_key(mark_secret: bytes | None = None) -> str:
    """Returns a new key with at least 208 random bits; without a secret its mark is random, too."""
    body = PREFIX + "".join(secrets.choice(_DIGITS) for _ in range(_SECRET))
    body += _in_digits(secrets.randbits(64), _MARK) if mark_secret is None else _mark(body, mark_secret)
    return body + _checksum(body)


def is_api_key(text: str) -> bool:
    """Returns whether `text` has the format and checksum of a key, not whether such a key exists."""
    return _FORM.fullmatch(text) is not None and text[-_CHECKSUM:] == _checksum(text[:-_CHECKSUM])


def is_made_here(key: str, mark_secret: bytes) -> bool:
    """Returns whether a well-formed key carries the mark of this installation."""
    marked = key[: -_MARK - _CHECKSUM]
    return hmac.compare_digest(key[len(marked) : -_CHECKSUM], _mark(marked, mark_secret))


def digest_of(credential: bytes) -> bytes:
    """Returns what represents a credential in memory: its SHA-256.

    Looked up in a dictionary it takes the same time for every wrong credential, as far as its bytes are concerned:
    what the digest of a guess begins with can't be chosen.
    """
    return hashlib.sha256(credential).digest()


def _mark(body: str, mark_secret: bytes) -> str:
    digest = hmac.new(mark_secret, body.encode("ascii"), hashlib.sha256).digest()
    return _in_digits(int.from_bytes(digest[:8], "big"), _MARK)


def _checksum(body: str) -> str:
    return _in_digits(zlib.crc32(body.encode("ascii")), _CHECKSUM)


def _in_digits(number: int, count: int) -> str:
    """The `count` lowest digits of a number."""
    digits = ""
    for _ in range(count):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
