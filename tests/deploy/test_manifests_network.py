"""NetworkPolicies allow the arrows that the settings of the services draw, and no other."""

import ipaddress
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from chat_gateway.settings import GatewaySettings
from config_svc.settings import ConfigSettings
from servicekit.settings import ServiceSettings
from session_svc.settings import SessionSettings
from tests.deploy.engine import ROOT
from tests.deploy.manifests import Object, environment, of_kind, selects, workload, workloads

SETTINGS: dict[str, type[ServiceSettings]] = {
    "config-svc": ConfigSettings,
    "session-svc": SessionSettings,
    "chat-gateway": GatewaySettings,
}
STORES = {"database_url": ("postgres", 5432), "redis_url": ("redis", 6379)}
TOOLS = {"namespaceSelector": {"matchLabels": {"parley.dev/tools": "true"}}}
AMONG_THEMSELVES = {
    ("chat-gateway", "chat-gateway", 8080),
    ("redis", "redis", 6379),
    ("redis", "redis", 16379),
    *(("postgres", "postgres", port) for port in (5432, 8000)),
}
FOR_THE_START = {("config-svc-migrate", "postgres", 5432), ("redis-create", "redis", 6379)}
FOR_BACKUPS = {(job, store, port) for job in ("backup", "restore") for store, port in STORES.values()}
Arrow = tuple[str, str, int]


def drawn() -> Iterator[Arrow]:
    """The arrows of the architecture: whoever has a target or a store's address in its settings calls it."""
    for caller, settings in SETTINGS.items():
        for field in settings.model_fields:
            if field.endswith("_target"):
                called = f"{field.removesuffix('_target')}-svc"
                yield caller, called, SETTINGS[called].model_fields["grpc_port"].default
            elif field in STORES:
                yield caller, *STORES[field]


def pods() -> dict[str, dict[str, str]]:
    """Every kind of pod in the namespace with its labels; CloudNativePG makes those of PostgreSQL."""
    found = {one.name: one.labels for one in workloads("production")}
    (cluster,) = of_kind("production", "Cluster")
    return found | {"postgres": {"cnpg.io/cluster": cluster["metadata"]["name"]}}


def rules(direction: str, labels: dict[str, str]) -> list[Object] | None:
    """The rules that hold for a pod in a direction; None is no policy at all, which allows everything."""
    policies = [
        policy["spec"]
        for policy in of_kind("production", "NetworkPolicy")
        if direction.title() in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], labels)
    ]
    if not policies:
        return None
    return [rule for policy in policies for rule in policy.get(direction, [])]


def allows(direction: str, mine: dict[str, str], other: dict[str, str], port: int) -> bool:
    found = rules(direction, mine)
    if found is None:
        return True
    side = "from" if direction == "ingress" else "to"
    for rule in found:
        if port not in [one["port"] for one in rule["ports"]]:
            continue
        if side not in rule:
            return True
        for peer in rule[side]:
            if set(peer) == {"podSelector"} and selects(peer["podSelector"], other):
                return True
    return False


def ports_of(name: str) -> set[int]:
    return {5432, 8000} if name == "postgres" else set(workload("production", name).ports.values())


def allowed() -> set[Arrow]:
    everything = pods()
    return {
        (caller, called, port)
        for caller, called in itertools.product(everything, repeat=2)
        for port in ports_of(called)
        if allows("egress", everything[caller], everything[called], port)
        and allows("ingress", everything[called], everything[caller], port)
    }


def test_the_arrows_are_those_of_the_architecture() -> None:
    architecture = set(drawn())
    assert architecture == {
        ("chat-gateway", "session-svc", 50053),
        ("chat-gateway", "config-svc", 50052),
        ("session-svc", "config-svc", 50052),
        ("session-svc", "redis", 6379),
        ("config-svc", "postgres", 5432),
    }
    assert allowed() == architecture | AMONG_THEMSELVES | FOR_THE_START | FOR_BACKUPS


def test_one_end_of_an_arrow_is_not_enough() -> None:
    """Both ends say yes: half an arrow would be a hole that nobody sees until the other half is opened."""
    everything = pods()
    for caller, called, _ in allowed():
        assert rules("egress", everything[caller]) is not None
        assert rules("ingress", everything[called]) is not None
    for (caller, mine), (called, theirs) in itertools.product(everything.items(), repeat=2):
        for port in ports_of(called) - {443}:
            said = (allows("egress", mine, theirs, port), allows("ingress", theirs, mine, port))
            assert said[0] == said[1], (caller, called, port)


def test_who_reaches_in_from_other_namespaces() -> None:
    outside = {}
    for name, labels in pods().items():
        found = set()
        for rule in rules("ingress", labels) or []:
            for peer in rule["from"]:
                if "namespaceSelector" in peer:
                    (label,) = peer["namespaceSelector"]["matchLabels"].items()
                    found |= {("=".join(label), port["port"]) for port in rule["ports"]}
        outside[name] = found
    assert outside == {
        "chat-gateway": {
            ("parley.dev/ingress=true", 8080),
            ("parley.dev/ingress=true", 50051),
            ("parley.dev/scrapes=true", 9101),
        },
        "session-svc": {("parley.dev/scrapes=true", 9103)},
        "config-svc": {("parley.dev/scrapes=true", 9102)},
        "postgres": {
            ("kubernetes.io/metadata.name=cnpg-system", 5432),
            ("kubernetes.io/metadata.name=cnpg-system", 8000),
        },
        "config-svc-migrate": set(),
        "redis": set(),
        "redis-create": set(),
        "backup": set(),
        "restore": set(),
    }


def test_only_the_gateway_goes_out_into_the_world() -> None:
    for name, labels in pods().items():
        assert bool(world(labels)) is (name == "chat-gateway"), name


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("fd00:ec2::254", False),
        ("fe80::1", False),
    ],
)
def test_the_gateway_goes_out_to_public_addresses_of_both_families(address: str, reached: bool) -> None:
    blocks = world(pods()["chat-gateway"])
    assert (
        any(
            inside(address, block["cidr"]) and not any(inside(address, kept) for kept in block["except"])
            for block in blocks
        )
        is reached
    )


def world(labels: dict[str, str]) -> list[dict[str, Any]]:
    return [
        peer["ipBlock"] for rule in rules("egress", labels) or [] for peer in rule.get("to", []) if "ipBlock" in peer
    ]


def inside(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def test_tool_servers_of_the_cluster_are_reached_in_namespaces_that_the_operator_labels() -> None:
    reaches = {}
    for name, labels in pods().items():
        rules_out = [rule for rule in rules("egress", labels) or [] for peer in rule.get("to", []) if peer == TOOLS]
        reaches[name] = [(port["port"], port["endPort"]) for rule in rules_out for port in rule["ports"]]
    assert reaches.pop("chat-gateway") == [(1, 65535)]  # the gateway's own egress rules say which of them
    assert not any(reaches.values())
    assert "parley.dev/tools=true" in (ROOT / "docs/operations/upgrade.md").read_text()


def test_everybody_may_ask_for_names() -> None:
    for name, labels in pods().items():
        dns = [rule for rule in rules("egress", labels) or [] if 53 in [port["port"] for port in rule["ports"]]]
        assert len(dns) == 1, name


def test_a_restore_names_one_address_of_its_pod_to_redis() -> None:
    """`hostname -i` prints all of them: two in a dual-stack cluster."""
    (redis,) = [one for one in workload("production", "restore").containers if one["name"] == "redis"]
    assert environment("production", redis)["RESTORE_HOST"] == "<status.podIP>"
    assert "hostname -" not in str([one.spec for one in workloads("production")])
