"""The replicas that are watched: where they are, and their metrics."""

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from parley_cli.errors import LocalError
from parley_cli.top.installation import Installation, read_installation
from parley_cli.top.reading import Activity, Reading, activity, parse

TIMEOUT_SECONDS = 2.0
MAX_REPLICAS = 256

_REFUSED = frozenset({401, 403})
"""Metrics are of all projects, so no project's key reads them."""


@dataclass(slots=True)
class Replica:
    """One process, by the address of its metrics."""

    address: str
    last: Reading | None = None
    now: Activity | None = None
    trouble: str = ""
    _before: Reading | None = field(default=None, repr=False)

    def look(self, client: httpx.Client) -> None:
        """Reads its metrics once; what goes wrong is its `trouble`, until a look goes well."""
        try:
            response = client.get(f"{self.address}/metrics")
            response.raise_for_status()
            reading = parse(response.text, time.monotonic())
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            self._lose(f"answers {status}{': needs the operator key' if status in _REFUSED else ''}")
        except httpx.HTTPError:
            self._lose("does not answer")
        except ValueError:
            self._lose("is no replica of Parley")
        else:
            before, self.last, self.trouble = self.last, reading, ""
            self.now = activity(before, reading) if before is not None else None

    def _lose(self, trouble: str) -> None:
        self.last, self.now, self.trouble = None, None, trouble


class Replicas:
    """Every replica behind the given URLs; a name with several addresses (a headless service) is all of them."""

    def __init__(self, urls: Sequence[str], headers: dict[str, str] | None = None) -> None:
        addresses = [address for url in urls for address in _addresses(url)]
        self.all = [Replica(address) for address in dict.fromkeys(addresses)]
        if len(self.all) > MAX_REPLICAS:
            raise LocalError(f"{len(self.all)} replicas are more than {MAX_REPLICAS}, the most that are shown")
        self._client = httpx.Client(timeout=TIMEOUT_SECONDS, headers=headers, trust_env=False)

    def look(self) -> None:
        """Reads all of them at once."""
        with ThreadPoolExecutor(min(len(self.all), 16)) as pool:
            list(pool.map(lambda replica: replica.look(self._client), self.all))

    def installation(self) -> Installation:
        """Reads what those of them that are gateways report of the whole installation."""
        gateways = [one.address for one in self.all if one.last is not None and one.last.kind == "gateway"]
        return read_installation(self._client, gateways)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()


def _addresses(url: str) -> list[str]:
    try:
        parts = httpx.URL(url if "://" in url else f"http://{url}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        found = socket.getaddrinfo(parts.host, port, type=socket.SOCK_STREAM)
    except (httpx.InvalidURL, ValueError, OSError) as error:
        raise LocalError(f"{url} is not the address of a replica: {error}") from None
    hosts = list(dict.fromkeys(entry[4][0] for entry in found))
    if parts.scheme == "https" or len(hosts) == 1:
        return [f"{parts.scheme}://{parts.netloc.decode()}"]  # a certificate is for the name
    return [f"http://{f'[{host}]' if ':' in str(host) else host}:{port}" for host in hosts]
