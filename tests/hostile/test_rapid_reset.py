"""HTTP/2 rapid reset on the gateway's gRPC port: calls of others are answered."""

import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.servers.system import System

SECONDS = 4
PROGRAM = Path(__file__).with_name("rapid_reset.py")


@pytest.mark.timing
def test_calls_of_others_go_on_while_a_client_opens_and_resets_streams(parley_system: System) -> None:
    port = parley_system.grpc_target.rpartition(":")[2]
    attacker = subprocess.Popen([sys.executable, str(PROGRAM), port, str(SECONDS)], stdout=subprocess.PIPE, text=True)
    failed: list[str] = []
    answered = 0
    while attacker.poll() is None:
        # A connection each: what the attack does to others is done to those that come new, too.
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(parley_system.grpc_target, options=options) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for _ in range(5):
                try:
                    stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
                    answered += 1
                except grpc.RpcError as error:
                    failed.append(str(error.code()))  # type: ignore[attr-defined]
    assert attacker.stdout is not None
    opened = int(attacker.stdout.read())
    attacker.stdout.close()
    assert opened > 1000, "it was an attack"
    assert answered
    assert failed == []
