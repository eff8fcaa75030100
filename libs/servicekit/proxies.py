"""Which of the environment's proxies a request goes by: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`."""

import contextlib
import ipaddress
from collections.abc import Mapping
from urllib.request import proxy_bypass


def proxy_for(scheme: str, host: str, port: int | None, proxies: Mapping[str, str]) -> str | None:
    """Returns the proxy of a URL; None for none: the host is this machine, or `NO_PROXY` excepts it.

    That may also name networks (`10.0.0.0/8`). `proxies` are by scheme, as `urllib.request.getproxies` gives them.
    """
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or _is_loopback(host) or proxy_bypass(f"{host}:{port}", dict(proxies)) or _in_network(host, proxies):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _in_network(host: str, proxies: Mapping[str, str]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in proxies.get("no", "").split(","):
        with contextlib.suppress(ValueError):
            if address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
    return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
