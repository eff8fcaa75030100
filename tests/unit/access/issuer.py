"""An identity provider on a real port, with real keys."""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "parley"


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Issuer:
    """Signs tokens, publishes its keys; `broken` makes it answer 500, `asked` counts what it was asked.

    `instead` makes what it answers to a request for its keys, `streamed` writes it. `first` is its first key, a new
    one by default.
    """

    def __init__(self, first: rsa.RSAPrivateKey | None = None) -> None:
        self.url = ""
        self.broken = False
        self.jwks_uri = ""
        self.instead: Callable[[], web.Response] | None = None
        self.streamed: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.asked: list[str] = []
        self.keys: dict[str, Any] = {"first": first or rsa_key()}

    def add_rsa(self, key_id: str) -> None:
        self.keys[key_id] = rsa_key()

    def add_ec(self, key_id: str) -> None:
        self.keys[key_id] = ec.generate_private_key(ec.SECP256R1())

    def token(self, key_id: str = "first", *, algorithm: str | None = None, **claims: Any) -> str:
        """A token that is good unless `claims` say otherwise; None leaves a claim out."""
        now = int(time.time())
        said = {"iss": self.url, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 60, "tenant": "acme"}
        said |= {"scope": "chat sessions:read operator"} | claims
        key = self.keys[key_id]
        algorithm = algorithm or ("ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256")
        payload = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(payload, key, algorithm=algorithm, headers={"kid": key_id})

    def jwks(self) -> dict[str, Any]:
        keys = []
        for key_id, key in self.keys.items():
            kind = (
                jwt.algorithms.ECAlgorithm
                if isinstance(key, ec.EllipticCurvePrivateKey)
                else jwt.algorithms.RSAAlgorithm
            )
            keys.append(json.loads(kind.to_jwk(key.public_key())) | {"kid": key_id, "use": "sig"})
        return {"keys": [{"kty": "oct", "kid": "shared", "k": "c2VjcmV0"}, *keys]}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.broken:
            return web.Response(status=500)
        if request.path == "/jwks" and self.streamed is not None:
            return await self.streamed(request)
        if request.path == "/jwks" and self.instead is not None:
            return self.instead()
        if request.path in ("/jwks", "/moved"):
            return web.json_response(self.jwks())
        return web.json_response({"issuer": self.url, "jwks_uri": self.jwks_uri or f"{self.url}/jwks"})


@contextlib.asynccontextmanager
async def serving_issuer(first: rsa.RSAPrivateKey | None = None) -> AsyncIterator[Issuer]:
    issuer = Issuer(first)
    app = web.Application()
    app.router.add_get("/jwks", issuer.serve)
    app.router.add_get("/.well-known/openid-configuration", issuer.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield issuer
    finally:
        await runner.cleanup()
