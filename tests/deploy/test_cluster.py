"""Production in the cluster that PARLEY_TEST_KUBECONFIG names: rollout, chat, quiet diff, drain, backup, restore.

The cluster has what docs/operations/upgrade.md asks for. PARLEY_TEST_OVERLAY is an overlay of yours on production (its
images, issuer and classes), PARLEY_TEST_AGENT the id of an agent there that answers. The restore has to be refused,
since the stores are full: nothing of the cluster's is emptied.
"""

import base64
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import pytest

from tests.deploy.conftest import not_run
from tests.deploy.engine import ROOT
from tests.deploy.tools import program
from tests.servers.ports import free_port

JOB_SECONDS = 600.0
T = TypeVar("T")


class Cluster:
    """kubectl on one cluster, in the namespace of production."""

    def __init__(self, kubeconfig: str) -> None:
        path = f"{program('kubectl').parent}:{os.environ['PATH']}"
        self._env = os.environ | {"KUBECONFIG": kubeconfig, "PATH": path}
        overlay = os.environ.get("PARLEY_TEST_OVERLAY", str(ROOT / "deploy/k8s/overlays/production"))
        self.overlay = overlay

    def run(self, *command: str, input: str | None = None, code: int = 0) -> str:
        done = subprocess.run(command, env=self._env, input=input, capture_output=True, text=True, timeout=1800)
        assert done.returncode == code, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.run("kubectl", "--namespace", "parley", *arguments, **more)

    def rollout(self) -> str:
        return self.run(str(ROOT / "deploy/k8s/rollout"), self.overlay)

    def finished(self, job: str) -> str:
        """The condition that a Job ends with."""

        def ended() -> str:
            seen = json.loads(self.kubectl("get", "job", job, "--output", "json"))["status"].get("conditions", [])
            return next((one["type"] for one in seen if one["type"] in ("Complete", "Failed")), "")

        return eventually(ended)

    @contextmanager
    def gateway(self) -> Iterator[httpx.Client]:
        secret = json.loads(self.kubectl("get", "secret", "parley-operator", "--output", "json"))
        key, port = base64.b64decode(secret["data"]["key"]).decode().strip(), free_port()
        forward = subprocess.Popen(
            ["kubectl", "--namespace", "parley", "port-forward", "svc/chat-gateway", f"{port}:8080"],
            env=self._env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        headers = {"Authorization": f"Bearer {key}"}
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=120
            ) as one:
                eventually(lambda: answers(one))
                yield one
        finally:
            forward.terminate()
            forward.wait()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/startedz").status_code == 200
    except httpx.TransportError:
        return False


def eventually(happened: Callable[[], T]) -> T:
    deadline = time.monotonic() + JOB_SECONDS
    while not (found := happened()):
        assert time.monotonic() < deadline, "not so in time"
        time.sleep(1)
    return found


def chat(client: httpx.Client, session: str, text: str) -> httpx.Response:
    body = {"model": os.environ["PARLEY_TEST_AGENT"], "session_id": session}
    return client.post("/v1/chat/completions", json={**body, "messages": [{"role": "user", "content": text}]})


@pytest.fixture
def cluster() -> Cluster:
    kubeconfig = os.environ.get("PARLEY_TEST_KUBECONFIG")
    if not kubeconfig:
        not_run("PARLEY_TEST_KUBECONFIG names no cluster")
    if "PARLEY_TEST_AGENT" not in os.environ:
        not_run("PARLEY_TEST_AGENT names no agent of the cluster")
    return Cluster(kubeconfig)


def test_a_cluster_rolls_out_chats_is_quiet_drains_and_is_saved(cluster: Cluster) -> None:
    cluster.rollout()
    session = f"test-{uuid.uuid4().hex}"
    with cluster.gateway() as client:
        assert chat(client, session, "one").status_code == 200

    lasting = "app.kubernetes.io/component notin (migration, setup)"
    objects = cluster.run("kubectl", "kustomize", cluster.overlay)
    assert cluster.kubectl("diff", "--filename", "-", "--selector", lasting, input=objects) == ""
    again = cluster.kubectl("apply", "--filename", "-", "--selector", lasting, input=objects)
    assert [line for line in again.splitlines() if not line.endswith(" unchanged")] == []
    cluster.rollout()

    node = cluster.kubectl("get", "pod", "redis-0", "--output", "jsonpath={.spec.nodeName}")
    try:
        cluster.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=15m")
    finally:
        cluster.kubectl("uncordon", node)
    with cluster.gateway() as client:
        assert chat(client, session, "two").status_code == 200

    saved, restored = (f"{what}-{uuid.uuid4().hex[:8]}" for what in ("backup", "restore"))
    cluster.kubectl("create", "job", "--from=cronjob/backup", saved)
    assert cluster.finished(saved) == "Complete"
    cluster.kubectl("create", "job", "--from=cronjob/restore", restored)
    assert cluster.finished(restored) == "Failed"
    assert "a restore goes into an empty one" in cluster.kubectl("logs", f"job/{restored}", "--container", "redis")
