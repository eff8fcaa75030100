"""The password of an embedded store, kept beside its data.

Loopback is no protection against other users of this machine, and a database superuser or an open Redis can write
files as the user who started it.
"""

import os
import secrets
from pathlib import Path


def password_of(data: Path) -> str:
    """Returns the password of the store in `data`, made at the first call and readable by this user only."""
    file = data.with_name(f"{data.name}.password")
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        pass
    password = secrets.token_urlsafe(24)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as output:
        output.write(password + "\n")
    return password
