"""The part of every service's environment that says who may use it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from access.oidc_settings import OidcIssuer
from servicekit.environment import Secret, variable
from servicekit.settings import ServiceSettings

MIN_OPERATOR_KEY = 32


class AccessSettings(ServiceSettings):
    """Settings of one process that checks credentials.

    `operator_key` is `PARLEY_OPERATOR_KEY` for every service, or stands in the file `PARLEY_OPERATOR_KEY_FILE`; it has
    at least 32 printable ASCII characters, and all services of one installation are given the same. While config_svc is
    away, API keys that are known go on for `key_max_age` seconds. At most `max_known_keys` are kept in memory.
    `oidc` is `PARLEY_OIDC` for every service: the issuers whose tokens are credentials, too.
    """

    operator_key: Annotated[Secret | None, variable("PARLEY_OPERATOR_KEY")] = None
    operator_key_file: Annotated[Path | None, variable("PARLEY_OPERATOR_KEY_FILE")] = None
    key_max_age: Annotated[float, Meta(ge=0, le=86_400)] = 900.0
    oidc: Annotated[tuple[OidcIssuer, ...], variable("PARLEY_OIDC")] = ()
    max_known_keys: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000

    def problems(self) -> Iterator[str]:
        """Yields what is wrong with the settings together."""
        yield from super().problems()
        if self.operator_key is not None and self.operator_key_file is not None:
            yield "PARLEY_OPERATOR_KEY and PARLEY_OPERATOR_KEY_FILE can't both be set"
        if self.auth != "required":
            return
        try:
            key = self.read_operator_key()
        except ValueError as error:
            yield str(error)
            return
        if len(key) < MIN_OPERATOR_KEY or not key.isascii() or not key.isprintable() or " " in key:
            yield f"the operator key must have at least {MIN_OPERATOR_KEY} printable ASCII characters and no space"

    def read_operator_key(self) -> str:
        """Returns the operator key. Raises `ValueError` that names the setting where there is none to be had."""
        if self.operator_key is not None:
            return self.operator_key.reveal()
        if self.operator_key_file is None:
            raise ValueError("PARLEY_AUTH=required needs PARLEY_OPERATOR_KEY or PARLEY_OPERATOR_KEY_FILE")
        try:
            return self.operator_key_file.read_text("ascii").strip()
        except OSError as error:
            raise ValueError(f"PARLEY_OPERATOR_KEY_FILE can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError("PARLEY_OPERATOR_KEY_FILE does not hold ASCII text") from None
