"""The migration is through before a service is replaced, and whatever fails before it leaves the services alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.engine import ROOT
from tests.deploy.manifests import objects
from tests.deploy.tools import program

SERVICES = ("config-svc", "session-svc", "chat-gateway")
CLUSTER = """#!{python}
# A cluster that takes everything, writes down what it was told, and whose migration ends as FATE says.
import os, subprocess, sys
arguments = sys.argv[1:]
if arguments[0] == "kustomize":
    sys.exit(subprocess.run([{kubectl!r}, *arguments]).returncode)
with open(os.environ["TOLD"], "a") as told:
    told.write(" ".join(arguments) + "\\n")
if "wait" in arguments and "job" in arguments:
    sys.exit(int(os.environ["FATE"]))
"""


def rollout(tmp_path: Path, fate: int) -> tuple[int, list[str]]:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(CLUSTER.format(python=sys.executable, kubectl=str(program("kubectl"))))
    kubectl.chmod(0o755)
    told = tmp_path / "told"
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TOLD": str(told), "FATE": str(fate)}
    command = [ROOT / "deploy" / "k8s" / "rollout", ROOT / "deploy" / "k8s" / "overlays" / "production"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, told.read_text().splitlines()


def place(told: list[str], *words: str) -> int:
    (found,) = [number for number, line in enumerate(told) if all(word in line for word in words)]
    return found


def test_the_order_is_what_must_be_there_then_the_migration_then_the_services(tmp_path: Path) -> None:
    code, told = rollout(tmp_path, fate=0)
    assert code == 0
    order = [
        place(told, "delete job", "migration"),
        place(told, "apply", "notin (service, migration)"),
        place(told, "wait", "clusters.postgresql.cnpg.io/parley-postgres"),
        place(told, "apply", "component=migration"),
        place(told, "wait", "job", "component=migration"),
        place(told, "apply", "component=service"),
        *(
            place(told, "rollout status", f"deployment/{name}")
            for name in ("config-svc", "session-svc", "chat-gateway")
        ),
    ]
    assert order == sorted(order)
    assert all("--namespace parley" in line for line in told if "rollout" in line or "wait" in line)


def test_a_migration_that_fails_leaves_the_services_alone(tmp_path: Path) -> None:
    code, told = rollout(tmp_path, fate=1)
    assert code != 0
    assert not [line for line in told if "component=service" in line or "rollout status" in line]


@pytest.mark.parametrize("component", ["service", "migration", "setup"])
def test_the_labels_that_the_order_goes_by_are_there(component: str) -> None:
    found = [one for one in objects("production")
             if one["metadata"].get("labels", {}).get("app.kubernetes.io/component") == component]  # fmt: skip
    kinds = {(one["kind"], one["metadata"]["name"]) for one in found}
    assert (
        kinds
        == {
            "service": {("Deployment", name) for name in SERVICES},
            "migration": {("Job", "config-svc-migrate")},
            "setup": {("Job", "redis-create")},
        }[component]
    )
