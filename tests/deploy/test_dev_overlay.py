"""The dev overlay, run for real by podman, as it stands: it chats, and needs nothing."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.conftest import not_run
from tests.deploy.engine import STORES, build_script
from tests.deploy.manifests import Object, objects
from tests.deploy.podman import Podman

PREFIX = "parleytest"
READY_SECONDS = 240.0
CONVERSATION = """
import json, urllib.error, urllib.request
def send(path, body):
    request = urllib.request.Request("http://127.0.0.1:8080" + path, json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=120))
send("/v1/agents", {"id": "hello", "name": "Hello", "template_id": "assistant", "instructions": "Be brief.",
     "model": {"provider": "local", "name": "smollm2-135m-instruct", "max_output_tokens": 12}})
turns = [send("/v1/chat/completions", {"model": "hello", "session_id": "demo",
         "messages": [{"role": "user", "content": text}]}) for text in ("My name is Ada.", "What is my name?")]
said = [(turn["choices"][0]["message"]["content"], turn["usage"]["prompt_tokens"]) for turn in turns]
print(json.dumps([{"text": text, "asked": asked} for text, asked in said]))
"""


# What the official images give to their user. A volume takes it over from there, where a kubelet has fsGroup.
DATA = {"postgres:18": "/var/lib/postgresql", "redis:8": "/data"}


def writable(image: str, folder: str) -> bool:
    """Whether the image's own user, without root's rights, may write where its data are."""
    options = ("--rm", "--network=none", "--user=999:999", "--entrypoint=sh")
    command = [build_script().docker_client(), "run", *options, image, "-c", f"test -w {folder}"]
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0


def renamed(found: Object, tag: str) -> Object:
    """The same object under names that are this test's, and without ports, which old podmans take on the host as well.

    Somebody may run the overlay on this machine, too.
    """
    text = yaml.safe_dump(found)
    for name in ("parley-postgres", "parley-redis"):
        text = text.replace(f"claimName: {name}\n", f"claimName: {PREFIX}-{name}\n")
        if found["kind"] == "PersistentVolumeClaim":
            text = text.replace(f"name: {name}\n", f"name: {PREFIX}-{name}\n")
    if found["kind"] == "Deployment":
        text = text.replace("name: parley\n  namespace", f"name: {PREFIX}\n  namespace")
    changed: Object = yaml.safe_load(text.replace(f":{build_script().version()}\n", f":{tag}\n"))
    if found["kind"] == "Deployment":
        for container in changed["spec"]["template"]["spec"]["containers"]:
            container.pop("ports", None)
    return changed


@pytest.fixture
def podman(stores: None, images: dict[str, str], tmp_path: Path) -> Iterator[tuple[Podman, str]]:
    for image, folder in DATA.items():
        if not writable(image, folder):
            not_run(f"the image {image} here is not the official one: its user 999 may not write to {folder}")
    running = Podman(tmp_path)
    if why := running.missing():
        not_run(why)
    tag = next(iter(images.values())).rpartition(":")[2]
    model = build_script().build("model", tag=tag, revision="under test")
    used = [*images.values(), model, *STORES]
    try:
        running.load(build_script().docker_client(), used)
        yield running, tag
    finally:
        running.close([*images.values(), model])
        build_script().docker("rmi", "--force", model)


def test_the_dev_overlay_chats(podman: tuple[Podman, str]) -> None:
    running, tag = podman
    changed = [renamed(found, tag) for found in objects("dev")]
    running.play(yaml.safe_dump_all(changed))
    wait_until_it_serves(running)
    said = json.loads(running.run("exec", f"{PREFIX}-pod-0-chat-gateway", "python", "-c", CONVERSATION))
    assert all(turn["text"] for turn in said)
    assert said[1]["asked"] > said[0]["asked"], "the second prompt holds the first turn"


def wait_until_it_serves(running: Podman) -> None:
    (deployment,) = [found for found in objects("dev") if found["kind"] == "Deployment"]
    deadline = time.monotonic() + READY_SECONDS
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        name, check = f"{PREFIX}-pod-0-{container['name']}", container["readinessProbe"]["exec"]["command"]
        while True:
            try:
                running.run("exec", name, *check)
                break
            except AssertionError:
                assert time.monotonic() < deadline, running.run("logs", name)[-2000:]
                time.sleep(1)
