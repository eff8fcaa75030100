"""TCP ports on the loopback interface."""

import errno
import socket
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Returns whether a server could listen on this port now; ports in TIME_WAIT count as free, as for servers."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def free_port(host: str = LOOPBACK) -> int:
    """Returns a port that no process listens on now; another process may still take it before the caller does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def is_loopback_url(url: str) -> bool:
    """Returns whether a URL stays on this machine, where a proxy of the environment must not be used."""
    return urlsplit(url).hostname in ("localhost", LOOPBACK, "::1")
