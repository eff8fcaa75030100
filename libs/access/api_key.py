"""What an API key looks like: `parley_sk_`, 43 characters of secret, 6 of checksum.

The checksum (CRC-32 of all before it) protects nothing: it distinguishes a typo, or a key that was cut off, from a key
that is not valid any more, and refuses garbage without a look-up.
"""

import hashlib
import re
import secrets
import zlib
from typing import Final

PREFIX: Final = "parley_sk_"
"""Every key begins with it, so that scanners of repositories and logs can know one."""

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET: Final = 43  # 62**43 is more than 2**256
_CHECKSUM: Final = 6
_FORM: Final = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_SECRET + _CHECKSUM}}}")


def new_api_key() -> str:
    """Returns a fresh key of 256 bits of chance."""
    body = PREFIX + "".join(secrets.choice(_DIGITS) for _ in range(_SECRET))
    return body + _checksum(body)


def is_api_key(text: str) -> bool:
    """Returns whether `text` has the form of a key and its checksum is right; not whether there is such a key."""
    return _FORM.fullmatch(text) is not None and text[-_CHECKSUM:] == _checksum(text[:-_CHECKSUM])


def digest_of(credential: bytes) -> bytes:
    """Returns what represents a credential in memory: its SHA-256.

    Looked up in a dictionary it takes the same time for every wrong credential, as far as its bytes are concerned:
    what the digest of a guess begins with can't be chosen.
    """
    return hashlib.sha256(credential).digest()


def _checksum(body: str) -> str:
    rest, digits = zlib.crc32(body.encode("ascii")), ""
    for _ in range(_CHECKSUM):
        rest, digit = divmod(rest, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
