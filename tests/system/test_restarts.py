"""kill -9 of anything: the conversation goes on, and while something is away the rest says so and works on."""

import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.servers.stores import Choice
from tests.servers.system import BreakableSystem

AGENT = "support"
SESSION = "s"
FAIL_FAST_SECONDS = 30.0
BOUNDS = {"PARLEY_GATEWAY_CONFIG_READ_TIMEOUT": "1", "PARLEY_GATEWAY_PEER_TIMEOUT": "5"}
"""As they are by default: how long a peer is waited for that does not answer is what some tests are about."""


@pytest.fixture(scope="module")
def module_system(server_choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BreakableSystem]:
    folder = tmp_path_factory.mktemp("restarts")
    postgres, valkey = server_choice.own_postgres(folder), server_choice.own_redis(folder)
    with BreakableSystem(postgres, valkey, folder=folder, gateways=2, gateway_env=BOUNDS) as system:
        yield system


@pytest.fixture
def system(module_system: BreakableSystem) -> Iterator[BreakableSystem]:
    """Two gateways, an agent and a session with two turns; whatever the test does to them is mended."""
    module_system.create_agent(AGENT)
    for gateway in (0, 1):
        assert module_system.chat(AGENT, "one", session_id=SESSION, gateway=gateway).status_code == 200
    yield module_system
    module_system.mend()
    module_system.clear()


def eventually(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "did not recover in time"
        time.sleep(0.05)


def chats(system: BreakableSystem, gateway: int = 0) -> bool:
    return system.chat(AGENT, "again", session_id=SESSION, gateway=gateway).status_code == 200


def ready(system: BreakableSystem) -> httpx.Response:
    with system.client() as client:
        return client.get("/readyz")


def history_is_whole(system: BreakableSystem) -> None:
    """The stored history is what the model saw, turn by turn, each turn once."""
    with system.client() as client:
        messages = client.get(f"/v1/sessions/{SESSION}/messages", params={"page_size": 100}).json()["data"]
    roles = [message["role"] for message in messages]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    questions = [m["content"] for m in messages if m["role"] == "user"]
    assert answers == [f"echo:{2 * turn + 2}:{question}" for turn, question in enumerate(questions)]


@pytest.mark.parametrize("part", ["config", "session", "gateway", "redis", "postgres"])
def test_the_conversation_goes_on_after_kill_9(system: BreakableSystem, part: str) -> None:
    if part == "gateway":
        system.gateways[0].kill()
        assert chats(system, gateway=1), "another gateway serves the session at once"
        system.gateways[0].restart()
    elif part in ("redis", "postgres"):
        store = system.redis if part == "redis" else system.postgres
        store.kill()
        store.start()
    else:
        service = system.config if part == "config" else system.session
        service.kill()
        service.restart()
    eventually(lambda: chats(system))
    eventually(lambda: ready(system).status_code == 200)
    history_is_whole(system)
    with system.client() as client:
        shown = client.get(f"/v1/sessions/{SESSION}").json()
    assert shown["message_count"] >= 6


def test_the_conversation_goes_on_after_everything_was_killed(system: BreakableSystem) -> None:
    for service in system.services:
        service.kill()
    system.redis.kill()
    system.postgres.kill()
    system.redis.start()
    system.postgres.start()
    for service in system.services:
        service.restart()
    eventually(lambda: chats(system))
    history_is_whole(system)
    assert len(system.model.prompts[-1]) >= 6


@pytest.mark.parametrize("part", ["config", "postgres"])
def test_known_agents_chat_on_while_agent_configs_are_away(system: BreakableSystem, part: str) -> None:
    if part == "config":
        system.config.kill()
    else:
        system.postgres.kill()
    time.sleep(5.5)  # past the age at which configs are read again before use
    for gateway in (0, 1):
        assert chats(system, gateway)
    unknown = system.chat("unknown", "hi")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (503, "peer_unavailable")
    report = ready(system)
    assert report.status_code == 200, "turns can still be run"
    assert "unreachable" in report.text
    if part == "config":
        system.config.restart()
    else:
        system.postgres.start()
    eventually(lambda: system.chat("unknown", "hi").status_code == 404)
    eventually(lambda: "unreachable" not in ready(system).text)


@pytest.mark.parametrize("part", ["session", "redis"])
def test_without_sessions_a_chat_fails_fast_and_leaves_nothing_half_done(system: BreakableSystem, part: str) -> None:
    calls = len(system.model.requests)
    if part == "session":
        system.session.kill()
    else:
        system.redis.kill()
    began = time.monotonic()
    refused = system.chat(AGENT, "lost", session_id=SESSION)
    assert time.monotonic() - began < FAIL_FAST_SECONDS
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "peer_unavailable")
    assert len(system.model.requests) == calls
    eventually(lambda: ready(system).status_code == 503)
    with system.client() as client:
        assert client.get(f"/v1/agents/{AGENT}").status_code == 200
    if part == "session":
        system.session.restart()
    else:
        system.redis.start()
    eventually(lambda: ready(system).status_code == 200)
    eventually(lambda: chats(system))
    history_is_whole(system)


def test_a_service_that_stands_still_is_noticed(system: BreakableSystem) -> None:
    system.session.pause()
    try:
        began = time.monotonic()
        refused = system.chat(AGENT, "lost", session_id=SESSION, busy="reject")
        assert refused.status_code in (503, 504)
        assert time.monotonic() - began < 2 * FAIL_FAST_SECONDS
        eventually(lambda: ready(system).status_code == 503)
    finally:
        system.session.resume()
    eventually(lambda: chats(system))
    history_is_whole(system)


def test_a_deletion_is_finished_after_session_svc_was_away(system: BreakableSystem) -> None:
    system.session.kill()
    with system.client() as client:
        half_done = client.delete(f"/v1/agents/{AGENT}")
    assert half_done.status_code == 503
    system.session.restart()

    def session_gone() -> bool:
        with system.client() as client:
            return client.get(f"/v1/sessions/{SESSION}").status_code == 404

    eventually(session_gone)
    assert system.chat(AGENT, "hi", session_id=SESSION).status_code == 404
