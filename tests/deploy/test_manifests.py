"""Every object of every overlay is one that a current Kubernetes takes, and each fits the others."""

import copy
import re

import kubernetes_validate
import pytest

from chat_gateway.http_edge.app import A2A_PREFIX, CHAT_PATH, RESPONSES_PATH
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.settings import GatewaySettings
from chat_gateway.tools.secrets import OPERATOR
from servicekit import channels
from servicekit.lifecycle import CLEANUP_MARGIN
from servicekit.server import STARTED
from tests.deploy import custom_resources
from tests.deploy.engine import ROOT, build_script
from tests.deploy.manifests import (
    OVERLAYS,
    Object,
    environment,
    make_secrets,
    named,
    objects,
    of_kind,
    references,
    rendered,
    scalers,
    selects,
    workload,
    workloads,
)

KUBERNETES = "1.37"
OURS = ("config-svc", "session-svc", "chat-gateway")
EXPORT_PATH = "/v1/users:export"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
STORES = {"postgres:18", "redis:8"}

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def title(found: Object) -> str:
    return f"{found['kind']}/{found['metadata']['name']}"


@every_overlay
def test_every_object_is_valid(overlay: str) -> None:
    for found in objects(overlay):
        if (found["apiVersion"], found["kind"]) in custom_resources.SHAPES:
            assert custom_resources.problems(found) == []
        else:
            kubernetes_validate.validate(found, KUBERNETES, strict=True)


def test_an_unknown_field_is_found() -> None:
    deployment = copy.deepcopy(named("production", "Deployment", "config-svc"))
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)
    route = copy.deepcopy(named("production", "HTTPRoute", "chat-gateway"))
    route["spec"]["rules"][0]["timeout"] = "1s"
    del route["spec"]["rules"][0]["backendRefs"][0]["port"]
    assert custom_resources.problems(route) == [
        "HTTPRoute.spec.rules[0].backendRefs[0].port is missing",
        "HTTPRoute.spec.rules[0].timeout is no field",
    ]


@every_overlay
def test_no_two_objects_have_one_name(overlay: str) -> None:
    names = [title(found) for found in objects(overlay)]
    assert sorted(names) == sorted(set(names))


@every_overlay
def test_everything_lives_in_the_overlays_namespace(overlay: str) -> None:
    (namespace,) = of_kind(overlay, "Namespace")
    others = [found for found in objects(overlay) if found["kind"] != "Namespace"]
    assert {found["metadata"].get("namespace") for found in others} == {namespace["metadata"]["name"]}


@every_overlay
def test_selectors_take_the_pods_they_mean(overlay: str) -> None:
    for found in of_kind(overlay, "Deployment", "StatefulSet"):
        assert selects(found["spec"]["selector"], found["spec"]["template"]["metadata"]["labels"]), title(found)
    taking = [
        *((found, {"matchLabels": found["spec"]["selector"]}) for found in of_kind(overlay, "Service")),
        *((found, found["spec"]["selector"]) for found in of_kind(overlay, "PodDisruptionBudget", "PodMonitor")),
    ]
    for found, selector in taking:
        taken = [one.name for one in workloads(overlay) if selects(selector, one.labels)]
        assert taken == [re.sub("-(grpc|http)$", "", found["metadata"]["name"])], title(found)
    for one in workloads(overlay):
        for spread in one.spec.get("topologySpreadConstraints", []):
            assert selects(spread["labelSelector"], one.labels), one.name


@every_overlay
def test_ports_that_are_named_exist(overlay: str) -> None:
    for service in of_kind(overlay, "Service"):
        (behind,) = [w for w in workloads(overlay) if selects({"matchLabels": service["spec"]["selector"]}, w.labels)]
        for port in service["spec"]["ports"]:
            assert behind.ports[port["targetPort"]] == port["port"], title(service)
    for monitor in of_kind(overlay, "PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint["port"] in workload(overlay, monitor["metadata"]["name"]).ports
    for one in workloads(overlay):
        assert len(one.ports) == sum(len(c.get("ports", [])) for c in one.containers), "a name for two ports"


@pytest.mark.parametrize("name", OURS)
def test_ports_are_those_that_the_settings_say(name: str) -> None:
    (container,) = workload("production", name).containers
    settings = environment("production", container)
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    said = {key.rpartition("PARLEY_")[2].partition("_")[2]: value for key, value in settings.items() if "_PORT" in key}
    assert {f"{key.upper()}_PORT": value for key, value in ports.items()} == said


@pytest.mark.parametrize("name", OURS)
def test_probes_are_grpcs_own_and_name_services_that_are_registered(name: str) -> None:
    (container,) = workload("production", name).containers
    health = workload("production", name).ports["health"]
    for probe in PROBES:
        assert container[probe]["grpc"]["port"] == health
    # A Service that lost all its pods would answer nothing at all: readiness follows start and drain, never a store.
    assert container["readinessProbe"]["grpc"]["service"] == STARTED
    # Being restarted helps nobody whose store is away.
    assert {container[p]["grpc"]["service"] for p in ("startupProbe", "livenessProbe")} == {"grpc.health.v1.Health"}


def test_probes_in_dev_ask_where_a_kubelet_cannot() -> None:
    prefixes = {"config-svc": "PARLEY_CONFIG_", "session-svc": "PARLEY_SESSION_", "chat-gateway": "PARLEY_GATEWAY_"}
    for container in workload("dev", "parley").containers:
        for probe in PROBES:
            assert "exec" in container[probe], "a kubelet does not reach a pod's loopback"
        if prefix := prefixes.get(container["name"]):
            assert container["startupProbe"]["exec"]["command"][-1] == prefix
            for probe, asked in (("readinessProbe", STARTED), ("livenessProbe", "grpc.health.v1.Health")):
                assert container[probe]["exec"]["command"][-3:] == [prefix, "--service", asked]
            assert f"{prefix}HEALTH_PORT" in environment("dev", container)


def test_a_budget_leaves_something_to_take() -> None:
    budgets = of_kind("production", "PodDisruptionBudget")
    standing = [one for one in workloads("production") if one.kind in ("Deployment", "StatefulSet")]
    assert {found["metadata"]["name"] for found in budgets} == {one.name for one in standing}
    for budget in budgets:
        replicas = workload("production", budget["metadata"]["name"]).replicas
        assert 0 < budget["spec"]["maxUnavailable"] < replicas, title(budget)


def test_autoscalers_scale_what_is_there_by_what_is_measured() -> None:
    measured = "\n".join(path.read_text() for path in (ROOT / "services").rglob("*.py"))
    for scaler in scalers("production"):
        target = named("production", "Deployment", scaler["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"], "an apply would undo what the autoscaler did"
        for metric in scaler["spec"]["metrics"]:
            if metric["type"] == "Pods":
                assert f'"{metric["pods"]["metric"]["name"]}"' in measured
            else:
                names = [c["name"] for c in target["spec"]["template"]["spec"]["containers"]]
                assert metric["containerResource"]["container"] in names
    by = {
        scaler["metadata"]["name"]: [m["type"] for m in scaler["spec"]["metrics"]] for scaler in scalers("production")
    }
    assert by == {"chat-gateway": ["ContainerResource", "Pods"], "session-svc": ["ContainerResource"]}


@pytest.mark.parametrize("name", OURS)
def test_replicas_are_spread_and_replaced_one_by_one(name: str) -> None:
    spreads = workload("production", name).spec["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spreads] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    strategy = named("production", "Deployment", name)["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxUnavailable": 0, "maxSurge": 1}


@pytest.mark.parametrize("name", OURS)
def test_the_next_replica_stops_only_when_callers_have_found_the_last(name: str) -> None:
    """The bounds are those of the channels that the services open."""
    bounds = dict(channels.CHANNEL_OPTIONS)
    found_ms = int(bounds["grpc.dns_min_time_between_resolutions_ms"]) + int(bounds["grpc.max_reconnect_backoff_ms"])
    assert named("production", "Deployment", name)["spec"]["minReadySeconds"] * 1000 > found_ms


@pytest.mark.parametrize("name", OURS)
def test_a_pod_is_given_the_time_to_drain(name: str) -> None:
    (container,) = workload("production", name).containers
    settings = environment("production", container)
    needed = sum(float(value) for key, value in settings.items() if key.endswith(("_DRAIN_NOTICE", "_DRAIN_TIMEOUT")))
    assert needed > 0
    assert workload("production", name).spec["terminationGracePeriodSeconds"] > needed + CLEANUP_MARGIN


@every_overlay
def test_every_container_says_what_it_needs_at_least_and_at_most(overlay: str) -> None:
    for one in workloads(overlay):
        for container in one.containers:
            for bound in ("requests", "limits"):
                assert set(container["resources"][bound]) == {"cpu", "memory"}, (one.name, container["name"])


@every_overlay
def test_every_pod_is_restricted(overlay: str) -> None:
    (namespace,) = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for one in workloads(overlay):
        pod = one.spec["securityContext"]
        assert pod["runAsNonRoot"] is True
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        # The setup of `small` makes secrets, and may do nothing else.
        assert one.spec["automountServiceAccountToken"] is (one.name == "setup")
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(one.spec)
        for container in one.containers:
            # The one pod of dev has several users.
            effective = pod | container["securityContext"]
            assert effective["runAsUser"] > 0, (one.name, container["name"])
            assert effective["runAsNonRoot"] is True
            expected = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
            assert effective | expected | {"capabilities": {"drop": ["ALL"]}} == effective, (
                one.name,
                container["name"],
            )
        kinds = {next(iter(set(volume) - {"name"})) for volume in one.spec.get("volumes", [])}
        assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}


@every_overlay
def test_images_are_those_that_make_images_builds(overlay: str) -> None:
    tag = build_script().version()
    built = {f"{image.name}:{tag}" for image in build_script().IMAGES.values()}
    used = {container["image"] for one in workloads(overlay) for container in one.containers}
    assert used - STORES <= built
    assert used - STORES == (built if overlay != "production" else built - {f"parley/model:{tag}"})


@every_overlay
def test_settings_and_secrets_come_from_something_that_is_there(overlay: str) -> None:
    made = {found["metadata"]["name"] for found in of_kind(overlay, "ConfigMap", "Secret")}
    made |= {found["spec"]["secretName"] for found in of_kind(overlay, "Certificate")}
    made |= {f"{found['metadata']['name']}-app" for found in of_kind(overlay, "Cluster")}
    if overlay == "small":
        made |= set(make_secrets().plain_secrets()) | set(make_secrets().certificates("parley-small"))
    wanted = {name for one in workloads(overlay) for name in references(one.spec)}
    by_hand = set(re.findall(r"create secret generic (\S+)", (ROOT / "docs/operations/upgrade.md").read_text()))
    assert wanted - made == (
        {"parley-operator", "parley-redis", "parley-providers"} if overlay == "production" else set()
    )
    assert wanted - made <= by_hand, "the runbook must say how to make it"


@pytest.mark.parametrize("overlay", ["small", "production"])
def test_secrets_of_tool_servers_are_files_that_may_be_absent(overlay: str) -> None:
    gateway = workload(overlay, "chat-gateway")
    folder = environment(overlay, gateway.containers[0])["PARLEY_GATEWAY_SECRETS_DIR"]
    volumes = {one["name"]: one["secret"] for one in gateway.spec["volumes"] if "secret" in one}
    mounted = {one["mountPath"]: volumes[one["name"]]["secretName"] for one in gateway.containers[0]["volumeMounts"]}
    expected = {"default": "parley-tools-default", OPERATOR: "parley-tools-operator"}
    assert {path: name for path, name in mounted.items() if path.startswith(folder)} == {
        f"{folder}/{project}": name for project, name in expected.items()
    }
    assert set(expected.values()) <= references(gateway.spec, optional=True)
    pages = "".join((ROOT / "docs" / page).read_text() for page in ("tools.md", "operations/upgrade.md"))
    assert all(name in pages for name in expected.values())


def test_production_holds_no_secret() -> None:
    assert of_kind("production", "Secret") == []
    assert not re.search(r"(password|api_key|key):\s*[\"']?[A-Za-z0-9+/]{12,}", rendered("production"))


def test_routes_lead_to_services_and_let_streams_be() -> None:
    settings = GatewaySettings()
    for route in of_kind("production", "HTTPRoute", "GRPCRoute"):
        listeners = {
            one["name"]: one["hostname"] for one in named("production", "Gateway", "parley")["spec"]["listeners"]
        }
        (parent,) = route["spec"]["parentRefs"]
        assert route["spec"]["hostnames"] == [listeners[parent["sectionName"]]]
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                service = named("production", "Service", backend["name"])
                assert backend["port"] in [port["port"] for port in service["spec"]["ports"]]
    http = named("production", "HTTPRoute", "chat-gateway")["spec"]["rules"]
    paths = {match["path"]["value"] for rule in http for match in rule["matches"]}
    assert {path for path in paths if not path.startswith("/v1")} == {"/docs", "/a2a"}, "metrics are nobody's outside"
    longest = settings.turn_timeout + settings.session_wait_timeout
    for path in (f"{CHAT_PATH}/one/events", RESPONSES_PATH, f"{RESPONSES_PATH}/one", f"{A2A_PREFIX}one", EXPORT_PATH):
        bounds = route_of(http, path)["timeouts"]
        assert min(map(seconds, bounds.values())) > longest, f"{path} streams for as long as a turn takes"
    assert min(map(seconds, route_of(http, "/v1/sessions")["timeouts"].values())) > HttpSettings().purge_timeout
    assert [path for path in ("/v1/agents", "/console", "/metrics") if route_of(http, path)] == ["/v1/agents"]
    (grpc_rule,) = named("production", "GRPCRoute", "chat-gateway")["spec"]["rules"]
    assert "timeouts" not in grpc_rule
    services = {match["method"]["service"] for match in grpc_rule["matches"]}
    assert services == {"parley.chat.v1.ChatService", "lf.a2a.v1.A2AService"}
    said = environment("production", workload("production", "chat-gateway").containers[0])
    ways = {one["name"]: one["hostname"] for one in named("production", "Gateway", "parley")["spec"]["listeners"]}
    assert said["PARLEY_GATEWAY_A2A_URL"] == f"https://{ways['http']}"
    assert said["PARLEY_GATEWAY_A2A_GRPC_URL"] == f"{ways['grpc']}:443"


def route_of(rules: list[Object], path: str) -> Object:
    """The rule that a Gateway picks for a path: an exact match, else that of the longest prefix of whole segments."""
    found: list[tuple[bool, int, Object]] = []
    for rule in rules:
        for match in rule["matches"]:
            kind, value = match["path"]["type"], match["path"]["value"]
            if path == value or (kind == "PathPrefix" and path.startswith(f"{value}/")):
                found.append((kind == "Exact", len(value), rule))
    return max(found, key=lambda one: one[:2])[2] if found else {}


@every_overlay
def test_a_node_that_is_drained_does_not_count_where_pods_are_spread(overlay: str) -> None:
    """Else its replacement stays Pending, the budget refuses the next eviction, and the drain never ends."""
    for one in workloads(overlay):
        for spread in one.spec.get("topologySpreadConstraints", []):
            if spread["whenUnsatisfiable"] == "DoNotSchedule":
                assert spread.get("nodeTaintsPolicy") == "Honor", one.name


@every_overlay
def test_a_repeated_apply_finds_no_difference(overlay: str) -> None:
    """What the API server completes, or drops, in lists that are compared whole; SHAPES have custom resources."""
    for found in of_kind(overlay, "NetworkPolicy"):
        for direction in {"ingress", "egress"} & set(found["spec"]):
            assert found["spec"][direction], f"{title(found)}: an empty list is dropped"
            for rule in found["spec"][direction]:
                assert all("protocol" in port for port in rule.get("ports", [])), title(found)
    for found in of_kind(overlay, "StatefulSet"):
        for claim in found["spec"].get("volumeClaimTemplates", []):
            assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
            assert (claim["spec"]["volumeMode"], claim["status"]) == ("Filesystem", {"phase": "Pending"})


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


@pytest.mark.parametrize("overlay", ["small", "production"])
def test_gateways_find_each_other_one_by_one(overlay: str) -> None:
    url = environment(overlay, workload(overlay, "chat-gateway").containers[0])["PARLEY_GATEWAY_REPLICAS"]
    host, _, port = url.removeprefix("http://").partition(":")
    service = named(overlay, "Service", host)
    assert service["spec"]["clusterIP"] == "None"
    assert [str(one["port"]) for one in service["spec"]["ports"]] == [port]


def test_replicas_are_found_one_by_one_by_clients_that_go_round_them() -> None:
    for name in OURS:
        (container,) = workload("production", name).containers
        for key, target in environment("production", container).items():
            if not key.endswith("_TARGET"):
                continue
            host, _, port = target.removeprefix("dns:///").partition(":")
            service = named("production", "Service", host)
            assert target.startswith("dns:///")
            assert service["spec"]["clusterIP"] == "None"
            assert [str(one["port"]) for one in service["spec"]["ports"]] == [port]
            assert host in named("production", "Certificate", host)["spec"]["dnsNames"]
