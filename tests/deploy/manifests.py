"""What an overlay comes to: its objects as kubectl puts them together, and the pods that they make."""

import base64
import functools
import importlib.util
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import yaml

from tests.deploy.engine import ROOT
from tests.deploy.tools import program

OVERLAYS = ("dev", "small", "production")
Object = dict[str, Any]


@functools.cache
def rendered(overlay: str) -> str:
    """Return the overlay's objects as one YAML document stream; `base` is one too."""
    folder = ROOT / "deploy" / "k8s" / (overlay if overlay == "base" else f"overlays/{overlay}")
    done = subprocess.run(
        [program("kubectl"), "kustomize", folder], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns"
    return done.stdout


@functools.cache
def objects(overlay: str) -> list[Object]:
    """Return the overlay's objects."""
    return list(yaml.safe_load_all(rendered(overlay)))


def of_kind(overlay: str, *kinds: str) -> list[Object]:
    """Return the objects of some kinds."""
    return [found for found in objects(overlay) if found["kind"] in kinds]


def named(overlay: str, kind: str, name: str) -> Object:
    """Return one object, which must be there."""
    (found,) = [one for one in of_kind(overlay, kind) if one["metadata"]["name"] == name]
    return found


@dataclass(frozen=True)
class Workload:
    """Something that makes pods: its name, their labels and their specification."""

    kind: str
    name: str
    labels: dict[str, str]
    spec: Object
    replicas: int

    @property
    def containers(self) -> list[Object]:
        """Return all containers, those for the start as well."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        """Return the named ports of the pod."""
        return {port["name"]: port["containerPort"] for c in self.containers for port in c.get("ports", [])}


def workloads(overlay: str) -> list[Workload]:
    """Return everything in the overlay that makes pods and says how they look."""
    return list(_workloads(overlay))


def _workloads(overlay: str) -> Iterator[Workload]:
    minima = {scaler["spec"]["scaleTargetRef"]["name"]: scaler["spec"]["minReplicas"] for scaler in scalers(overlay)}
    for found in of_kind(overlay, "Deployment", "StatefulSet", "Job", "CronJob"):
        spec, name = found["spec"], found["metadata"]["name"]
        template = (spec["jobTemplate"]["spec"] if found["kind"] == "CronJob" else spec)["template"]
        replicas = spec.get("replicas", minima.get(name, 1))
        yield Workload(found["kind"], name, template["metadata"]["labels"], template["spec"], replicas)


@functools.cache
def make_secrets() -> ModuleType:
    """Return what the Job `setup` of the overlay `small` runs, as a module."""
    spec = importlib.util.spec_from_file_location("make_secrets", ROOT / "deploy/k8s/overlays/small/make_secrets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scalers(overlay: str) -> list[Object]:
    """Return the autoscalers."""
    return of_kind(overlay, "HorizontalPodAutoscaler")


def workload(overlay: str, name: str) -> Workload:
    """Return one workload, which must be there."""
    (found,) = [one for one in workloads(overlay) if one.name == name]
    return found


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Tell whether a label selector takes these labels."""
    assert set(selector) <= {"matchLabels"}, "no selector of ours needs more"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def environment(overlay: str, container: Object) -> dict[str, str]:
    """Return a container's environment.

    The value of a secret that is not the overlay's, or of a field of the pod, is its name in brackets.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            found |= named(overlay, "ConfigMap", source["configMapRef"]["name"]).get("data", {})
    for entry in container.get("env", []):
        if "value" in entry:
            found[entry["name"]] = entry["value"]
        elif "fieldRef" in entry["valueFrom"]:
            found[entry["name"]] = f"<{entry['valueFrom']['fieldRef']['fieldPath']}>"
        else:
            found[entry["name"]] = _secret(overlay, **entry["valueFrom"]["secretKeyRef"])
    return found


def _secret(overlay: str, name: str, key: str) -> str:
    for found in of_kind(overlay, "Secret"):
        if found["metadata"]["name"] == name:
            return base64.b64decode(found["data"][key]).decode()
    return f"<{name}/{key}>"


def references(value: Any, *, optional: bool = False) -> set[str]:
    """Return the names of the ConfigMaps and Secrets that a pod wants, or of those that it may do without."""
    if isinstance(value, list):
        return set().union(*(references(one, optional=optional) for one in value))
    if not isinstance(value, dict):
        return set()
    kinds = ("configMapRef", "secretRef", "configMapKeyRef", "secretKeyRef")
    named = [value[kind] for kind in kinds if kind in value]
    named += [value["configMap"]] if isinstance(value.get("configMap"), dict) else []
    named += [value] if "secretName" in value else []
    found = {one.get("secretName") or one["name"] for one in named if one.get("optional", False) is optional}
    return found | set().union(*(references(one, optional=optional) for one in value.values()))
