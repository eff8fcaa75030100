"""Secrets as files, and their removal from whatever a server sends back."""

import base64
import functools
import html
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, quote_plus

from cachetools import LRUCache

from contract.fields import is_resource_id

OPERATOR = "_operator"
"""The directory of the operator's own secrets: no project can have this id."""

MAX_SECRET_BYTES = 64 * 1024
MIN_SECRET_CHARACTERS = 4
"""A shorter one can't be told from ordinary text, and so can't be kept out of results."""

REDACTED = "[secret]"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_MAX_KNOWN = 4096


class SecretUnavailable(Exception):
    """A secret can't be used. The message names it, and says nothing of what it holds."""


class SecretFiles:
    """Secrets of projects: the files `<directory>/<project>/<name>`, read again when they change.

    Made for mounted Kubernetes Secrets, whose files are symbolic links that are swapped together. A value ends before
    the newlines at the end of its file.
    """

    def __init__(self, directory: str) -> None:
        """Without a directory, there are no secrets."""
        self._directory = Path(directory) if directory else None
        self._known: LRUCache[tuple[str, str], tuple[tuple[int, ...], str]] = LRUCache(_MAX_KNOWN)

    def read(self, project: str, name: str) -> str:
        """Returns the value as it is now, printable ASCII. Raises `SecretUnavailable`."""
        if self._directory is None:
            raise SecretUnavailable(f"needs the secret {name[:128]!r}, and this gateway has no directory of secrets")
        if not _NAME.fullmatch(name) or ".." in name or not (project == OPERATOR or is_resource_id(project)):
            raise SecretUnavailable("needs a secret whose name can't be one")
        try:
            descriptor = os.open(self._directory / project / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            raise SecretUnavailable(f"needs the secret {name!r}, which this gateway does not have") from None
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_SECRET_BYTES:
                raise SecretUnavailable(f"needs the secret {name!r}, which is no file of at most 64 KiB")
            seen = (state.st_ino, state.st_dev, state.st_mtime_ns, state.st_ctime_ns, state.st_size)
            known = self._known.get((project, name))
            if known is not None and known[0] == seen:
                return known[1]
            content = os.read(descriptor, MAX_SECRET_BYTES + 1)
        finally:
            os.close(descriptor)
        value = _usable(name, content)
        self._known[project, name] = (seen, value)
        return value


def _usable(name: str, content: bytes) -> str:
    try:
        value = content.decode("ascii").rstrip("\r\n")
    except UnicodeDecodeError:
        value = ""
    if len(value) < MIN_SECRET_CHARACTERS or not value.isprintable() or len(content) > MAX_SECRET_BYTES:
        raise SecretUnavailable(
            f"needs the secret {name!r}, which is not {MIN_SECRET_CHARACTERS} or more printable ASCII characters"
        )
    return value


class Redaction:
    """Replaces secrets in texts, also where they are encoded: base64, hexadecimal, JSON, HTML, percent-encoding."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS for form in _forms(secret)}
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def clean(self, text: str) -> str:
        """Returns the text without any secret."""
        return text if self._pattern is None else self._pattern.sub(REDACTED, text)


@functools.lru_cache(maxsize=1024)
def redaction_of(secrets: tuple[str, ...]) -> Redaction:
    """Returns the redaction of these secrets, made once."""
    return Redaction(secrets)


def _forms(secret: str) -> set[str]:
    encoded = secret.encode()
    forms = {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        html.escape(secret),
        encoded.hex(),
        encoded.hex().upper(),
    }
    # Within a longer text, base64 of the same bytes has three forms, but for the characters at both ends.
    for shift in range(3):
        plain = base64.b64encode(b"\0" * shift + encoded).decode().rstrip("=")
        inner = plain[-(-shift * 8 // 6) :]
        inner = inner if (shift + len(encoded)) % 3 == 0 else inner[:-1]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return {form for form in forms if len(form) >= MIN_SECRET_CHARACTERS}
