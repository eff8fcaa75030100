"""What the client takes for safe is what the protos say."""

import re
from pathlib import Path

import pytest

from parley_client import service_config
from parley_client.paging import FIRST_FIELD
from parley_client.promises import PROMISES, SERVICES, TURN_SECONDS, promise_of

PROTOS = Path(__file__).resolve().parents[3] / "protos"
METHOD = re.compile(r"((?:  //[^\n]*\n)+)  rpc (\w+)\(.*?\) returns.*?\{\n(.*?)\n  \}", re.DOTALL)
# Which may be repeated though no comment says so in these words: reads that go on, and what says "Idempotent".
OTHERS = {"WatchAgentConfigs", "WatchAccess", "PublishProviders", "PublishTemplate"}
# Conditions that every repeat of one request fulfils; any other is the caller's to fulfil.
FULFILLED = ("behind the last event", "with the same turn_id", "with the same event id")


def described() -> list[tuple[str, str, str]]:
    found = []
    for file in sorted(PROTOS.rglob("*_service.proto")):
        for comment, name, body in METHOD.findall(file.read_text()):
            found.append((name, " ".join(comment.replace("//", " ").split()), body))
    return found


@pytest.mark.parametrize(("name", "comment", "body"), described(), ids=lambda value: value if " " not in value else "")
def test_options_say_what_comments_promise(name: str, comment: str, body: str) -> None:
    promised = re.search(r"Safe to retry( [^.]*)?", comment)
    condition = (promised[1] or "") if promised else ""
    safe = name in OTHERS or (promised is not None and (not condition or condition.strip().startswith(FULFILLED)))
    assert ("option idempotency_level = " in body) == safe, comment


def test_every_method_has_a_promise() -> None:
    names = {name for name, _, _ in described()}
    assert {path.rpartition("/")[2] for path in PROMISES} == names
    assert promise_of("/grpc.health.v1.Health/Check").repeatable is False


def test_request_ids_are_filled_in_where_they_make_a_repeat_safe() -> None:
    filled = {path: promise.request_id for path, promise in PROMISES.items() if promise.request_id}
    assert filled == {
        "/parley.chat.v1.ChatService/Complete": ("input", "request_id"),
        "/parley.chat.v1.ChatService/StreamComplete": ("input", "request_id"),
        "/parley.chat.v1.ChatService/SubmitTurn": ("input", "request_id"),
        "/parley.config.v1.AgentConfigService/CreateAgentConfig": ("request_id",),
        "/parley.config.v1.ToolServerService/CreateToolServer": ("request_id",),
    }


def test_every_method_has_a_bound() -> None:
    assert all(0 < promise.seconds <= 3600 for promise in PROMISES.values())
    assert promise_of("/parley.chat.v1.ChatService/Complete").seconds == TURN_SECONDS


def test_lists_have_their_objects_in_the_first_field() -> None:
    methods = [method for services in SERVICES.values() for service in services for method in service.methods]
    pages = [method.output_type for method in methods if "next_page_token" in method.output_type.fields_by_name]
    assert len(pages) >= 9
    for page in pages:
        objects = page.fields_by_number[FIRST_FIELD]
        assert objects.is_repeated, page.full_name
        assert objects.message_type is not None, page.full_name


@pytest.mark.parametrize("server", SERVICES)
def test_the_service_config_follows_health_and_repeats_what_is_safe(server: str) -> None:
    config = service_config(server)
    assert config["healthCheckConfig"]["serviceName"] == SERVICES[server][0].full_name
    repeated = {f"/{one['service']}/{one['method']}" for one in config["methodConfig"][0]["name"]}
    of_server = {path for path in PROMISES if path.split("/")[1] in {one.full_name for one in SERVICES[server]}}
    assert repeated == {path for path in of_server if PROMISES[path].repeatable}
    assert "methodConfig" not in service_config(server, retry=False)
