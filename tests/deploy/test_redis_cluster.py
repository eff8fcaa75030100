"""Production's Redis: made once out of empty nodes, and whole again when every pod came back with another address."""

import uuid

import pytest

from tests.deploy.engine import ROOT, Containers, docker, wait_for
from tests.deploy.manifests import workload

PASSWORD = "parley-tests"
SCRIPTS = ROOT / "deploy" / "k8s" / "overlays" / "production"


def started(containers: Containers, hosts: list[str]) -> list[str]:
    """Start a node for each host, by the command that the manifest has."""
    (redis, _) = workload("production", "redis").containers
    command = [argument.replace("$(REDIS_PASSWORD)", PASSWORD) for argument in redis["args"]]
    options = ("--volume", f"{SCRIPTS}:/etc/redis:ro", "--volume", "/data", "--read-only", "--cap-drop", "ALL")
    env = {"REDIS_PASSWORD": PASSWORD, "MEET_SECONDS": "1"}
    return [containers.start("redis:8", *command, env=env, options=options, name=host) for host in hosts]


def ask(node: str, *command: str) -> dict[str, str]:
    said = docker("exec", node, "redis-cli", "--no-auth-warning", "-a", PASSWORD, *command)
    return dict(line.strip().split(":", 1) for line in said.splitlines() if ":" in line)


def whole(nodes: list[str]) -> bool:
    seen = (ask(node, "CLUSTER", "INFO") for node in nodes)
    return all(
        one["cluster_state"] == "ok" and one["cluster_slots_ok"] == "16384" and one["cluster_known_nodes"] == "6"
        for one in seen
    )


def address(node: str) -> str:
    return docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", node)


@pytest.fixture
def hosts() -> list[str]:
    """The names that the manifest gives to both scripts."""
    (_, members) = workload("production", "redis").containers
    (create,) = workload("production", "redis-create").containers
    assert members["args"] == create["args"] == [f"redis-{number}.redis" for number in range(6)]
    assert workload("production", "redis").replicas == 6
    return list(create["args"])


def test_a_cluster_is_made_once_and_survives_new_addresses(
    stores: None, containers: Containers, hosts: list[str]
) -> None:
    with containers.network(f"parley-{uuid.uuid4().hex[:8]}"):
        nodes = started(containers, hosts)
        create = ("exec", nodes[0], "sh", "/etc/redis/redis-create.sh", *hosts)
        assert "All 16384 slots covered" in docker(*create)
        wait_for(lambda: whole(nodes), nodes[0])
        assert docker(*create) == "the cluster is there"
        roles = sorted(ask(node, "INFO", "replication")["role"] for node in nodes)
        assert roles == ["master"] * 3 + ["slave"] * 3

        before = [address(node) for node in nodes]
        docker("stop", "--time", "5", *nodes)
        strangers = [containers.start("redis:8") for _ in nodes]
        docker("start", *nodes)
        assert not {address(node) for node in nodes} & set(before), f"{len(strangers)} others have them now"
        wait_for(lambda: not any(ask(node, "CLUSTER", "INFO")["cluster_state"] == "ok" for node in nodes), nodes[0])
        for node in nodes:
            docker("exec", "--detach", node, "sh", "/etc/redis/redis-members.sh", *hosts)
        wait_for(lambda: whole(nodes), nodes[0])
