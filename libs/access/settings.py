"""The access settings of every service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from access.oidc_settings import OidcIssuer
from servicekit.files import read_regular_file
from servicekit.settings import FROM_JSON, Seconds, ServiceSettings

MIN_OPERATOR_KEY = 32
_MAX_KEY_FILE_BYTES = 64 * 1024


class AccessSettings(ServiceSettings):
    """Settings of one process that checks credentials."""

    operator_key: SecretStr | None = Field(
        default=None,
        validation_alias="PARLEY_OPERATOR_KEY",
        description=f"The operator's credential: at least {MIN_OPERATOR_KEY} printable ASCII characters, the same for "
        "all services of one installation. Required, here or as a file, with `PARLEY_AUTH=required`.",
    )
    operator_key_file: Path | None = Field(
        default=None,
        validation_alias="PARLEY_OPERATOR_KEY_FILE",
        description="File that holds the operator key, instead of `PARLEY_OPERATOR_KEY`.",
    )
    key_max_age: Seconds = Field(
        default=900.0,
        ge=0,
        le=86_400,
        description="How long known API keys are accepted while config_svc is unavailable.",
    )
    oidc: Annotated[tuple[OidcIssuer, ...], FROM_JSON] = Field(
        default=(),
        validation_alias="PARLEY_OIDC",
        description="Identity providers whose tokens are accepted: a JSON list of them ([fields](#an-issuer), "
        "[access.md](access.md)).",
    )
    max_known_keys: int = Field(
        default=10_000, ge=1, le=1_000_000, description="API keys, and as many tokens, kept in memory."
    )

    def problems(self) -> Iterator[str]:
        """Yields problems with combinations of settings."""
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
        """Returns the operator key. Raises `ValueError` with the setting's name if there is none."""
        if self.operator_key is not None:
            return self.operator_key.get_secret_value()
        if self.operator_key_file is None:
            raise ValueError("PARLEY_AUTH=required needs PARLEY_OPERATOR_KEY or PARLEY_OPERATOR_KEY_FILE")
        try:
            return read_regular_file(self.operator_key_file, _MAX_KEY_FILE_BYTES).decode("ascii").strip()
        except OSError as error:
            raise ValueError(f"PARLEY_OPERATOR_KEY_FILE can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError("PARLEY_OPERATOR_KEY_FILE does not hold ASCII text") from None
