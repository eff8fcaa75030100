"""Asks this container's own service whether it serves: `python -m servicekit.healthcheck PARLEY_CONFIG_`.

Exit code 0 says that it does, 1 that it does not, or did not answer in time; the reason is one line on stderr. For
HEALTHCHECK in images and for exec probes, where there is no shell and no curl.
"""

import argparse
import os
import sys
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

DEFAULT_SECONDS = 3.0


def target(prefix: str, environment: Mapping[str, str]) -> str:
    """Returns where the service with this prefix of settings reports its health.

    The port is that of `{prefix}HEALTH_PORT`, which asks for no certificate, else of `{prefix}GRPC_PORT`. Raises
    `ValueError` when neither names one.
    """
    for name in (f"{prefix}HEALTH_PORT", f"{prefix}GRPC_PORT"):
        port = environment.get(name, "0")
        if port != "0":
            return f"127.0.0.1:{int(port)}"
    raise ValueError(f"neither {prefix}HEALTH_PORT nor {prefix}GRPC_PORT names a port")


def check(address: str, service: str, seconds: float) -> str:
    """Returns the status that the server at `address` gives for `service` ("" is all of it), or why there is none."""
    request = health_pb2.HealthCheckRequest(service=service)
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
        except grpc.RpcError as error:
            return f"no answer from {address}: {error.code().name}"  # type: ignore[attr-defined, unused-ignore]
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="servicekit.healthcheck", description=__doc__)
    parser.add_argument("prefix", help="the prefix of the service's settings, such as PARLEY_CONFIG_")
    parser.add_argument("--service", default="", help="full gRPC name of one service; all of them without it")
    parser.add_argument("--timeout", type=float, default=DEFAULT_SECONDS, help="seconds (%(default)s)")
    given = parser.parse_args(arguments)
    try:
        status = check(target(given.prefix, environment), given.service, given.timeout)
    except ValueError as error:
        status = str(error)
    if status == "SERVING":
        return 0
    print(status, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
