"""Alert rules and dashboard name metrics that exist, and every alert has its page."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.mcp_server import McpServerUnderTest
from tests.servers.mock_model import Behaviour
from tests.servers.ports import free_port
from tests.servers.system import OpenSystem

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "observability"
NOT_METRICS = {"by", "le", "sum", "rate", "increase"} | {
    "max",
    "min",
    "min_over_time",
    "histogram_quantile",
    "on",
    "label_values",
}
OF_PROMETHEUS = {"up"}

RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def metrics_in(expression: str) -> set[str]:
    """Return the names of the series in a PromQL expression: what is neither a function, a label nor text."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\b(by|without|on)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    return set(re.findall(r"[a-z_][a-z0-9_]*", bare)) - NOT_METRICS


@pytest.fixture(scope="module")
def served(open_system: OpenSystem) -> Iterator[dict[str, set[str]]]:
    """The series that the three services serve after a turn that called a tool, with their labels."""
    config_port, session_port = free_port(), free_port()
    with (
        McpServerUnderTest() as tools,
        open_system(
            "observed",
            config_env={"PARLEY_CONFIG_METRICS_PORT": str(config_port)},
            session_env={"PARLEY_SESSION_METRICS_PORT": str(session_port)},
            gateway_env={"PARLEY_TOOL_SERVERS": json.dumps({"own": {"url": tools.url}})},
        ) as system,
    ):
        system.create_agent("observed", tools=[{"mcp": {"operator_tool_server": "own", "allow": ["add"]}}])
        called = ("c1", "add", '{"a": 1, "b": 2}')
        system.model.script(Behaviour(text="", tool_calls=(called,), finish_reason="tool_calls"))
        assert system.chat("observed", "hello", session_id="s").status_code == 200
        with system.client() as client:
            assert client.delete("/v1/sessions/s").status_code == 204
        ports = [int(system.http_url.rpartition(":")[2]), config_port, session_port]
        found: dict[str, set[str]] = {}
        for port in ports:
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60, trust_env=False).text
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    found.setdefault(sample.name, set()).update(sample.labels)
        yield found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_metrics_that_are_served_and_has_its_page(rule: dict[str, Any], served: dict[str, Any]) -> None:
    named = metrics_in(rule["expr"])
    assert named
    assert named - OF_PROMETHEUS <= served.keys()
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (\S+)$", (ROOT / page).read_text(), re.M)
    assert anchor in [heading.lower() for heading in headings]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["for"]


def test_every_page_belongs_to_an_alert() -> None:
    headings = re.findall(r"^## (\S+)$", (ROOT / "docs/operations/alerts.md").read_text(), re.M)
    assert sorted(headings) == sorted(rule["alert"] for rule in RULES)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_names_metrics_and_labels_that_are_served(panel: dict[str, Any], served: dict[str, Any]) -> None:
    for target in panel["targets"]:
        named = metrics_in(target["expr"])
        assert named
        assert named <= served.keys(), target["expr"]
        known = {"instance", "namespace", "job"}.union(*(served[name] for name in named))
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= known
        for labels in re.findall(r"\bby \(([^)]*)\)", target["expr"]):
            assert {label.strip() for label in labels.split(",") if label.strip()} <= known


def test_the_guide_makes_a_prometheus_rule_of_the_alerts(tmp_path: Path) -> None:
    page = (ROOT / "docs/operations/observability.md").read_text()
    [block] = [one for one in re.findall(r"```sh\n(.*?)```", page, re.S) if "PrometheusRule" in one]
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f'#!/bin/sh\ncase "$*" in *apply*) cat >"{tmp_path}/applied" ;; esac\necho "$*" >>"{tmp_path}/told"\n'
    )
    kubectl.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "OUT": str(tmp_path)}
    subprocess.run(["bash", "-euc", block], cwd=ROOT, env=env, timeout=180, check=True)
    made = yaml.safe_load((tmp_path / "applied").read_text())
    assert (made["kind"], made["spec"]["groups"][0]["rules"]) == ("PrometheusRule", RULES)
    assert all(Path(ROOT, path).is_file() for path in re.findall(r"--from-file=(\S+)", (tmp_path / "told").read_text()))


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: the rules are not run")
@pytest.mark.parametrize("arguments", [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]])
def test_prometheus_takes_the_rules_and_they_fire_when_they_should(arguments: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
