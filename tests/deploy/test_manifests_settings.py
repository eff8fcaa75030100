"""What the manifests set is what the services know, and nothing that a service needs is left out."""

import re
from pathlib import Path

import pytest

from tests.deploy.manifests import OVERLAYS, Object, environment, named, workload, workloads
from tests.deploy.service_settings import CLASSES, names_of

SECRETS = {
    "<parley-postgres-app/uri>": "postgresql://parley:x@parley-postgres-rw:5432/parley",
    "<parley-redis/url>": "redis+cluster://:x@redis:6379",
}


def containers_of_ours(overlay: str) -> list[tuple[str, Object]]:
    found = [(c["image"].partition("/")[2].partition(":")[0], c) for w in workloads(overlay) for c in w.containers]
    # The setup of `small` runs a script in config_svc's image.
    return [(name, container) for name, container in found if name in CLASSES and "command" not in container]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_setting_is_unknown(overlay: str) -> None:
    everything = set().union(*map(names_of, CLASSES.values()))
    for name, container in containers_of_ours(overlay):
        given = {key for key in environment(overlay, container) if key.startswith("PARLEY_")}
        # The one pod of dev has one ConfigMap for all.
        known = everything if overlay == "dev" else names_of(CLASSES[name])
        assert given <= known, (name, given - known)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_setting_is_given_or_has_a_default(overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = set()
    monkeypatch.setenv("OPENAI_API_KEY", "from the secret parley-providers")
    for name, container in containers_of_ours(overlay):
        with monkeypatch.context() as process:
            for key, value in environment(overlay, container).items():
                process.setenv(key, on_this_machine(SECRETS.get(value, value), tmp_path))
            settings = CLASSES[name]()
        seen.add(name)
        assert settings.log_format == "json"
    assert seen == set(CLASSES)


def on_this_machine(value: str, folder: Path) -> str:
    """Put a file where the manifest mounts one."""
    if value.startswith("/etc/parley/"):
        file = folder / value.replace("/", "_")
        file.write_text("an operator key of more than 32 characters".replace(" ", "-"))
        return str(file)
    return value


def test_files_that_settings_name_are_mounted() -> None:
    for name in CLASSES:
        one = workload("production", name)
        (container,) = one.containers
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert all("subPath" not in mount for mount in container["volumeMounts"]), "a subPath is never renewed"
        volumes = {volume["name"]: volume["secret"] for volume in one.spec["volumes"]}
        for key, value in environment("production", container).items():
            if key.endswith("_FILE"):
                folder, _, file = value.rpartition("/")
                secret = volumes[mounts[folder]]
                kept = {item["path"] for item in secret.get("items", [])} or {"tls.crt", "tls.key", "ca.crt"}
                assert file in kept, (name, key)


def test_a_service_takes_the_calls_of_those_who_have_it_as_a_target() -> None:
    callers: dict[str, set[str]] = {name: set() for name in CLASSES}
    for name, settings in CLASSES.items():
        for field in settings.model_fields:
            if match := re.fullmatch(r"(\w+)_target", field):
                callers[f"{match[1]}-svc"].add(f"spiffe://parley/{name}")
    for name in CLASSES:
        (container,) = workload("production", name).containers
        peers = environment("production", container).get("PARLEY_TLS_PEERS", "")
        assert set(filter(None, peers.split(","))) == callers[name]
        assert named("production", "Certificate", name)["spec"]["uris"] == [f"spiffe://parley/{name}"]
