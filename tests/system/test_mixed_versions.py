"""The previous release and this one side by side, as in a rolling upgrade: one conversation, whoever serves it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import redis
from benchmarks.prose import prose

from tests.servers.mock_model import MODEL, Behaviour, MockModel
from tests.servers.previous_release import sources_of_the_previous_release
from tests.servers.replicas import Replicas
from tests.servers.stores import Choice
from tests.servers.system import PROVIDER

AGENT = "mixed"
TURNS = 24
KINDS = ("config_svc", "session_svc", "chat_gateway")


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the previous release."""
    return sources_of_the_previous_release(tmp_path_factory.mktemp("previous"))


@pytest.fixture(scope="module")
def mixed(server_choice: Choice, tmp_path_factory: pytest.TempPathFactory, previous: Path) -> "Iterator[Mixed]":
    """Of each service one replica of the previous release and one of this, on a schema of this one."""
    folder = tmp_path_factory.mktemp("mixed")
    postgres, valkey = server_choice.own_postgres(folder), server_choice.own_redis(folder)
    postgres.start()
    valkey.start()
    try:
        with MockModel() as model:
            sources = {f"{kind}-1": previous for kind in KINDS}
            urls = postgres.database_url("postgres"), valkey.database_url(0)
            # As docs/operations/upgrade.md says: the previous release can't read turns that are compressed.
            env = {"PARLEY_SESSION_COMPRESS_TURNS": "false"}
            with (
                Replicas(*urls, model, folder=folder, env=env, sources=sources).running() as replicas,
                Mixed(replicas) as mixed,
            ):
                mixed.model, mixed.redis_url = model, urls[1]
                yield mixed
    finally:
        valkey.remove()
        postgres.remove()


class Mixed:
    """HTTP clients of the gateways; 0 is of the previous release, 1 of this one."""

    model: MockModel
    redis_url: str

    def __init__(self, replicas: Replicas) -> None:
        self.replicas = replicas
        self._clients = [httpx.Client(base_url=g.http_url, timeout=30, trust_env=False) for g in replicas.gateways]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()

    def ask(self, gateway: int, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request, with whatever outcome."""
        return self._clients[gateway].request(method, path, **options)

    def create(self, gateway: int, agent: str) -> dict[str, Any]:
        """Create an agent with a large window."""
        body = {
            "id": agent,
            "name": "Mixed",
            "template_id": "assistant",
            "instructions": "You are a test.",
            "model": {"provider": PROVIDER, "name": MODEL},
            "memory": {"max_messages": 200},
        }
        answer = self.ask(gateway, "POST", "/v1/agents", json=body)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    def chat(self, gateway: int, text: str, session: str, *, key: str = "", **fields: Any) -> httpx.Response:
        """Run a turn, with whatever outcome."""
        body = {"model": AGENT, "session_id": session, "messages": [{"role": "user", "content": text}], **fields}
        headers = {"Idempotency-Key": key} if key else {}
        return self.ask(gateway, "POST", "/v1/chat/completions", json=body, headers=headers)

    def wait_for_waiters(self, session: str, number: int) -> None:
        """Wait until so many turns stand in a session's queue."""
        deadline = time.monotonic() + 60
        with redis.Redis.from_url(self.redis_url) as store:
            while store.llen(f"{{default:{session}}}:queue") < number:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def messages(self, gateway: int, session: str) -> list[str]:
        """Return what a session holds."""
        answer = self.ask(gateway, "GET", f"/v1/sessions/{session}/messages", params={"page_size": 100})
        assert answer.status_code == 200, answer.text
        return [message["content"] for message in answer.json()["data"]]


@pytest.fixture(scope="module", autouse=True)
def agent(mixed: Mixed) -> dict[str, Any]:
    """The agent of the conversations, made through the previous release's gateway."""
    return mixed.create(0, AGENT)


def answer_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content


def test_both_releases_serve_one_conversation_turn_after_turn(mixed: Mixed) -> None:
    expected: list[str] = []
    for turn in range(TURNS):
        # Two turns each: a gateway's calls go round the replicas of session_svc, so that every pair begins and commits.
        text = f"turn {turn}: {prose(turn, 2000)}"  # long enough to be compressed, if that were on
        said = answer_of(mixed.chat(turn // 2 % 2, text, "alternating"))
        expected += [text, f"echo:{2 * turn + 2}:{text}"]
        assert said == expected[-1], "the model saw every turn before"
    assert mixed.messages(0, "alternating") == mixed.messages(1, "alternating") == expected


@pytest.mark.parametrize("first", [0, 1])
def test_a_key_is_replayed_by_the_other_release(mixed: Mixed, first: int) -> None:
    session, key = f"replayed-{first}", f"key-{first}"
    said = answer_of(mixed.chat(first, "once", session, key=key))
    for gateway in (0, 1, 0, 1):
        again = mixed.chat(gateway, "once", session, key=key)
        assert (answer_of(again), again.headers.get("Idempotent-Replayed")) == (said, "true")
        other = mixed.chat(gateway, "twice", session, key=key)
        assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert mixed.messages(1 - first, session) == ["once", said]


@pytest.mark.parametrize("first", [0, 1])
def test_turns_of_both_releases_wait_for_each_other(mixed: Mixed, first: int) -> None:
    session = f"waiting-{first}"
    mixed.model.reset()
    mixed.model.script(Behaviour(hold=True))
    with ThreadPoolExecutor(6) as threads:
        turns = []
        for number in range(6):
            turns.append(threads.submit(mixed.chat, (first + number) % 2, f"t{number}", session))
            if number == 0:
                mixed.model.wait_for_requests(1)
            mixed.wait_for_waiters(session, number)
        rejected = [mixed.chat(gateway, "no", session, busy="reject") for gateway in (0, 1)]
        mixed.model.release()
        answers = [answer_of(turn.result()) for turn in turns]
    assert answers == [f"echo:{2 * number + 2}:t{number}" for number in range(6)], "first come, first served"
    assert {answer.json()["error"]["code"] for answer in rejected} == {"session_busy"}
    assert mixed.messages(first, session)[1::2] == answers


@pytest.mark.parametrize("first", [0, 1])
def test_the_other_release_interrupts(mixed: Mixed, first: int) -> None:
    session, asked = f"interrupted-{first}", len(mixed.model.requests)
    mixed.model.hold_again()
    mixed.model.script(Behaviour(hold=True))
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(mixed.chat, first, "slow", session)
        mixed.model.wait_for_requests(asked + 1)
        said = answer_of(mixed.chat(1 - first, "now", session, busy="interrupt"))
        assert running.result().json()["error"]["code"] == "turn_interrupted"
    assert mixed.messages(first, session) == ["now", said]


@pytest.mark.parametrize("first", [0, 1])
def test_agents_are_changed_and_deleted_by_either_release(mixed: Mixed, first: int) -> None:
    agent, session = f"changing-{first}", f"changing-{first}"
    etag = mixed.create(first, agent)["etag"]
    assert mixed.chat(1 - first, "hi", session, model=agent).headers["X-Agent-Revision"] == "1"
    change: dict[str, Any] = {"json": {"instructions": "Other."}, "headers": {"If-Match": etag}}
    changed = mixed.ask(1 - first, "PATCH", f"/v1/agents/{agent}", **change)
    assert changed.status_code == 200, changed.text
    deadline = time.monotonic() + 60
    while mixed.chat(first, "hi", session, model=agent).headers["X-Agent-Revision"] != "2":
        assert time.monotonic() < deadline
    for gateway in (0, 1):
        listed = mixed.ask(gateway, "GET", "/v1/sessions", params={"agent_id": agent}).json()["data"]
        assert [one["id"] for one in listed] == [session]
    assert mixed.ask(first, "DELETE", f"/v1/agents/{agent}").status_code in (200, 204)
    for gateway in (0, 1):
        assert mixed.chat(gateway, "hi", session, model=agent).status_code == 404
        assert mixed.ask(gateway, "GET", f"/v1/sessions/{session}").status_code == 404


def test_a_session_lives_through_the_upgrade_of_every_replica(mixed: Mixed) -> None:
    """Last: it leaves nothing of the previous release running."""
    texts = []
    for number, name in enumerate((*KINDS, "")):
        said = answer_of(mixed.chat(number % 2, f"step {number}", "upgraded"))
        texts += [f"step {number}", said]
        assert said == f"echo:{2 * number + 2}:step {number}"
        for service in mixed.replicas.services:
            if service.name == f"{name}-1":
                service.stop()
                service.upgrade()
                service.start()
    assert mixed.messages(0, "upgraded") == mixed.messages(1, "upgraded") == texts
