"""An agent whose own model can't answer, through a whole system: who answers is shown, and replayed."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.servers.system import PROVIDER, OpenSystem, System

AGENT = "falls-back"
DOWN = {"base_url": "http://127.0.0.1:9/v1", "max_retries": 0, "breaker_failures": 1, "breaker_open": 600}


@pytest.fixture(scope="module")
def system(open_system: OpenSystem) -> Iterator[System]:
    with open_system("fallbacks", gateways=0) as started:
        providers = {"down": DOWN, PROVIDER: {"base_url": started.model.url}}
        started.new_gateway({"PARLEY_PROVIDERS": json.dumps(providers)}).start()
        fallbacks = [{"provider": PROVIDER, "name": "spare", "also_on": ["content_filter"]}]
        started.create_agent(AGENT, model={"provider": "down", "name": "m", "fallbacks": fallbacks})
        yield started


def ask(system: System, **more: object) -> httpx.Response:
    body = {"model": AGENT, "messages": [{"role": "user", "content": "hi"}], **more}
    with system.client() as client:
        return client.post("/v1/chat/completions", json=body, headers={"Idempotency-Key": f"key-{more}"})


@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_answers_and_is_named(system: System, stream: bool) -> None:
    for replayed in (None, "true"):
        answer = ask(system, stream=stream, session_id=f"s-{stream}")
        assert answer.status_code == 200, answer.text
        assert answer.headers.get("idempotent-replayed") == replayed
        assert answer.headers["x-parley-provider"] == PROVIDER
    with system.client() as client:
        agent = client.get(f"/v1/agents/{AGENT}").json()
        parts = client.get("/readyz").json()["parts"]
    assert agent["model"]["fallbacks"] == [{"provider": PROVIDER, "name": "spare", "also_on": ["content_filter"]}]
    assert (parts["provider:down"], parts[f"provider:{PROVIDER}"]) == ("circuit open", "ok")
