"""Limits of keys and agents over two gateways and two replicas of session_svc."""

import concurrent.futures
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import grpc
import httpx
import openai
import pytest
import redis

from parley.chat.v1 import chat_service_pb2 as chat_pb
from parley.session.v1 import message_pb2
from parley_client import LimitExceeded
from tests.servers.databases import migrated_database
from tests.servers.mock_model import Behaviour
from tests.servers.processes import ServiceProcess
from tests.servers.stores import PostgresServer, RedisServer, fresh_redis
from tests.servers.system import System

OPERATOR_KEY = secrets.token_urlsafe(32)
LEASE = 5.0
CLAIM = 0.5
SLACK_SECONDS = 20.0
"""On top of any bound: the machine's processors are shared with other tests."""
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def system(
    postgres_server: PostgresServer,
    redis_server: RedisServer,
    logical_databases: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[System]:
    folder: Path = tmp_path_factory.mktemp("limits")
    access = {"PARLEY_AUTH": "required", "PARLEY_OPERATOR_KEY": OPERATOR_KEY}
    env = access | {"PARLEY_SESSION_LEASE": str(LEASE), "PARLEY_SESSION_CLAIM": str(CLAIM)}
    with migrated_database(postgres_server) as postgres_url, fresh_redis(redis_server, logical_databases) as redis_url:
        running = System(postgres_url, redis_url, folder=folder, env=access, session_env=env, operator_key=OPERATOR_KEY)
        settings = env | {
            "PARLEY_SESSION_REDIS_URL": redis_url,
            "PARLEY_SESSION_CONFIG_TARGET": running.config.grpc_target,
        }
        second = ServiceProcess("session_svc", settings, logs=folder, name="session-2")
        both = f"{running.session.grpc_target},{second.grpc_target}"
        with running, second:
            for _ in range(2):
                running.new_gateway(
                    {"PARLEY_GATEWAY_SESSION_TARGET": both, "PARLEY_GATEWAY_LEASE_RENEW_INTERVAL": "0.5"}
                ).start()
            yield running


@pytest.fixture(autouse=True)
def _forgetful_model(system: System) -> None:
    system.model.reset()


def agent_of(system: System, **limits: int) -> str:
    return str(system.create_agent(f"agent-{uuid4().hex[:8]}", limits=limits)["id"])


def burst(system: System, agent: str, turns: int, **fields: object) -> list[httpx.Response]:
    """Runs so many turns at once, half of them on each of the last two gateways."""
    with concurrent.futures.ThreadPoolExecutor(turns) as pool:
        return list(pool.map(lambda number: system.chat(agent, "hi", gateway=1 + number % 2, **fields), range(turns)))


def key_of(system: System, **limits: int) -> str:
    """Makes an API key that may chat."""
    with system.client() as client:
        made = client.post("/v1/api_keys", json={"project": "default", "scopes": ["chat"], "limits": limits})
    assert made.status_code == 201, made.text
    return str(made.json()["key"])


def test_the_turns_of_a_key_are_counted_over_all_gateways_and_agents(system: System) -> None:
    agents, key = [agent_of(system), agent_of(system)], key_of(system, requests_per_minute=10)

    def ask(number: int) -> int:
        gateway = system.gateways[1 + number % 2]
        body = {"model": agents[number // 2 % 2], "messages": [{"role": "user", "content": "hi"}]}
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{gateway.http_url}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=60, trust_env=False).status_code

    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        statuses = list(pool.map(ask, range(30)))
    assert (statuses.count(200), statuses.count(429)) == (10, 20)


def test_a_key_has_so_many_turns_under_way_and_the_next_is_refused_at_once(system: System) -> None:
    agent, key = agent_of(system), key_of(system, concurrent_turns=1)
    system.model.script(Behaviour(hold=True))
    hello = [{"role": "user", "content": "hi"}]
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        openai.OpenAI(base_url=f"{system.http_url}/v1", api_key=key, max_retries=0) as client,
    ):
        first = pool.submit(client.chat.completions.create, model=agent, messages=hello)  # type: ignore[arg-type]
        system.model.wait_for_requests(1)
        begin = time.monotonic()
        with pytest.raises(openai.RateLimitError, match="all of its 1 turns under way") as caught:
            client.chat.completions.create(model=agent, messages=hello)  # type: ignore[arg-type]
        assert time.monotonic() - begin < SLACK_SECONDS, "it waited for the first"
        assert "x-ratelimit-limit-requests" not in caught.value.response.headers
        assert int(caught.value.response.headers["retry-after-ms"]) > 0
        system.model.release()
        first.result(timeout=60)
        client.chat.completions.create(model=agent, messages=hello)  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{}, {"store": False}], ids=["sessions", "stateless"])
def test_a_burst_gets_exactly_the_turns_of_a_minute(system: System, fields: dict[str, object]) -> None:
    agent = agent_of(system, requests_per_minute=15)
    answers = burst(system, agent, 40, **fields)
    taken = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert (len(taken), len(refused)) == (15, 25), [answer.text for answer in answers]
    assert len(system.model.requests) == 15
    left = sorted(int(answer.headers["x-ratelimit-remaining-requests"]) for answer in taken)
    assert left == list(range(15))
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"15"}
    for answer in refused:
        error = answer.json()["error"]
        assert (error["code"], error["type"], error["param"]) == ("rate_limited", "requests", None)
        assert 30 <= int(answer.headers["retry-after"]) <= 60
        assert answer.headers["x-should-retry"] == "true"
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")


@pytest.mark.parametrize("fields", [{}, {"store": False}], ids=["sessions", "stateless"])
def test_no_more_turns_run_at_once_and_the_others_wait(system: System, fields: dict[str, object]) -> None:
    agent = agent_of(system, max_concurrent_turns=3)
    system.model.script(*[Behaviour(hold=True)] * 12)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(burst, system, agent, 12, **fields)
        system.model.wait_for_requests(3)
        time.sleep(LEASE + CLAIM + 0.3)  # their places are kept by renewals
        assert len(system.model.requests) == 3
        system.model.release()
        assert [answer.status_code for answer in running.result(timeout=60)] == [200] * 12
    assert len(system.model.requests) == 12


def test_streams_tell_the_limits_too(system: System) -> None:
    agent = agent_of(system, requests_per_minute=2)
    heads = [system.chat(agent, "hi", stream=True).headers for _ in range(3)]
    assert [head["x-ratelimit-remaining-requests"] for head in heads] == ["1", "0", "0"]
    assert heads[0]["x-ratelimit-reset-requests"] == "1m0s"


def test_grpc_says_whose_limit_it_is_and_when_to_ask_again(system: System) -> None:
    agent = agent_of(system, requests_per_minute=1)
    said = message_pb2.Message(role=message_pb2.ROLE_USER, content="hi")
    request = chat_pb.CompleteRequest(input=chat_pb.TurnInput(agent_id=agent, messages=[said]))
    with system.grpc_client() as client:
        client.chat.Complete(request, timeout=30)
        with pytest.raises(LimitExceeded) as caught:
            client.chat.Complete(request, timeout=30)
    error = caught.value
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (error.reason, error.metadata["bound"], error.metadata["limit"]) == (
        "RATE_LIMITED",
        "requests_per_minute",
        "1",
    )
    assert 30 < (error.retry_delay or 0) <= 60
    assert error.quota_subject.startswith("agent:")


def test_a_repeated_request_is_not_counted_again(system: System) -> None:
    agent = agent_of(system, requests_per_minute=2)
    with system.client() as client:
        body = {"model": agent, "messages": [{"role": "user", "content": "hi"}]}
        answers = [client.post("/v1/chat/completions", json=body, headers={"Idempotency-Key": "k1"}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", "true", "true"]
    assert system.chat(agent, "another").headers["x-ratelimit-remaining-requests"] == "0"


def test_a_gateway_that_is_killed_gives_its_places_back_within_a_lease(system: System) -> None:
    agent = agent_of(system, max_concurrent_turns=1)
    system.model.script(Behaviour(hold=True))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        lost = pool.submit(system.chat, agent, "hi", gateway=2)
        system.model.wait_for_requests(1)
        system.gateways[2].kill()
        killed = time.monotonic()
        with pytest.raises(httpx.TransportError):
            lost.result(timeout=60)
        assert system.chat(agent, "me next", gateway=1).status_code == 200
        assert time.monotonic() - killed < LEASE + CLAIM + SLACK_SECONDS
    system.model.release()
    system.gateways[2].start()


def test_the_openai_client_asks_again_and_succeeds(system: System) -> None:
    agent = agent_of(system, requests_per_minute=2)
    with system.client() as admin:
        uid = admin.get(f"/v1/agents/{agent}").json()["uid"]
    for _ in range(2):
        assert system.chat(agent, "hi").status_code == 200
    with redis.Redis.from_url(system.redis_url) as store:
        key = f"{{limit:default:agent:{uid}}}:begun"
        for member in store.zrange(key, 0, -1):
            store.zincrby(key, -(MINUTE_MS - 8_000), member)  # as if they had begun 52 seconds ago
    with openai.OpenAI(base_url=f"{system.http_url}/v1", api_key=OPERATOR_KEY, max_retries=2) as client:
        begin = time.monotonic()
        raw = client.chat.completions.with_raw_response.create(model=agent, messages=[{"role": "user", "content": "x"}])
        assert raw.retries_taken == 1
        assert time.monotonic() - begin < 30, "half of a minute, not the whole of it"
        hurried = client.with_options(max_retries=0)
        with pytest.raises(openai.RateLimitError) as caught:
            for _ in range(3):
                hurried.chat.completions.create(model=agent, messages=[{"role": "user", "content": "x"}])
    assert (caught.value.code, caught.value.type) == ("rate_limited", "requests")
