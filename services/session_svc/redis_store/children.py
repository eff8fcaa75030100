"""Child sessions, which expire with their parents, however rarely they are used."""

from collections.abc import Sequence

import structlog

from session_svc.model.errors import SessionDamaged
from session_svc.model.session import SessionKey
from session_svc.redis_client.link import RedisFault, RedisUnavailable
from session_svc.redis_store import script_calls as calls
from session_svc.redis_store.keys import children_index
from session_svc.redis_store.script_runner import RedisScripts

MAX_DEPTH = 16
"""More than agents may call each other deep."""
MAX_ID_BYTES = 256
"""More than any session's id has: what is longer was written by something else."""

log = structlog.get_logger(__name__)


class Children:
    """Extends child sessions to their parents' expiry. Not called for sessions without children."""

    def __init__(self, scripts: RedisScripts) -> None:
        self._scripts = scripts

    async def keep(self, parent: SessionKey, expire_ms: int) -> None:
        """Sets this expiry for all dependents of a session, direct and indirect; expired ones stay expired.

        What fails is logged: it does not undo the turn behind it, and the next turn of the parent does it again.
        """
        parents = [parent.session_id]
        try:
            for _ in range(MAX_DEPTH):
                parents = await self._keep(parent.project, parents, expire_ms)
                if not parents:
                    return
        except (RedisUnavailable, RedisFault) as error:
            log.warning("children_not_kept", error=type(error).__name__)

    async def _keep(self, project: str, parents: Sequence[str], expire_ms: int) -> list[str]:
        """Returns those of the children that others hang on."""
        found = await self._scripts.run_each(*(("ZRANGE", children_index(project, one), 0, -1) for one in parents))
        members = {name for names in found if isinstance(names, list) for name in names if len(name) <= MAX_ID_BYTES}
        names = sorted({name.decode(errors="replace") for name in members}.difference(parents))
        if not names:
            return []
        keep = calls.Keep(expire_ms)
        answers = await self._scripts.run_each(
            *(self._scripts.command(SessionKey(project, name), keep) for name in names)
        )
        return [
            name
            for name, answer in zip(names, answers, strict=True)
            if not isinstance(answer, SessionDamaged) and answer == 1
        ]
