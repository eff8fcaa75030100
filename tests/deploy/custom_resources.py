"""The parts that we use of the schemas of others' custom resources, strictly: no other field passes.

Their full schemas are thousands of lines that change with every release; of each kind this holds the fields that our
manifests have, with their types. What stands in a list is compared whole by `kubectl apply`, so a field
that the API server would complete there is required.
"""

import re
from typing import Any

GO_DURATION = re.compile(r"(\d+h)?(\d+m)?(\d+s)?")
GATEWAY_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?")
LABELS = {...: str}
METADATA = {"name!": str, "namespace!": str, "labels": LABELS, "annotations": LABELS}
ISSUER = {"name!": str, "kind": {"Issuer", "ClusterIssuer"}}
BACKEND = {"group!": str, "kind!": {"Service"}, "name!": str, "port!": int, "weight!": int}
PARENT = {"group!": str, "kind!": {"Gateway"}, "name!": str, "sectionName": str}
RESOURCES = {"requests": {...: QUANTITY}, "limits": {...: QUANTITY}}
VOLUME = {"size!": QUANTITY}

SHAPES: dict[tuple[str, str], Any] = {
    ("cert-manager.io/v1", "Issuer"): {"selfSigned": {}, "ca": {"secretName!": str}},
    ("cert-manager.io/v1", "Certificate"): {
        "isCA": bool, "commonName": str, "secretName!": str, "duration": GO_DURATION, "renewBefore": GO_DURATION,
        "privateKey": {"algorithm": {"ECDSA", "RSA", "Ed25519"}, "size": int, "rotationPolicy": {"Always", "Never"}},
        "dnsNames": [str], "uris": [str], "usages": [{"digital signature", "server auth", "client auth"}],
        "issuerRef!": ISSUER,
    },
    ("postgresql.cnpg.io/v1", "Cluster"): {
        "instances!": int, "primaryUpdateStrategy": {"unsupervised", "supervised"},
        "postgresql": {"synchronous": {"method!": {"any", "first"}, "number!": int}, "parameters": {...: str}},
        "bootstrap": {"initdb": {"database": str, "owner": str}},
        "storage": VOLUME, "walStorage": VOLUME, "resources": RESOURCES,
        "affinity": {
            "enablePodAntiAffinity": bool, "podAntiAffinityType": {"required", "preferred"}, "topologyKey": str,
        },
        "inheritedMetadata": {"labels": LABELS},
        "backup": {"volumeSnapshot": {"className": str}},
    },
    ("postgresql.cnpg.io/v1", "ScheduledBackup"): {
        "schedule!": re.compile(r"\S+( \S+){5}"), "backupOwnerReference": {"none", "self", "cluster"},
        "method": {"barmanObjectStore", "volumeSnapshot", "plugin"}, "cluster!": {"name!": str},
    },
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "selector!": {"matchLabels": LABELS},
        "podMetricsEndpoints!": [{"port": str, "path": str, "interval": GO_DURATION}],
    },
    ("gateway.networking.k8s.io/v1", "Gateway"): {
        "gatewayClassName!": str,
        "listeners!": [{
            "name!": str, "hostname": str, "port!": int, "protocol!": {"HTTP", "HTTPS", "TLS"},
            "allowedRoutes!": {"namespaces!": {"from!": {"Same", "All", "Selector"}}},
            "tls": {"mode!": {"Terminate"}, "certificateRefs": [{"group!": str, "kind!": {"Secret"}, "name!": str}]},
        }],
    },
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): {
        "parentRefs": [PARENT], "hostnames": [str],
        "rules": [{
            "matches": [{"path": {"type": {"PathPrefix", "Exact"}, "value": str}}],
            "timeouts": {"request": GATEWAY_DURATION, "backendRequest": GATEWAY_DURATION},
            "backendRefs": [BACKEND],
        }],
    },
    ("gateway.networking.k8s.io/v1", "GRPCRoute"): {
        "parentRefs": [PARENT], "hostnames": [str],
        "rules": [{
            "matches": [{"method": {"type": {"Exact"}, "service": str, "method": str}}],
            "backendRefs": [BACKEND],
        }],
    },
}  # fmt: skip
"""Kind to the shape of its `spec`. `name!` is required; `...` is any name; a set is what a value is one of."""


def problems(resource: dict[str, Any]) -> list[str]:
    """Return what is wrong with a custom resource of a kind that is known here."""
    shape = SHAPES[resource["apiVersion"], resource["kind"]]
    whole = {"apiVersion!": str, "kind!": str, "metadata!": METADATA, "spec!": shape}
    return list(_problems(resource, whole, resource["kind"]))


def _problems(value: Any, shape: Any, where: str) -> list[str]:
    if isinstance(shape, dict):
        return _object_problems(value, shape, where)
    if isinstance(shape, list):
        if not isinstance(value, list) or not value:
            return [f"{where}: not a list of something"]
        return [found for number, one in enumerate(value) for found in _problems(one, shape[0], f"{where}[{number}]")]
    if isinstance(shape, set):
        return [] if value in shape else [f"{where}: {value!r} is none of {sorted(shape)}"]
    if isinstance(shape, re.Pattern):
        return [] if isinstance(value, str) and value and shape.fullmatch(value) else [f"{where}: {value!r}"]
    return [] if type(value) is shape else [f"{where}: {value!r} is no {shape.__name__}"]


def _object_problems(value: Any, shape: dict[Any, Any], where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: not an object"]
    known = {name.rstrip("!"): part for name, part in shape.items() if name is not ...}
    found = [f"{where}.{name} is missing" for name in (n[:-1] for n in shape if n is not ... and n.endswith("!"))
             if name not in value]  # fmt: skip
    for name, part in value.items():
        if name in known or ... in shape:
            found += _problems(part, known.get(name, shape.get(...)), f"{where}.{name}")
        else:
            found.append(f"{where}.{name} is no field")
    return found
