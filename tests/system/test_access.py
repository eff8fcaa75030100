"""The whole system with authentication required: the operator, the services among themselves, and strangers."""

import subprocess
import sys
from pathlib import Path

import grpc
import httpx
import pytest

from access.authenticator import peer_credential
from parley.config.v1 import agent_config_service_pb2 as agents_pb
from parley.config.v1 import agent_config_service_pb2_grpc as agents_grpc
from parley.session.v1 import turn_service_pb2, turn_service_pb2_grpc
from tests.servers.system import System


@pytest.fixture
def guarded(guarded_system: System) -> System:
    return guarded_system


def stranger(system: System, **headers: str) -> httpx.Client:
    return httpx.Client(base_url=system.http_url, headers=headers, timeout=10, trust_env=False)


def test_the_operator_chats_and_what_is_open_is_open(guarded: System) -> None:
    assert guarded.chat("hello", "Hi", session_id="s1").status_code == 200
    with stranger(guarded) as client:
        for path in ("/livez", "/readyz", "/startedz", "/docs", "/docs/openapi.json"):
            assert client.get(path).status_code == 200, path


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/agents"])
@pytest.mark.parametrize("credential", [None, "", "Bearer", "Bearer nonsense", "Basic abc"])
def test_a_stranger_is_told_so_as_openai_s_clients_know_it(guarded: System, path: str, credential: str | None) -> None:
    with stranger(guarded, **({} if credential is None else {"Authorization": credential})) as client:
        answer = client.post(path, json={"model": "hello", "messages": [{"role": "user", "content": "Hi"}]})
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"] == 'Bearer realm="parley"'
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("invalid_api_key", "authentication_error")


def test_a_body_is_not_read_of_those_who_may_not_send_it(guarded: System) -> None:
    with stranger(guarded) as client:
        answer = client.post("/v1/chat/completions", content=b"this is no JSON")
        assert answer.status_code == 401


@pytest.mark.parametrize("service", ["chat_gateway", "session_svc"])
def test_services_know_each_other_and_the_operator_key_is_not_what_they_show(guarded: System, service: str) -> None:
    credential = peer_credential(guarded.operator_key, service)
    request = turn_service_pb2.AbortTurnRequest(lease={"project": "default", "session_id": "s9", "turn_id": "t"})

    def abort(authorization: str) -> grpc.StatusCode:
        with grpc.insecure_channel(guarded.session.grpc_target) as channel:
            stub = turn_service_pb2_grpc.TurnServiceStub(channel)
            try:
                stub.AbortTurn(request, timeout=30, metadata=(("authorization", f"Bearer {authorization}"),))
            except grpc.RpcError as error:
                code: grpc.StatusCode = error.code()
                return code
            return grpc.StatusCode.OK

    taken = {"chat_gateway": grpc.StatusCode.OK, "session_svc": grpc.StatusCode.UNAUTHENTICATED}
    assert abort(credential) is taken[service]
    assert abort(guarded.operator_key) is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("which", ["config", "session", "gateway"])
def test_no_port_serves_a_stranger(guarded: System, which: str) -> None:
    target = {
        "config": guarded.config.grpc_target,
        "session": guarded.session.grpc_target,
        "gateway": guarded.grpc_target,
    }[which]
    method = {
        "config": "parley.config.v1.AgentConfigService/ListAgentConfigs",
        "session": "parley.session.v1.SessionService/ListSessions",
        "gateway": "parley.chat.v1.RuntimeService/GetLoad",
    }[which]
    grpcurl = [str(Path(sys.executable).parent / "grpcurl"), "-plaintext"]
    refused = subprocess.run([*grpcurl, target, method], capture_output=True, text=True, timeout=30, check=False)
    assert "Unauthenticated" in refused.stderr
    with_key = [*grpcurl, "-H", f"authorization: Bearer {guarded.operator_key}"]
    served = subprocess.run([*with_key, target, method], capture_output=True, text=True, timeout=30, check=False)
    assert served.returncode == 0, served.stderr


def test_an_operator_names_any_project_and_what_is_in_another_is_not_there(guarded: System) -> None:
    with guarded.client() as client:
        assert client.get("/v1/sessions/s1").status_code == 200
        elsewhere = client.get("/v1/sessions/s1", headers={"X-Project-ID": "elsewhere"})
        assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (404, "session_not_found")
        ignored = client.get("/v1/sessions/s1", headers={"OpenAI-Project": "elsewhere"})
        assert ignored.status_code == 200
        wrong = client.get("/v1/sessions/s1", headers={"X-Project-ID": "No Project"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "X-Project-ID")


def test_metadata_that_names_another_caller_is_not_believed_of_strangers(guarded: System) -> None:
    with grpc.insecure_channel(guarded.config.grpc_target) as channel:
        stub = agents_grpc.AgentConfigServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ListAgentConfigs(
                agents_pb.ListAgentConfigsRequest(), timeout=30, metadata=(("parley-caller", "operator"),)
            )
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_service_without_the_key_does_not_start(guarded: System, tmp_path: Path) -> None:
    from tests.servers.processes import clean_environment

    done = subprocess.run(
        [sys.executable, "-m", "session_svc"],
        env=clean_environment({"PARLEY_AUTH": "required"}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "PARLEY_OPERATOR_KEY" in done.stderr
