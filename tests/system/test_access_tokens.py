"""Tokens of an identity provider on a running system, over HTTP and gRPC."""

import asyncio
import hashlib
import json
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import grpc
import httpx
import pytest
from google.protobuf import message_factory
from playwright.sync_api import Route, expect

from access.caller import KEY_SCOPES, OPERATOR, SERVICE, USER_SCOPES
from chat_gateway.http_edge.wire.auth import ANY_CREDENTIALS
from parley.access.v1 import rule_pb2
from tests.servers.browser import chromium, console_page, visit
from tests.servers.system import OpenSystem, System
from tests.system.methods import METHODS, TRIES, refusal, target_of
from tests.unit.access.issuer import AUDIENCE, Issuer, rsa_key, serving_issuer

JWKS_PAUSE = 10.0
OPERATOR_KEY = "operator-key-of-the-tests-of-tokens"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    loop, begun, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[Issuer] = []

    async def serve() -> None:
        async with serving_issuer() as issuer:
            found.append(issuer)
            begun.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert begun.wait(60)
    yield found[0]
    loop.call_soon_threadsafe(ended.set)
    thread.join(10)
    loop.close()


@pytest.fixture(scope="module")
def system(issuer: Issuer, open_system: OpenSystem) -> Iterator[System]:
    trusted = {"issuer": issuer.url, "audience": AUDIENCE, "project_claim": "tenant"}
    trusted |= {"user_claim": "sub", "scopes_claim": "scope"}
    trusted |= {"client_id": "console", "authorization_url": f"{issuer.url}/authorize"}
    trusted |= {"token_url": f"{issuer.url}/token"}
    env = {
        "PARLEY_AUTH": "required",
        "PARLEY_OPERATOR_KEY": OPERATOR_KEY,
        "PARLEY_OIDC": json.dumps([trusted]),
    }
    with open_system("tokens", env=env, operator_key=OPERATOR_KEY) as system:
        with system.client() as operator:
            operator.post("/v1/projects", json={"id": "acme"}).raise_for_status()
            operator.headers["X-Project-ID"] = "acme"
            agent = {"id": "hello", "model": {"provider": "mock", "name": "mock-model"}, "instructions": "Be brief."}
            operator.post("/v1/agents", json=agent).raise_for_status()
        yield system


def bearer(system: System, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=system.http_url, headers=headers, timeout=30, trust_env=False)


def chat(client: httpx.Client, **fields: str) -> httpx.Response:
    body = {"model": "hello", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return client.post("/v1/chat/completions", json=body)


def test_a_token_chats_in_its_project_as_its_user(system: System, issuer: Issuer) -> None:
    with bearer(system, issuer.token()) as ann, bearer(system, issuer.token(sub="bob")) as bob:
        assert chat(ann, session_id="of-ann").status_code == 200
        assert ann.get("/v1/sessions/of-ann").json()["user_id"] == "ann"
        assert bob.get("/v1/sessions/of-ann").status_code == 404
        denied = chat(ann, user_id="bob")
        assert (denied.status_code, denied.json()["error"]["code"]) == (403, "user_denied")
        assert ann.delete("/v1/sessions/of-ann").status_code == 403  # its scopes only read


@pytest.mark.parametrize("claims", [{"aud": "others"}, {"exp": 1}, {"iss": "https://elsewhere.example"}])
def test_a_token_that_is_not_for_us_is_worth_nothing(system: System, issuer: Issuer, claims: dict[str, object]) -> None:
    with bearer(system, issuer.token(**claims)) as nobody:
        refused = chat(nobody)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_key_that_the_issuer_made_since_counts(system: System, issuer: Issuer) -> None:
    with bearer(system, issuer.token()) as before:
        assert chat(before).status_code == 200
    issuer.add_ec("second")
    deadline = time.monotonic() + 6 * JWKS_PAUSE
    with bearer(system, issuer.token("second")) as after:
        while chat(after).status_code == 401 and time.monotonic() < deadline:
            time.sleep(0.5)  # an unknown key id makes a fetch, but not at once after another
        assert chat(after).status_code == 200


def test_a_token_counts_on_every_service_s_grpc_port(system: System, issuer: Issuer) -> None:
    with bearer(system, issuer.token()) as ann:
        assert chat(ann, session_id="by-grpc").status_code == 200
    for token, expected in ((issuer.token(), "by-grpc"), (issuer.token(aud="others"), "Unauthenticated")):
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("grpcurl")),
                "-plaintext",
                "-H",
                f"authorization: Bearer {token}",
                "-d",
                '{"id": "by-grpc"}',
                system.session.grpc_target,
                "parley.session.v1.SessionService/GetSession",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert expected in done.stdout + done.stderr


BAD = ("expired", "of another audience", "of nobody's key", "unsigned")
EVERYTHING = " ".join([*KEY_SCOPES, OPERATOR, SERVICE])


@pytest.fixture(scope="module")
def tokens(issuer: Issuer) -> dict[str, str]:
    """Of every kind; those with scopes claim all, and more than a token can have."""
    good = issuer.token(scope=EVERYTHING, exp=int(time.time()) + 3600)
    signed, _, _ = good.rpartition(".")
    stranger = Issuer(rsa_key())
    stranger.url = issuer.url
    claims = signed.split(".")[1]
    none = urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    return {
        "expired": issuer.token(scope=EVERYTHING, exp=1),
        "of another audience": issuer.token(scope=EVERYTHING, aud="others"),
        "of nobody's key": stranger.token(scope=EVERYTHING),
        "unsigned": f"{none}.{claims}.",
        "without scopes": issuer.token(scope="", exp=int(time.time()) + 3600),
        "of another project": issuer.token(scope=EVERYTHING, tenant="other", exp=int(time.time()) + 3600),
        "of another user": good,
    }


def refused_for(kind: str, scope: str, *, names_project: bool, names_user: bool) -> str:
    """The reason for which a call is refused that names project `acme` or user `bob`, as its kind of token may not."""
    if kind in BAD:
        return "UNAUTHENTICATED"
    if scope == ANY_CREDENTIALS:
        return ""
    if scope not in USER_SCOPES or kind == "without scopes":
        return "SCOPE_MISSING"
    if kind == "of another project":
        return "PROJECT_DENIED" if names_project else ""
    return "USER_DENIED" if names_user else ""


def test_every_rpc_refuses_what_a_token_may_not(system: System, tokens: dict[str, str]) -> None:
    wrong = []
    for where, method in METHODS:
        rule = method.GetOptions().Extensions[rule_pb2.rule]
        with grpc.insecure_channel(target_of(system, where)) as channel:
            for kind, token in tokens.items():
                expected = refused_for(kind, rule.scope, names_project=bool(rule.project), names_user=bool(rule.user))
                if not expected:
                    continue
                request = message_factory.GetMessageClass(method.input_type)()
                named = {"of another project": (rule.project, "acme"), "of another user": (rule.user, "bob")}
                path, value = named.get(kind, ("", ""))
                if path:
                    *parents, name = path.split(".")
                    message = request
                    for parent in parents:
                        message = getattr(message, parent)
                    setattr(message, name, value)
                reason = refusal(channel, method, request, token)
                if reason != expected:
                    wrong.append((method.full_name, kind, reason, expected))
    assert wrong == []


def test_every_route_refuses_what_a_token_may_not(system: System, tokens: dict[str, str]) -> None:
    wrong = []
    with httpx.Client(base_url=system.http_url, timeout=60, trust_env=False) as client:
        paths = client.get("/docs/openapi.json").json()["paths"]
        for path, method, operation in [(path, *one) for path, item in paths.items() for one in item.items()]:
            scope = operation["x-parley-scope"]
            headers = {parameter["name"] for parameter in operation.get("parameters", [])}
            named = {"of another project": {"X-Project-ID": "acme"}, "of another user": {"X-User-ID": "bob"}}
            for kind, token in tokens.items():
                expected = scope and refused_for(
                    kind, scope, names_project="X-Project-ID" in headers, names_user="X-User-ID" in headers
                )
                if not expected or (kind in named and "requestBody" in operation):
                    continue  # what a request names is looked at with its body: test_access_matrix.py has bodies
                sent = {"Authorization": f"Bearer {token}", **named.get(kind, {})}
                for _ in range(TRIES):
                    answer = client.request(method, path.replace("{", "x").replace("}", "x"), headers=sent, json={})
                    if answer.status_code != 503:
                        break
                    time.sleep(0.5)
                code = answer.json()["error"]["code"] if answer.status_code in (401, 403) else answer.status_code
                if code != {"UNAUTHENTICATED": "invalid_api_key"}.get(expected, expected.lower()):
                    wrong.append((method, path, kind, code, expected))
    assert wrong == []


def test_people_log_in_to_the_console_by_code_with_pkce(system: System, issuer: Issuer) -> None:
    """The issuer's pages are answered for by the browser's driver; the token is checked by the gateway."""
    asked: dict[str, str] = {}

    def authorize(route: Route) -> None:
        asked.update(parse_qsl(urlsplit(route.request.url).query))
        back = f"{asked['redirect_uri']}?{urlencode({'code': 'c0de', 'state': asked['state'], 'iss': issuer.url})}"
        route.fulfill(status=302, headers={"Location": back})

    def exchange(route: Route) -> None:
        sent = dict(parse_qsl(route.request.post_data or ""))
        digest = urlsafe_b64encode(hashlib.sha256(sent["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        good = sent["code"] == "c0de" and sent["client_id"] == "console" and digest == asked["code_challenge"]
        answer = {"access_token": issuer.token(sub="carla")} if good else {"error": "invalid_grant"}
        route.fulfill(status=200 if good else 400, json=answer, headers={"Access-Control-Allow-Origin": "*"})

    with chromium() as browser, console_page(browser, system.http_url, elsewhere=(issuer.url,)) as watched:
        page = watched.page
        page.route(f"{issuer.url}/authorize*", authorize)
        page.route(f"{issuer.url}/token", exchange)
        visit(page, "/console#/sessions")
        page.get_by_role("button", name="Continue with").click()
        expect(page.get_by_text("carla")).to_be_visible()
        expect(page.get_by_role("heading", name="Sessions", exact=True)).to_be_visible()
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        assert page.evaluate("[JSON.stringify({...localStorage, ...sessionStorage}), location.search]") == ["{}", ""]
        visit(page, "/console?code=stolen&state=made-up")
        expect(page.get_by_role("alert")).to_contain_text("did not start in this tab")
