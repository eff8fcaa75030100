"""Asks whether a server on this machine serves: by gRPC's health service, or by HTTP.

Neither goes through a proxy that the environment may name.
"""

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

ASK_SECONDS = 2.0


def grpc_serves(target: str, service: str = "", credentials: grpc.ChannelCredentials | None = None) -> bool:
    """Return whether the server at `target` (`host:port`) reports SERVING for a service ("" = the whole server)."""
    request = health_pb2.HealthCheckRequest(service=service)
    with _channel(target, credentials) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=ASK_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    options = [("grpc.enable_http_proxy", 0)]
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


def http_answers(url: str) -> bool:
    """Return whether a GET of `url` is answered by 200."""
    try:
        return httpx.get(url, timeout=ASK_SECONDS, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
