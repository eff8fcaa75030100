"""Asks whether a server on this machine serves: by gRPC's health service, or by HTTP.

Neither goes through a proxy that the environment may name.
"""

import httpx

from parley_client import Tls, is_serving, open_channel

ASK_SECONDS = 2.0


def grpc_serves(target: str, service: str = "", tls: Tls | None = None) -> bool:
    """Returns whether the server at `target` (`host:port`) reports SERVING for a service ("" = the whole server)."""
    with open_channel(target, None, tls=tls) as channel:
        return is_serving(channel, service, timeout=ASK_SECONDS)


def http_answers(url: str) -> bool:
    """Returns whether a GET of `url` is answered by 200."""
    try:
        return httpx.get(url, timeout=ASK_SECONDS, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
