"""The images as production runs them: by the settings of the base, with keys and certificates, read-only."""

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.engine import Containers, docker, logs, wait_for
from tests.deploy.manifests import environment, workload
from tests.servers.certificates import Authority, CertificateFolder

NAMES = {"config_svc": "config-svc", "session_svc": "session-svc", "chat_gateway": "chat-gateway"}
PASSWORD = "parley-tests"
SECRETS = {
    "<parley-postgres-app/uri>": f"postgresql://parley:{PASSWORD}@postgres:5432/parley",
    "<parley-redis/url>": f"redis://:{PASSWORD}@redis:6379",
}
AGENT = {"id": "crew", "name": "Crew", "template_id": "assistant", "model": {"provider": "mock", "name": "any"}}
MODEL = """
import http.server, json
class Model(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
        text = f"echo:{len(asked)}:{asked[-1]['content']}"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8000), Model).serve_forever()
"""


class Crew:
    """Three services, PostgreSQL, Redis and a model, each in a container under the name that it has in a cluster."""

    def __init__(self, containers: Containers, images: dict[str, str], folder: Path) -> None:
        self._containers = containers
        self._images = images
        self._folder = folder
        self.key = uuid.uuid4().hex + uuid.uuid4().hex
        self.running: dict[str, str] = {}

    def start_stores(self) -> None:
        start = self._containers.start
        secrets = {"POSTGRES_USER": "parley", "POSTGRES_PASSWORD": PASSWORD}
        postgres = start("postgres:18", env=secrets, name="postgres")
        redis = start("redis:8", "redis-server", "--requirepass", PASSWORD, "--protected-mode", "no", name="redis")
        start(self._images["config_svc"], "-c", MODEL, options=("--entrypoint", "python"), name="model")
        ready = ("exec", redis, "redis-cli", "--no-auth-warning", "-a", PASSWORD, "PING")
        wait_for(lambda: docker(*ready) == "PONG", redis)
        wait_for(lambda: "accept" in _said("exec", postgres, "pg_isready", "-h", "127.0.0.1"), postgres)

    def migrate(self) -> str:
        (container,) = workload("base", "config-svc-migrate").containers
        env = _with_secrets(environment("base", container))
        return self._containers.run(self._images["config_svc"], *container["args"], env=env)

    def start_services(self) -> None:
        authority = Authority()
        for service, name in NAMES.items():
            folder = self._folder / name
            files = CertificateFolder(folder / "tls", authority, name, f"spiffe://parley/{name}")
            (folder / "operator").mkdir()
            (folder / "operator" / "key").write_text(self.key)
            for file in (files.cert, files.key, files.ca, folder / "operator" / "key"):
                file.chmod(0o444)
            (container,) = workload("base", name).containers
            env = _with_secrets(environment("base", container))
            env |= {key: "0" for key in env if key.endswith("_DRAIN_NOTICE")}  # nobody balances the load here
            if name == "chat-gateway":
                env["PARLEY_PROVIDERS"] = '{"mock": {"base_url": "http://model:8000/v1"}}'
            options = (*Containers.HARDENED, "--volume", f"{folder}:/etc/parley:ro")
            options += (
                ("--publish", "127.0.0.1::8080", "--publish", "127.0.0.1::9101") if name == "chat-gateway" else ()
            )
            self.running[service] = self._containers.start(self._images[service], env=env, options=options, name=name)
        self._containers.wait_healthy(*self.running.values())

    def client(self, port: int = 8080) -> httpx.Client:
        where = docker("port", self.running["chat_gateway"], f"{port}/tcp").splitlines()[0]
        return httpx.Client(base_url=f"http://{where}", trust_env=False, timeout=30)

    def chat(self, text: str) -> str:
        body = {"model": "crew", "session_id": "log", "messages": [{"role": "user", "content": text}]}
        with self.client() as client:
            answer = client.post("/v1/chat/completions", json=body, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def _with_secrets(settings: dict[str, str]) -> dict[str, str]:
    return {key: SECRETS.get(value, value) for key, value in settings.items()}


def _said(*command: str) -> str:
    try:
        return docker(*command)
    except AssertionError as error:
        return str(error)


@pytest.fixture
def crew(
    images: dict[str, str], stores: None, containers: Containers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("crew")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # the user in the containers is another one
    with containers.network(hashlib.sha256(str(folder).encode()).hexdigest()[:12]):
        yield Crew(containers, images, folder)


def test_containers_with_the_settings_of_the_base_hold_a_conversation(crew: Crew, containers: Containers) -> None:
    crew.start_stores()
    assert "migrated" in crew.migrate()
    crew.start_services()
    with crew.client() as client:
        assert client.post("/v1/agents", json=AGENT).status_code == 401
        assert client.post("/v1/agents", json=AGENT, headers=crew.headers).status_code == 201
    with crew.client(port=9101) as metrics:
        assert "parley_turns_queued" in metrics.get("/metrics").text
    assert crew.chat("one") == "echo:1:one"
    # Any replica serves any turn: the session goes on in containers that never saw it.
    assert containers.stop(crew.running["chat_gateway"]) == 0
    assert containers.stop(crew.running["session_svc"]) == 0
    docker("start", crew.running["session_svc"], crew.running["chat_gateway"])
    containers.wait_healthy(*crew.running.values())
    assert crew.chat("two") == "echo:3:two"
    for service, container in reversed(crew.running.items()):
        assert containers.stop(container) == 0, service


def test_a_container_without_settings_says_what_it_lacks(images: dict[str, str], containers: Containers) -> None:
    container = containers.start(images["config_svc"], options=Containers.HARDENED)
    assert docker("wait", container) == "1"
    assert "PARLEY_CONFIG_DATABASE_URL: is required" in logs(container)
