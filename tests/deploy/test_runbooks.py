"""Runbooks name what is there: settings, metrics, scripts, Kubernetes objects (links: tests/unit/test_documents.py)."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.engine import ROOT
from tests.deploy.manifests import named, rendered
from tests.deploy.service_settings import CLASSES, names_of

PAGES = sorted((ROOT / "docs" / "operations").glob("*.md"))
WRITTEN_BY_US = {"upgrade.md", "scaling.md", "backup.md", "incidents.md"}
OVERLAYS = {"parley": "production", "parley-dev": "dev", "parley-small": "small"}
KINDS = {"deploy": "Deployment", "svc": "Service", "cronjob": "CronJob", "job": "Job", "cluster": "Cluster"}
SOURCE = "\n".join(path.read_text() for folder in ("services", "libs", "cli") for path in (ROOT / folder).rglob("*.py"))


@pytest.fixture(params=[page for page in PAGES if page.name in WRITTEN_BY_US], ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_all_runbooks_are_there() -> None:
    assert {page.name for page in PAGES} >= WRITTEN_BY_US


def test_settings_and_metrics_are_those_of_the_code(page: Path) -> None:
    known = set().union(*map(names_of, CLASSES.values()))
    text = page.read_text()
    assert set(re.findall(r"\bPARLEY_[A-Z_]+[A-Z]\b", text)) <= known | {"PARLEY_URL", "PARLEY_API_KEY"}
    for metric in set(re.findall(r"\bparley_[a-z_]+[a-z]\b", text)) - {"parley_sk"}:
        assert f'"{metric.removesuffix("_total")}"' in SOURCE, metric


def test_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"`((?:deploy|tests|docs|benchmarks)/[\w/.-]+)`", page.read_text()):
        assert (ROOT / name).exists(), name


def kubectl_commands(text: str) -> Iterator[str]:
    """Yield what follows each `kubectl`, up to the end of its line, a pipe, a comment or a backtick."""
    for found in re.finditer(r"\bkubectl ((?:\\\n|[^\n`|&#])+)", text):
        yield found[1].replace("\\\n", " ").strip()


def check_kubectl(command: str, made: set[str]) -> None:
    """Hold what a command names against the manifests of its namespace's overlay."""
    if not command.startswith("-n "):
        # These find the namespace in files, or need none.
        assert re.match(r"apply( -[fk]|`|$)|label namespace |cnpg |diff", command), f"{command}: in which namespace?"
        for path in re.findall(r"-[fk] (deploy\S+)", command):
            assert (ROOT / path).exists(), command
        return
    _, namespace, *_ = command.split()
    overlay = OVERLAYS[namespace]
    for kind, name in re.findall(r"(?<!file=)\b(deploy|svc|cronjob|job|cluster)[/ ](?!--)([\w-]+)", command):
        assert (kind == "job" and name in made) or named(overlay, KINDS[kind], name), command
    for secret in re.findall(r"\bsecret (?:generic )?([\w-]+)", command):
        assert secret in rendered(overlay), command
    for name, container in re.findall(r"\bexec ([\w-]+)-\d+ -c (\w+)", command):
        pods = named(overlay, "StatefulSet", name)["spec"]["template"]["spec"]
        assert container in {one["name"] for one in pods["containers"]}, command
    if " port-forward " in command:
        kind, name, ports = re.findall(r"(deploy|svc)/(\S+)((?: \d+)+)", command)[0]
        assert set(map(int, ports.split())) <= ports_of(overlay, KINDS[kind], name), command


def ports_of(overlay: str, kind: str, name: str) -> set[int]:
    """Return the ports of a service, or of the containers of a Deployment."""
    spec = named(overlay, kind, name)["spec"]
    if kind == "Service":
        return {port["port"] for port in spec["ports"]}
    return {port["containerPort"] for one in spec["template"]["spec"]["containers"] for port in one.get("ports", ())}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_objects_in_kubernetes_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    made = set(re.findall(r"\bcreate job --from=\S+ ([\w-]+)", text))
    for command in kubectl_commands(text):
        check_kubectl(command, made)


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            "rollout restart deploy/chat-gateway",
            "apply -k deploy/k8s/overlays/huge",
            "-n parley rollout undo deploy/gateway",
        ),
        *(
            "-n parley logs job/never-made",
            "-n parley exec redis-0 -c server -- sh",
            "-n parley get secret parley-keys",
        ),
        *("-n parley port-forward deploy/chat-gateway 9999", "-n parley get cluster postgres"),
    ],
)
def test_a_command_that_names_what_is_not_there_is_found(wrong: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check_kubectl(wrong, set())
