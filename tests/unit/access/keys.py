"""A checker of keys that the test is, and a clock that the test moves."""

import asyncio

from access.api_key import new_api_key
from access.caller import Caller
from access.errors import Unauthenticated
from access.key_cache import CheckedKey
from servicekit.errors import Unavailable


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Checker:
    """Knows the keys in `good`; `unreachable` makes it so, `gate` holds its answers back."""

    def __init__(self) -> None:
        self.good: dict[str, CheckedKey] = {}
        self.asked: list[str] = []
        self.unreachable = False
        self.gate: asyncio.Event | None = None

    def add(
        self, key_id: str = "k1", expire_time: float | None = None, *, key: str | None = None, **fields: object
    ) -> str:
        key = new_api_key() if key is None else key
        values = {"project": "acme", "scopes": frozenset({"chat"})} | fields
        self.good[key] = CheckedKey(Caller(key_id, **values), expire_time)  # type: ignore[arg-type]
        return key

    async def check(self, key: str) -> CheckedKey:
        self.asked.append(key)
        known = self.good.get(key)  # the answer is as things are when it is asked
        unreachable = self.unreachable
        if self.gate is not None:
            await self.gate.wait()
        if unreachable:
            raise Unavailable("config_svc")
        if known is None:
            raise Unauthenticated
        return known
