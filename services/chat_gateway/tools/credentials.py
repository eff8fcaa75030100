"""How the gateway authenticates to a tool server: headers of each request, from secrets that may change."""

from collections.abc import Mapping
from typing import Protocol


class CredentialsRefused(Exception):
    """No credential is available. The message says why, after the server's id."""


class Credentials(Protocol):
    """Headers that prove who calls. They belong to one origin, and never go to another."""

    async def headers(self) -> Mapping[str, str]:
        """Returns the headers of a request made now. Raises `CredentialsRefused` and `EgressDenied`."""
        ...

    def refused(self, headers: Mapping[str, str]) -> bool:
        """Notes that the server refused these (401); returns whether others are available."""
        ...

    def secrets(self) -> tuple[str, ...]:
        """Returns what must not be seen in anything that the server sends back."""
        ...


class FixedCredentials:
    """The same headers always: a bearer token, a header of the server's own, a user's token, or none."""

    def __init__(self, headers: Mapping[str, str], secrets: tuple[str, ...] = ()) -> None:
        self._headers = dict(headers)
        self._secrets = secrets

    async def headers(self) -> Mapping[str, str]:
        return self._headers

    def refused(self, headers: Mapping[str, str]) -> bool:
        return False

    def secrets(self) -> tuple[str, ...]:
        return self._secrets
