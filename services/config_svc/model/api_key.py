"""API keys: what they may do, and when they end. The key itself is not known here."""

import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from config_svc.model import rules
from config_svc.model.agent import check_history
from config_svc.model.rules import Json
from contract.fields import check_resource_id, check_user_id
from servicekit.errors import Violations

ID_PREFIX: Final = "key_"
MAX_OVERLAP: Final = timedelta(days=30)
DEFAULT_OVERLAP: Final = timedelta(days=1)

_LETTERS = string.digits + string.ascii_letters
_ID_LETTERS = 20
_KEY_ID = re.compile(rf"{ID_PREFIX}[0-9A-Za-z]{{{_ID_LETTERS}}}")
_MAX_REQUESTS = 1_000_000
_MAX_TURNS = 100_000


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A credential of one project, without the key itself. A limit of 0 is none."""

    id: str
    project: str
    project_uid: str
    scopes: tuple[str, ...]
    create_time: datetime
    user_id: str = ""
    display_name: str = ""
    requests_per_minute: int = 0
    concurrent_turns: int = 0
    store: bool | None = None
    history: str | None = None
    """As `RequestPolicy` has them, for requests that come with the key."""
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    last_used_time: datetime | None = None

    def check(self, found: Violations, path: str, *, scopes: Sequence[str], user_scopes: Sequence[str]) -> None:
        """Reports every broken rule under `path`: of all `scopes` a key of a user can have only `user_scopes`."""
        check_resource_id(found, f"{path}.project", self.project)
        if not self.scopes:
            found.add(f"{path}.scopes", "is required")
        for index, scope in enumerate(self.scopes[: len(scopes) + 1]):
            if scope not in scopes:
                found.add(f"{path}.scopes[{index}]", f"must be one of {', '.join(sorted(scopes))}")
            elif self.user_id and scope not in user_scopes:
                known = ", ".join(sorted(user_scopes))
                found.add(f"{path}.scopes[{index}]", f"must be one of {known} for a key of one user")
        if len(set(self.scopes)) != len(self.scopes):
            found.add(f"{path}.scopes", "must not name a scope twice")
        check_user_id(found, f"{path}.user_id", self.user_id)
        rules.check_text(found, f"{path}.display_name", self.display_name, maximum=200)
        limits = f"{path}.limits"
        rules.check_number(
            found, f"{limits}.requests_per_minute", self.requests_per_minute, minimum=0, maximum=_MAX_REQUESTS
        )
        rules.check_number(found, f"{limits}.concurrent_turns", self.concurrent_turns, minimum=0, maximum=_MAX_TURNS)
        check_history(found, f"{path}.requests.history", self.history)
        if self.expire_time is not None and self.expire_time <= self.create_time:
            found.add(f"{path}.expire_time", "must be in the future")

    def ended(self, now: datetime) -> bool:
        """Returns whether it is revoked, or has expired by itself."""
        return self.revoke_time is not None or (self.expire_time is not None and self.expire_time <= now)

    @property
    def requests(self) -> dict[str, Json]:
        """What requests that come with it get, where it says something."""
        said: dict[str, Json] = {"store": self.store, "history": self.history}
        return {name: value for name, value in said.items() if value is not None}

    @property
    def audited(self) -> dict[str, Json]:
        """What the audit log shows of it; neither the key nor its hash are known here."""
        shown: dict[str, Json] = {
            "id": self.id,
            "scopes": list(self.scopes),
            "user_id": self.user_id,
            "display_name": self.display_name,
            "requests_per_minute": self.requests_per_minute,
            "concurrent_turns": self.concurrent_turns,
        }
        if self.requests:
            shown["requests"] = self.requests
        for name in ("create_time", "expire_time", "revoke_time"):
            if (time := getattr(self, name)) is not None:
                shown[name] = time.isoformat()
        return shown


@dataclass(frozen=True, slots=True)
class Use:
    """That a key was used, and its hash under the newest secret where it is kept under an older one."""

    key_id: str
    time: datetime
    new_hash: bytes | None = None


def new_key_id() -> str:
    """Returns an id for a key, which says nothing of the key."""
    return ID_PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(_ID_LETTERS))


def is_key_id(text: str) -> bool:
    """Returns whether `text` can be the id of a key."""
    return _KEY_ID.fullmatch(text) is not None
