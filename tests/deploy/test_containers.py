"""The images as they will run: read-only, without any capability, on the official stores' images."""

import httpx
import pytest

from tests.deploy.engine import Containers, docker, logs, wait_for
from tests.servers.mock_model import MODEL, MockModel
from tests.servers.ports import free_port
from tests.servers.stores import PASSWORD, postgres_answers, redis_answers

AGENT = {"id": "crew", "name": "Crew", "template_id": "assistant", "model": {"provider": "mock", "name": MODEL}}


class Crew:
    """Three services, PostgreSQL, Redis, each in a container; the model is on the host."""

    def __init__(self, containers: Containers, images: dict[str, str], model: MockModel) -> None:
        self._containers = containers
        self._images = images
        names = ("postgres", "redis", "config", "config_health", "session", "session_health", "http", "grpc", "health")
        self.ports = {name: free_port() for name in names}
        self.url = f"http://127.0.0.1:{self.ports['http']}"
        port = self.ports["postgres"]
        self.database = f"postgresql+psycopg://parley:{PASSWORD}@127.0.0.1:{port}/parley"
        self.redis = f"redis://:{PASSWORD}@127.0.0.1:{self.ports['redis']}/0"
        self.settings = {
            "config_svc": {
                "PARLEY_CONFIG_DATABASE_URL": self.database,
                "PARLEY_CONFIG_GRPC_PORT": str(self.ports["config"]),
                "PARLEY_CONFIG_HEALTH_PORT": str(self.ports["config_health"]),
            },
            "session_svc": {
                "PARLEY_SESSION_REDIS_URL": self.redis,
                "PARLEY_SESSION_CONFIG_TARGET": f"127.0.0.1:{self.ports['config']}",
                "PARLEY_SESSION_GRPC_PORT": str(self.ports["session"]),
                "PARLEY_SESSION_HEALTH_PORT": str(self.ports["session_health"]),
            },
            "chat_gateway": {
                "PARLEY_GATEWAY_CONFIG_TARGET": f"127.0.0.1:{self.ports['config']}",
                "PARLEY_GATEWAY_SESSION_TARGET": f"127.0.0.1:{self.ports['session']}",
                "PARLEY_GATEWAY_HTTP_PORT": str(self.ports["http"]),
                "PARLEY_GATEWAY_GRPC_PORT": str(self.ports["grpc"]),
                "PARLEY_GATEWAY_HEALTH_PORT": str(self.ports["health"]),
                "PARLEY_PROVIDERS": f'{{"mock": {{"base_url": "{model.url}"}}}}',
            },
        }
        self.running: dict[str, str] = {}

    def start_stores(self) -> None:
        start = self._containers.start
        secrets = {"POSTGRES_USER": "parley", "POSTGRES_PASSWORD": PASSWORD}
        listening = ("-p", str(self.ports["postgres"]), "-c", "listen_addresses=127.0.0.1")
        postgres = start("postgres:18", "postgres", *listening, env=secrets)
        only_here = ("--bind", "127.0.0.1", "--port", str(self.ports["redis"]), "--requirepass", PASSWORD)
        redis = start("redis:8", "redis-server", *only_here)
        wait_for(lambda: postgres_answers(self.database), postgres)
        wait_for(lambda: redis_answers(self.redis), redis)

    def migrate(self) -> str:
        command = ("migrate", "--wait", "30")
        return self._containers.run(self._images["config_svc"], *command, env=self.settings["config_svc"])

    def start_services(self) -> None:
        for service, env in self.settings.items():
            image = self._images[service]
            self.running[service] = self._containers.start(image, env=env, options=Containers.HARDENED)
        self._containers.wait_healthy(*self.running.values())

    def chat(self, text: str) -> str:
        body = {"model": "crew", "session_id": "log", "messages": [{"role": "user", "content": text}]}
        with httpx.Client(base_url=self.url, trust_env=False, timeout=30) as client:
            answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])


@pytest.fixture
def model() -> MockModel:
    return MockModel()


def test_five_containers_hold_a_conversation(
    images: dict[str, str], stores: None, containers: Containers, model: MockModel
) -> None:
    with model:
        crew = Crew(containers, images, model)
        crew.start_stores()
        assert "migrated" in crew.migrate()
        crew.start_services()
        with httpx.Client(base_url=crew.url, trust_env=False, timeout=30) as client:
            assert client.post("/v1/agents", json=AGENT).status_code == 201
        assert crew.chat("one") == "echo:1:one"
        # Any replica serves any turn: the session goes on in a container that never saw it.
        assert containers.stop(crew.running["chat_gateway"]) == 0
        assert containers.stop(crew.running["session_svc"]) == 0
        docker("start", crew.running["session_svc"], crew.running["chat_gateway"])
        containers.wait_healthy(*crew.running.values())
        assert crew.chat("two") == "echo:3:two"
        for service, container in reversed(crew.running.items()):
            assert containers.stop(container) == 0, service
            assert docker("diff", container) == "", f"{service} wrote to its root"


def test_a_container_without_settings_says_what_it_lacks(images: dict[str, str], containers: Containers) -> None:
    container = containers.start(images["config_svc"], options=Containers.HARDENED)
    assert docker("wait", container) == "1"
    assert "PARLEY_CONFIG_DATABASE_URL: is required" in logs(container)
