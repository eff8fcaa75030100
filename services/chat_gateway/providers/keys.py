"""The keys of one provider: used in rotation, set aside while the provider refuses them, reloaded from files."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from chat_gateway.providers.provider import Provider
from servicekit.errors import StartupError
from servicekit.files import read_regular_file

log = structlog.get_logger(__name__)

REREAD_SECONDS = 5.0
MAX_KEYS = 64
_MAX_KEY_FILE_BYTES = 64 * 1024

MakeProvider = Callable[[str | None], Provider]
"""Makes the adapter that calls with a key, or without one. Raises `StartupError` for a key that can't be sent."""


@dataclass(slots=True)
class Key:
    """One key: the adapter that calls with it."""

    provider: Provider
    aside_until: float = 0.0
    """When it may be used again, by the clock of its `Keys`."""


class Keys:
    """The keys in the order in which they are used. At least one, which may be no key at all."""

    def __init__(
        self,
        name: str,
        make: MakeProvider,
        key: str | None = None,
        files: Sequence[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises `StartupError` for a file that holds no key, and for a key that can't be used."""
        self._name = name
        self._make = make
        self._files = [Path(file) for file in files]
        self._clock = clock
        texts = self._read() if files else [key]
        self._keys = {text: Key(make(text)) for text in texts}
        self._order = list(self._keys.values())
        self._next = 0

    def __len__(self) -> int:
        return len(self._order)

    @property
    def aside(self) -> int:
        """How many are set aside."""
        now = self._clock()
        return sum(key.aside_until > now for key in self._order)

    def pick(self) -> Key:
        """Returns the key whose turn it is; where all are set aside, the one that will be back first."""
        order = self._order
        if len(order) == 1:
            return order[0]
        now = self._clock()
        for _ in range(len(order)):
            key = order[self._next % len(order)]
            self._next = (self._next + 1) % len(order)
            if key.aside_until <= now:
                return key
        return min(order, key=lambda one: one.aside_until)

    def set_aside(self, key: Key, seconds: float) -> bool:
        """Sets a key aside, and returns whether there is another one that is not."""
        key.aside_until = max(key.aside_until, self._clock() + seconds)
        return self.aside < len(self._order)

    async def follow(self, *, interval: float = REREAD_SECONDS) -> None:
        """Reads the files again for ever, `interval` seconds apart; meant to be a background task.

        While a file can't be read or holds nothing that can be used, the keys stay as they are.
        """
        while True:
            await asyncio.sleep(interval)
            try:
                texts = await asyncio.to_thread(self._read)
                if texts != list(self._keys):
                    self._replace(texts)
            except StartupError as error:
                log.warning("provider_keys_unreadable", provider=self._name, problem=str(error))

    def _replace(self, texts: Sequence[str | None]) -> None:
        self._keys = {text: self._keys.get(text) or Key(self._make(text)) for text in texts}
        self._order = list(self._keys.values())
        log.info("provider_keys_replaced", provider=self._name, keys=len(self._order))

    def _read(self) -> list[str | None]:
        """Returns the keys of all files, one a line, each once."""
        texts: list[str | None] = []
        for file in self._files:
            try:
                content = read_regular_file(file, _MAX_KEY_FILE_BYTES).decode("ascii")
            except OSError as error:
                raise self._unusable(file, error.strerror or "can't be read") from None
            except UnicodeDecodeError:
                raise self._unusable(file, "holds what can't be a key") from None
            lines = [line.strip() for line in content.splitlines()]
            found = [line for line in lines if line and not line.startswith("#")]
            if not found:
                raise self._unusable(file, "contains no key")
            texts += [text for text in dict.fromkeys(found) if text not in texts]
        if len(texts) > MAX_KEYS:
            raise StartupError(f"provider {self._name!r}: more than {MAX_KEYS} keys")
        return texts

    def _unusable(self, file: Path, why: str) -> StartupError:
        return StartupError(f"provider {self._name!r}: the file of keys {file} {why}")
