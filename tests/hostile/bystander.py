"""What an attack does to a gateway that is a process of its own, and to somebody who has no part in it."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil

from tests.servers.system import System

MAX_GROWTH_BYTES = 160 * 1024 * 1024
"""Of the gateway's resident memory: what allocators keep of bodies that are allowed."""
MAX_LATENCY_SECONDS = 4.0
MAX_STALL_SECONDS = 15.0
"""Of one request: the machine may stand still while it is under way."""
MAX_LEFT = 40
"""Descriptors that the gateway may have open beyond those before, some seconds after an attack."""
SETTLE_SECONDS = 60.0
TURN = {"model": "hello", "messages": [{"role": "user", "content": "Hi"}]}


class Bystander:
    """Asks for health over a new connection, and for a turn over one that stays, again and again."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._process = psutil.Process(system.gateways[0].pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failed: list[str] = []
        self.turns = 0
        self.took: list[float] = []
        self.peak_bytes = 0
        self.begin_bytes = self._process.memory_info().rss
        self._descriptors = self._process.num_fds()

    def _run(self) -> None:
        # A client costs this process more than the gateway, so that health over new connections has one, too.
        fresh = httpx.Limits(max_keepalive_connections=0)
        health = httpx.Client(base_url=self._system.http_url, limits=fresh, timeout=60, trust_env=False)
        with self._system.client() as client, health:
            while not self._stop.is_set():
                self._timed(lambda: health.get("/livez"))
                self._timed(lambda: client.post("/v1/chat/completions", json=TURN))
                self.turns += 1
                self._stop.wait(0.02)

    def _timed(self, ask: Any) -> None:
        begun = time.monotonic()
        try:
            answer = ask()
            if answer.status_code != 200:
                self.failed.append(f"{answer.status_code}: {answer.text[:200]}")
        except httpx.HTTPError as error:
            self.failed.append(repr(error))
        self.took.append(time.monotonic() - begun)
        self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)

    @contextlib.contextmanager
    def watching(self) -> Iterator["Bystander"]:
        """Ask while open; at the end nothing may have failed or grown, and connections go."""
        self._thread.start()
        try:
            yield self
            seen, deadline = self.turns, time.monotonic() + 60
            while self.turns < seen + 2 and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            self._stop.set()
            self._thread.join(120)
        assert self.turns >= 2
        assert self.failed == []
        *_, second, longest = sorted(self.took)
        assert second < MAX_LATENCY_SECONDS
        assert longest < MAX_STALL_SECONDS
        growth = self.peak_bytes - self.begin_bytes
        assert growth < MAX_GROWTH_BYTES, f"{growth >> 20} MiB more than before"
        deadline = time.monotonic() + SETTLE_SECONDS
        while (left := self._process.num_fds() - self._descriptors) > MAX_LEFT:
            assert time.monotonic() < deadline, f"{left} descriptors more than before"
            time.sleep(0.1)
