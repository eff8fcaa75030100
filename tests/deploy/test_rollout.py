"""A rollout begins with what the cluster lacks, and replaces no service before the migration is through."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.custom_resources import SHAPES
from tests.deploy.engine import ROOT
from tests.deploy.manifests import named, objects, references, workloads
from tests.deploy.tools import program

SERVICES = ("config-svc", "session-svc", "chat-gateway")
CLUSTER = """#!{python}
# A cluster that takes everything, writes down what it was told, has what HAS names, and whose Jobs end as FATE says.
import json, os, subprocess, sys
arguments = sys.argv[1:]
if arguments[0] == "kustomize":
    sys.exit(subprocess.run([{kubectl!r}, *arguments]).returncode)
has, fate, line = json.loads(os.environ["HAS"]), os.environ["FATE"], " ".join(arguments)
with open(os.environ["TOLD"], "a") as told:
    told.write(line + "\\n")
if arguments[0] == "api-resources":
    print("\\n".join(["pods po v1 true Pod", *(f"things {{api.replace(' ', ' true ')}}" for api in has["apis"])]))
elif "get storageclasses" in line:
    print('storageclass.kubernetes.io/is-default-class: "true"' if has["storage"] else "items: []")
elif arguments[0] == "version":
    print("clientVersion:\\n  minor: '99'\\nserverVersion:\\n  major: '1'\\n  minor: " + repr(has["minor"]))
elif "get --raw" in line and "custom.metrics" in line:
    sys.exit(0 if has["adapter"] else 1)
elif "get --raw" in line:
    sys.exit(0 if has["metrics"] else 1)
elif "get secret" in line or arguments[0] == "get" and "." in arguments[1]:
    sys.exit(0 if arguments[-1] in has["names"] else 1)
elif "get jobs" in line:
    component = "setup" if "setup" in line else "migration"
    job = "redis-create" if component == "setup" else "config-svc-migrate"
    ends = {{"failed": "FailureTarget Failed", "never started": ""}}
    print(job, "Complete" if component == "setup" else ends.get(fate, "Complete"))
elif "logs" in arguments:
    print("config_svc: cannot start: the database says no")
elif "get events" in line:
    print("Warning FailedCreate job/config-svc-migrate exceeded quota")
"""


def what_production_needs() -> dict[str, Any]:
    """By the objects themselves, not as the script finds it."""
    found = objects("production")
    ours = [(one["apiVersion"], one["kind"]) for one in found]
    pods = [references(one.spec) for one in workloads("production")]
    made = {one["metadata"]["name"] for one in found if one["kind"] in ("ConfigMap", "Secret")}
    made |= {one["spec"]["secretName"] for one in found if one["kind"] == "Certificate"}
    made |= {f"{one['metadata']['name']}-app" for one in found if one["kind"] == "Cluster"}
    gateway = named("production", "Gateway", "parley")
    return {
        "apis": sorted({f"{version} {kind}" for version, kind in ours if (version, kind) in SHAPES}),
        "names": [
            *sorted(set().union(*pods) - made),
            gateway["spec"]["gatewayClassName"],
            gateway["metadata"]["annotations"]["cert-manager.io/cluster-issuer"],
            named("production", "Cluster", "parley-postgres")["spec"]["backup"]["volumeSnapshot"]["className"],
        ],
        "storage": True,
        "metrics": True,
        "adapter": True,
        "minor": "36+",
    }


def rollout(tmp_path: Path, fate: str = "complete", has: dict[str, Any] | None = None) -> tuple[int, list[str], str]:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(CLUSTER.format(python=sys.executable, kubectl=str(program("kubectl"))))
    kubectl.chmod(0o755)
    told = tmp_path / "told"
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TOLD": str(told), "FATE": fate}
    env |= {"HAS": json.dumps(has or what_production_needs()), "ROLLOUT_TIMEOUT": "1s", "ROLLOUT_POLL_SECONDS": "0.1"}
    command = [ROOT / "deploy" / "k8s" / "rollout", ROOT / "deploy" / "k8s" / "overlays" / "production"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)
    return done.returncode, told.read_text().splitlines(), done.stderr


def place(told: list[str], *words: str) -> int:
    (found,) = [number for number, line in enumerate(told) if all(word in line for word in words)]
    return found


def test_the_order_is_what_must_be_there_then_the_migration_then_the_services(tmp_path: Path) -> None:
    code, told, said = rollout(tmp_path)
    assert (code, said) == (0, "")
    order = [
        place(told, "api-resources"),
        place(told, "delete job", "migration"),
        place(told, "apply", "notin (service, migration)"),
        place(told, "wait", "clusters.postgresql.cnpg.io/parley-postgres"),
        place(told, "apply", "component=migration"),
        place(told, "get jobs", "component=migration"),
        place(told, "get jobs", "component=setup"),
        place(told, "apply", "component=service"),
        *(place(told, "rollout status", f"deployment/{name}") for name in SERVICES),
    ]
    assert order == sorted(order)
    assert all("--namespace parley" in line for line in told if "rollout" in line or "wait" in line or "jobs" in line)


@pytest.mark.parametrize(("fate", "what"), [
    ("failed", "the Job config-svc-migrate failed"),
    ("never started", "not complete after 1s: the Job config-svc-migrate"),
])  # fmt: skip
def test_a_migration_that_fails_says_why_and_leaves_the_services_alone(tmp_path: Path, fate: str, what: str) -> None:
    code, told, said = rollout(tmp_path, fate)
    assert code == 1
    assert not [line for line in told if "component=service" in line or "rollout status" in line]
    assert what in said
    assert "the database says no" in said, "the Job's log"
    assert "exceeded quota" in said, "the warning events"


def test_everything_that_the_cluster_lacks_is_named_at_once_and_nothing_is_touched(tmp_path: Path) -> None:
    needs = what_production_needs()
    bare = {"apis": ["apps/v1 Deployment"], "names": [], "storage": False, "metrics": False, "minor": "29"}
    code, told, said = rollout(tmp_path, has=bare)
    assert code == 1
    assert not [line for line in told if "apply" in line or "delete" in line]
    for api in needs["apis"]:
        version, _, kind = api.partition(" ")
        assert f"  {kind} of {version} " in said
    for name in needs["names"]:
        assert name in said
    assert "Kubernetes 1.30 or newer: this one is 1.29" in said
    assert "a default StorageClass" in said
    assert "metrics.k8s.io" in said
    assert len(said.splitlines()) == 1 + len(needs["apis"]) + len(needs["names"]) + 3


def test_an_autoscaler_that_lacks_its_metric_is_no_reason_to_stop_and_not_kept_quiet(tmp_path: Path) -> None:
    code, told, said = rollout(tmp_path, has=what_production_needs() | {"adapter": False})
    assert code == 0
    assert [line for line in told if "rollout status" in line]
    assert "never down (docs/operations/scaling.md)" in said


def test_what_is_checked_stands_in_the_runbook() -> None:
    page = (ROOT / "docs/operations/upgrade.md").read_text()
    needs = what_production_needs()
    groups = {api.partition("/")[0] for api in needs["apis"]} | {"metrics.k8s.io", "snapshot.storage.k8s.io"}
    assert [what for what in (*sorted(groups), *needs["names"], "default StorageClass") if f"{what}" not in page] == []


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
