"""The first key of a local system that requires credentials."""

import os
import secrets
import shlex

from parley_cli.errors import LocalError
from parley_cli.local.data_directory import DataDirectory
from parley_cli.local.narrator import Narrator

NAME = "operator.key"


def require_credentials(data: DataDirectory, narrator: Narrator) -> None:
    """Makes every part that this process starts require credentials, and this process present the operator key.

    The key is PARLEY_OPERATOR_KEY where that is set; else it is generated once and kept in the data folder, for this
    user's eyes only. Raises LocalError where it can't be.
    """
    os.environ["PARLEY_AUTH"] = "required"
    given = os.environ.get("PARLEY_OPERATOR_KEY")
    if given:
        os.environ.setdefault("PARLEY_API_KEY", given)
        return
    data.make()
    path = data.path / NAME
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    except FileExistsError:
        pass
    except OSError as error:
        raise LocalError(f"cannot keep the operator key in {path}: {error.strerror}") from None
    os.environ["PARLEY_OPERATOR_KEY_FILE"] = str(path)
    os.environ["PARLEY_API_KEY"] = path.read_text().strip()
    narrator.say(f"credentials are required; the operator key: export PARLEY_API_KEY=$(cat {shlex.quote(str(path))})")
