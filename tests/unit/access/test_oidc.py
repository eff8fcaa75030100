"""Tokens of a real issuer: signed with real keys, which are fetched over real HTTP."""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError

from access.api_key import digest_of
from access.errors import Unauthenticated
from access.jwks import MAX_DOCUMENT, MAX_KEYS, MAX_WAITING, JwksTimes
from access.oidc import OidcTokens
from access.oidc_settings import OidcIssuer
from access.settings import AccessSettings
from servicekit.errors import Unavailable
from tests.unit.access.issuer import AUDIENCE, Issuer, rsa_key, serving_issuer
from tests.unit.access.keys import Clock


@pytest.fixture(scope="module")
def first_key() -> rsa.RSAPrivateKey:
    """Finding primes takes longer than any of these tests."""
    return rsa_key()


@pytest.fixture
async def issuer(first_key: rsa.RSAPrivateKey) -> AsyncIterator[Issuer]:
    async with serving_issuer(first_key) as running:
        yield running


@contextlib.asynccontextmanager
async def verifier(
    issuer: Issuer, clock: Clock | None = None, times: JwksTimes | None = None, **fields: Any
) -> AsyncIterator[OidcTokens]:
    values = {"issuer": issuer.url, "audience": AUDIENCE, "project_claim": "tenant", "scopes_claim": "scope"} | fields
    tokens = OidcTokens([OidcIssuer(**values)], times or JwksTimes(), clock=clock or time.monotonic)
    try:
        yield tokens
    finally:
        await tokens.close()


async def test_claims_say_project_user_and_scopes_and_never_more_than_a_key_may(issuer: Issuer) -> None:
    async with verifier(issuer, user_claim="sub") as tokens:
        token = issuer.token()
        caller = await tokens.caller_of(token)
        assert (caller.project, caller.user_id, caller.scopes) == ("acme", "ann", {"chat", "sessions:read"})
        assert caller.id == "token:ann"
        assert tokens.known(digest_of(token.encode())) is caller
    async with verifier(
        issuer, project_claim=None, project="fixed", scopes_claim=None, scopes=("agents:write",)
    ) as tokens:
        caller = await tokens.caller_of(issuer.token())
        assert (caller.project, caller.user_id, caller.scopes) == ("fixed", "", {"agents:write", "agents:read"})


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "others"},
        {"aud": None},
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"exp": 1},
        {"exp": None},
        {"nbf": 2**32},
        {"iat": 2**32},
        {"sub": None},
        {"tenant": None},
        {"tenant": "No Project"},
        {"tenant": ["acme"]},
        {"person": ""},
        {"person": 7},
        {"person": "two words"},
    ],
)
async def test_a_claim_that_is_wrong_makes_the_token_worthless(issuer: Issuer, claims: dict[str, Any]) -> None:
    async with verifier(issuer, user_claim="person") as tokens:
        good = {"person": "ann"}
        assert (await tokens.caller_of(issuer.token(**good))).user_id == "ann"
        with pytest.raises(Unauthenticated):
            await tokens.caller_of(issuer.token(**good | claims))


def encoded(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_what_is_not_signed_by_the_issuer_s_key_is_worthless(issuer: Issuer) -> None:
    async with verifier(issuer) as tokens:
        good = issuer.token()
        await tokens.caller_of(good)
        claims = jwt.decode(good, options={"verify_signature": False})
        _, payload, signature = good.split(".")
        public = issuer.keys["first"].public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        other = Issuer()
        other.url = issuer.url
        import hashlib
        import hmac

        signed = f"{encoded({'alg': 'HS256', 'kid': 'first'})}.{payload}"
        with_public_key = base64.urlsafe_b64encode(hmac.new(pem, signed.encode(), hashlib.sha256).digest())
        forged = [
            jwt.encode(claims, None, algorithm="none", headers={"kid": "first"}),
            f"{encoded({'alg': 'none'})}.{payload}.",
            f"{encoded({'alg': 'None', 'kid': 'first'})}.{payload}.{signature}",
            f"{signed}.{with_public_key.rstrip(b'=').decode()}",
            jwt.encode(claims, b"secret" * 8, algorithm="HS256", headers={"kid": "shared"}),
            other.token(),
            good[:-4] + ("AAAA" if not good.endswith("AAAA") else "BBBB"),
            f"{good.split('.')[0]}.{encoded(claims | {'tenant': 'other'})}.{signature}",
            "a.b.c",
            "..",
        ]
        for token in forged:
            with pytest.raises(Unauthenticated):
                await tokens.caller_of(token)


async def test_an_algorithm_that_is_not_allowed_is_refused_though_it_is_signed_well(issuer: Issuer) -> None:
    issuer.add_ec("curve")
    async with verifier(issuer, algorithms=("ES256",)) as tokens:
        assert (await tokens.caller_of(issuer.token("curve"))).project == "acme"
        with pytest.raises(Unauthenticated):
            await tokens.caller_of(issuer.token("first"))
    async with verifier(issuer) as tokens:
        with pytest.raises(Unauthenticated):
            await tokens.caller_of(issuer.token("first", algorithm="RS512"))


async def test_keys_are_fetched_once_and_again_when_the_issuer_has_new_ones(issuer: Issuer) -> None:
    clock = Clock()
    async with verifier(issuer, clock) as tokens:
        for number in range(5):
            await tokens.caller_of(issuer.token(sub=f"user{number}"))
        assert issuer.asked == ["/.well-known/openid-configuration", "/jwks"]
        clock.now += JwksTimes().pause + 1
        issuer.keys.clear()
        issuer.add_ec("second")
        assert await tokens.caller_of(issuer.token("second"))
        assert issuer.asked.count("/jwks") == 2
        old = Issuer()
        old.url = issuer.url
        for _ in range(10):  # key ids that are made up do not make the issuer work
            with pytest.raises(Unauthenticated):
                await tokens.caller_of(old.token("first"))
        assert issuer.asked.count("/jwks") == 2


async def test_an_unavailable_issuer_is_done_without_for_a_bound(issuer: Issuer) -> None:
    clock = Clock()
    async with verifier(issuer, clock, jwks_url=f"{issuer.url}/jwks") as tokens:
        await tokens.caller_of(issuer.token())
        issuer.broken = True
        clock.now += JwksTimes().stale - 10
        assert await tokens.caller_of(issuer.token(sub="bob"))
        clock.now += 20
        with pytest.raises(Unavailable):
            await tokens.caller_of(issuer.token(sub="cid"))
        issuer.broken = False
        clock.now += JwksTimes().pause + 1
        assert await tokens.caller_of(issuer.token(sub="cid"))


async def test_an_issuer_that_was_never_reached_is_unavailable_and_not_a_wrong_token(issuer: Issuer) -> None:
    issuer.broken = True
    async with verifier(issuer) as tokens:
        with pytest.raises(Unavailable):
            await tokens.caller_of(issuer.token())


async def test_tokens_that_come_together_make_one_request_and_an_issuer_that_is_down_has_one_in_a_while(
    issuer: Issuer,
) -> None:
    clock = Clock()
    async with verifier(issuer, clock, jwks_url=f"{issuer.url}/jwks") as tokens:
        together = [tokens.caller_of(issuer.token(sub=f"user{number}")) for number in range(10)]
        assert len(await asyncio.gather(*together)) == 10
        assert len(issuer.asked) == 1
    issuer.broken = True
    async with verifier(issuer, clock, jwks_url=f"{issuer.url}/jwks") as tokens:
        for _ in range(10):
            with pytest.raises(Unavailable):
                await tokens.caller_of(issuer.token())
        assert len(issuer.asked) == 2


async def test_a_document_that_is_too_long_or_elsewhere_is_not_taken(issuer: Issuer) -> None:
    document = json.dumps(issuer.jwks())

    def too_long() -> web.Response:
        return web.Response(text=document + " " * MAX_DOCUMENT)

    def elsewhere() -> web.Response:
        return web.Response(status=302, headers={"Location": f"{issuer.url}/moved"})

    for answer in (too_long, elsewhere):
        issuer.instead = answer
        async with verifier(issuer) as tokens:
            with pytest.raises(Unavailable):
                await tokens.caller_of(issuer.token())
    assert "/moved" not in issuer.asked


async def test_a_document_that_never_ends_is_given_up_within_bounds(issuer: Issuer) -> None:
    """Fast, it ends by its bytes; slow, by the time of a fetch; who waits is answered, and the connection closed."""
    for pieces, pause in ((4 * 1024 * 1024 // 65536, 0.0), (10_000, 0.05)):
        written = 0

        async def endless(request: web.Request, pieces: int = pieces, pause: float = pause) -> web.StreamResponse:
            nonlocal written
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(pieces):
                await response.write(b" " * (1024 if pause else 65536))
                written += 1
                await asyncio.sleep(pause)
            return response

        issuer.streamed = endless
        async with verifier(issuer, times=JwksTimes(timeout=1.0)) as tokens:
            async with asyncio.timeout(60):
                with pytest.raises(Unavailable):
                    await tokens.caller_of(issuer.token())
        assert written < pieces


async def test_keys_that_change_with_each_fetch_cost_one_fetch_a_while(issuer: Issuer) -> None:
    """Whose keys are gone is refused, whose keys are there is let in, and nobody makes the gateway fetch more."""
    clock = Clock()
    versions = [Issuer() for _ in range(4)]
    for number, version in enumerate(versions):
        version.url = issuer.url
        version.keys[f"v{number}"] = version.keys.pop("first")
    fetches = 0

    def rotated() -> web.Response:
        nonlocal fetches
        fetches += 1
        return web.json_response(versions[fetches - 1].jwks())

    issuer.instead = rotated
    async with verifier(issuer, clock) as tokens:
        for number, version in enumerate(versions):
            for _ in range(20):
                assert (await tokens.caller_of(version.token(f"v{number}"))).project == "acme"
                for other in set(range(len(versions))) - {number}:
                    with pytest.raises(Unauthenticated):
                        await tokens.caller_of(versions[other].token(f"v{other}"))
                [known] = tokens._keys.values()
                assert len(known._keys) == 1, "nothing is kept of keys that the issuer has no more"
            assert fetches == number + 1
            clock.now += JwksTimes().pause + 1


async def test_keys_are_bounded_in_number_and_read_beside_the_loop(issuer: Issuer) -> None:
    keys = issuer.jwks()["keys"]
    many = [{**keys[0], "kid": f"{'k' * 20}{number}"} for number in range(400)]
    issuer.instead = lambda: web.Response(text=json.dumps({"keys": [*keys, *keys, *many]}))
    async with verifier(issuer) as tokens:
        assert await tokens.caller_of(issuer.token())
        [known] = tokens._keys.values()
        assert len(known._keys) <= MAX_KEYS


async def test_others_are_checked_while_an_issuer_is_slow_and_tokens_name_keys_that_are_none(issuer: Issuer) -> None:
    clock = Clock()
    async with verifier(issuer, clock) as tokens:
        await tokens.caller_of(issuer.token())
        [keys] = tokens._keys.values()
        never = asyncio.get_running_loop().create_future()
        keys._fetch = asyncio.ensure_future(never)  # type: ignore[assignment]
        flood = [asyncio.create_task(keys.key(f"none{number}")) for number in range(MAX_WAITING + 50)]
        while sum(task.done() for task in flood) < 50:
            await asyncio.sleep(0)
        assert await tokens.caller_of(issuer.token(sub="somebody else"))
        refused = [task.exception() for task in flood if task.done()]
        assert {type(error) for error in refused} == {Unavailable}
        never.cancel()
        waited = [task for task in flood if task not in {one for one in flood if one.done()}]
        assert await asyncio.gather(*waited) == [None] * MAX_WAITING, "no key of that id, and nobody was cancelled"


@pytest.mark.parametrize("exp", [float("nan"), float("inf"), 10**400, -(10**400), "soon", [1], {}])
async def test_an_end_that_is_no_time_makes_the_token_worthless(issuer: Issuer, exp: Any) -> None:
    async with verifier(issuer) as tokens:
        with pytest.raises(Unauthenticated):
            await tokens.caller_of(issuer.token(exp=exp))


@pytest.mark.parametrize("nested", ["header", "claims"])
async def test_nesting_without_end_makes_the_token_worthless(issuer: Issuer, nested: str) -> None:
    header, claims, signature = issuer.token().split(".")
    deep = base64.urlsafe_b64encode(b'{"a":' + b"[" * 20_000).rstrip(b"=").decode()
    token = ".".join((deep, claims, signature) if nested == "header" else (header, deep, signature))
    async with verifier(issuer) as tokens:
        with pytest.raises(Unauthenticated):
            await tokens.caller_of(token)


@pytest.mark.parametrize("body", ["[" * 100_000, '{"keys": ' + "[" * 100_000, '{"keys": NaN}', "[]", '{"keys": 7}'])
async def test_keys_that_are_none_are_unavailable(issuer: Issuer, body: str) -> None:
    issuer.instead = lambda: web.Response(text=body)
    async with verifier(issuer) as tokens:
        with pytest.raises(Unavailable):
            await tokens.caller_of(issuer.token())


async def test_a_key_that_is_none_costs_no_other(issuer: Issuer) -> None:
    odd: list[Any] = [
        {"kty": "RSA", "kid": "a", "n": 5, "e": "AQAB"},
        {"kty": "RSA", "kid": "b", "n": "", "e": ""},
        {"kty": "RSA", "kid": "c", "n": "AQAB", "e": [1]},
        {"kty": "EC", "kid": "d", "crv": "P-256", "x": None, "y": 1e999},
        {"kty": "OKP", "kid": "e", "crv": ["Ed25519"], "x": "!"},
        {"kty": "RSA", "kid": {"a": 1}, "alg": 7},
        float("nan"),
        None,
    ]
    document = {"keys": [*odd, *issuer.jwks()["keys"]]}
    issuer.instead = lambda: web.Response(text=json.dumps(document))
    async with verifier(issuer) as tokens:
        assert (await tokens.caller_of(issuer.token())).project == "acme"


async def test_a_verified_token_is_remembered_until_it_ends(issuer: Issuer) -> None:
    wall = Clock()
    wall.now = time.time()
    tokens = OidcTokens(
        [OidcIssuer(issuer=issuer.url, audience=AUDIENCE, project="acme", scopes=("chat",), leeway=0)], wall=wall
    )
    token = issuer.token()
    caller = await tokens.caller_of(token)
    assert tokens.known(digest_of(token.encode())) is caller
    wall.now += 61
    assert tokens.known(digest_of(token.encode())) is None
    await tokens.close()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"issuer": "http://id.example"}, "https URL"),
        ({"jwks_url": "ftp://id.example/keys"}, "https URL"),
        ({"algorithms": ["HS256"]}, "must be some of"),
        ({"algorithms": ["none"]}, "must be some of"),
        ({"project": None}, "one of project and project_claim"),
        ({"project": "No"}, "project must be lower-case"),
        ({"scopes": None}, "one of scopes and scopes_claim"),
        ({"scopes": ["operator"]}, "scopes must be some of"),
        ({"secret": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_an_issuer_that_can_not_be_trusted_is_refused_at_start(fields: dict[str, Any], complaint: str) -> None:
    good = {"issuer": "https://id.example", "audience": AUDIENCE, "project": "acme", "scopes": ["chat"]}
    OidcIssuer.model_validate(good)
    with pytest.raises(ValidationError, match=complaint):
        OidcIssuer.model_validate({name: value for name, value in (good | fields).items() if value is not None})


def test_issuers_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = {"issuer": "https://id.example", "audience": AUDIENCE, "project": "acme", "scopes": ["chat"]}
    monkeypatch.setenv("PARLEY_OIDC", json.dumps([issuer]))
    assert AccessSettings().oidc[0].issuer == "https://id.example"


async def test_keys_that_a_discovery_document_places_elsewhere_must_be_public(issuer: Issuer) -> None:
    """The operator named the issuer, wherever it is; not what the issuer names."""
    async with verifier(issuer, jwks_url=None) as tokens, serving_issuer() as elsewhere:
        issuer.jwks_uri = f"{elsewhere.url}/jwks"
        with pytest.raises(Unavailable):
            await tokens.caller_of(issuer.token())
        assert elsewhere.asked == []
