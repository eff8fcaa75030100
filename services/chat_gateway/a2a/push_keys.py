"""The keys of push notifications: how they are signed, and how what callers trust Parley with is kept."""

import hashlib
import hmac
import json
import os
from typing import Any, Final

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from jwt.algorithms import ECAlgorithm

_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""That of P-256, whose private keys are below it."""
_PLAIN, _SEALED = b"\0", b"\1"
_NONCE_BYTES: Final = 12


class PushKeys:
    """One key that signs (ES256), the same for every gateway that is given the same secret, and one that seals."""

    def __init__(self, secret: bytes) -> None:
        """Without a secret, a key of this process signs, and nothing is sealed."""
        self._seal = AESGCM(_derived(secret, b"seal")) if secret else None
        self._key = _signing_key(secret or os.urandom(32))
        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        named = {name: public[name] for name in ("crv", "kty", "x", "y")}
        thumbprint = hashlib.sha256(json.dumps(named, separators=(",", ":"), sort_keys=True).encode()).digest()
        self._public = {**named, "kid": thumbprint.hex()[:32], "use": "sig", "alg": "ES256"}

    @property
    def jwks(self) -> dict[str, Any]:
        """What receivers verify signatures with (RFC 7517)."""
        return {"keys": [self._public]}

    def sign(self, claims: dict[str, Any]) -> str:
        """Returns a signed JSON Web Token (RFC 7519)."""
        return jwt.encode(claims, self._key, "ES256", headers={"kid": self._public["kid"]})

    def seal(self, content: bytes, place: str) -> bytes:
        """Returns the content as it is kept at this place, and nowhere else."""
        if self._seal is None:
            return _PLAIN + content
        nonce = os.urandom(_NONCE_BYTES)
        return _SEALED + nonce + self._seal.encrypt(nonce, content, place.encode())

    def open(self, kept: bytes, place: str) -> bytes | None:
        """Returns the content; None for one that was sealed with another key."""
        if kept[:1] == _PLAIN:
            return kept[1:]
        if self._seal is None or kept[:1] != _SEALED:
            return None
        nonce, sealed = kept[1 : 1 + _NONCE_BYTES], kept[1 + _NONCE_BYTES :]
        try:
            return self._seal.decrypt(nonce, sealed, place.encode())
        except (InvalidTag, ValueError):
            return None


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hmac.new(secret, b"parley push notifications v1 " + purpose, hashlib.sha256).digest()


def _signing_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    wide = _derived(secret, b"sign 1") + _derived(
        secret, b"sign 2"
    )  # twice as wide as the order: no number is favoured
    return ec.derive_private_key(int.from_bytes(wide, "big") % (_ORDER - 1) + 1, ec.SECP256R1())
