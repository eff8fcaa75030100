"""What administrators do meanwhile: delete sessions and agents, make agents again, fork sessions, list them."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp

from tests.faults.history.clients import Edges
from tests.faults.history.records import Ending, Fork, History, Listing, Removal
from tests.faults.history.slots import AGENT, BRIEF_AGENT, MORTAL_AGENT, Sessions

PATIENCE_SECONDS = 6.0
FORK_ATTEMPTS = 4
AGAIN_SECONDS = 60.0
"""How long an agent is tried to be deleted, or made again; everything is back long before."""


class Admin:
    """The administrators. What they do follows from the seed; what comes of it is noted in the history."""

    def __init__(self, seed: int, edges: Edges, history: History, mortal: dict[str, Any]) -> None:
        self._seed = seed
        self._edges = edges
        self._history = history
        self._mortal = mortal

    async def delete_sessions(self, sessions: Sessions, until: float) -> None:
        """Delete one of the sessions that are used on, again and again."""
        draw = random.Random(f"{self._seed}:delete sessions")
        async for _ in _moments(draw, 1.0, until):
            session = sessions.to_delete(draw)
            removal = Removal(AGENT, session, time.monotonic())
            status = await self.ask(draw, "DELETE", f"/v1/sessions/{session}")
            if status in (200, 204, 404):
                removal = replace(removal, ended=time.monotonic(), acknowledged=True)
            self._history.removals.append(removal)

    async def renew_agent(self, until: float) -> None:
        """Delete the mortal agent and make it again, again and again; in the end it is there."""
        draw = random.Random(f"{self._seed}:renew agent")
        async for _ in _moments(draw, 4.0, until):
            removal = Removal(MORTAL_AGENT, "", time.monotonic())
            status = await self._until(draw, (200, 204, 404), "DELETE", f"/v1/agents/{MORTAL_AGENT}")
            # 404: an earlier try deleted it, and may have told nobody to remove its sessions yet.
            if status != 404:
                removal = replace(removal, ended=time.monotonic(), acknowledged=True)
            await asyncio.sleep(draw.choice((0.0, 0.0, 0.5)))
            self._history.removals.append(replace(removal, renewed=time.monotonic()))
            await self._until(draw, (201, 409), "POST", "/v1/agents", json=self._mortal)

    async def fork_sessions(self, sessions: Sessions, until: float) -> None:
        """Fork one of the lasting sessions, again and again; callers go on with a fork that was acknowledged."""
        draw = random.Random(f"{self._seed}:fork sessions")
        async for _ in _moments(draw, 2.0, until):
            source = sessions.to_fork(draw)
            if source is None:
                continue
            up_to = draw.choice((0, 0, 0, 1, 3))
            fork = await self._forked(draw, Fork(f"k{len(self._history.forks)}", source, up_to, time.monotonic()))
            self._history.forks.append(fork)
            if fork.ending is Ending.ACKNOWLEDGED:
                sessions.add_fork(fork.id)

    async def _forked(self, draw: random.Random, fork: Fork) -> Fork:
        """Try under one id until the outcome is known, a few times at most."""
        heard = True
        for _ in range(FORK_ATTEMPTS):
            body = {"id": fork.id, **({"up_to_turn": fork.up_to} if fork.up_to else {})}
            try:
                async with self._request(draw, "POST", f"/v1/sessions/{fork.source}:fork", json=body) as answer:
                    status, told = answer.status, await answer.json()
            except (aiohttp.ClientError, OSError, TimeoutError, json.JSONDecodeError):
                status, told = 0, {}
            if status in (200, 201):
                return replace(fork, ended=time.monotonic(), ending=Ending.ACKNOWLEDGED, turns=told["turn_count"])
            # 409: an earlier try made it, or makes it still, or began it and was killed.
            if heard and status in (400, 404):
                return replace(fork, ended=time.monotonic(), ending=Ending.REFUSED)
            heard = False
            await asyncio.sleep(draw.uniform(0.1, 1.0))
        return fork

    async def list_sessions(self, until: float) -> None:
        """List the sessions of one of the agents, again and again."""
        draw = random.Random(f"{self._seed}:list sessions")
        async for _ in _moments(draw, 0.5, until):
            listing = await self.listed(draw, draw.choice((AGENT, MORTAL_AGENT, BRIEF_AGENT, BRIEF_AGENT)))
            if listing is not None:
                self._history.listings.append(listing)

    async def listed(self, draw: random.Random, agent: str) -> Listing | None:
        """List all sessions of an agent; None when a page could not be had."""
        began, found, token = time.monotonic(), set[str](), ""
        while True:
            query = {"agent_id": agent, "page_size": "100", **({"page_token": token} if token else {})}
            try:
                async with self._request(draw, "GET", "/v1/sessions", params=query) as answer:
                    if answer.status != 200:
                        return None
                    page = await answer.json()
            except (aiohttp.ClientError, OSError, TimeoutError):
                return None
            found |= {session["id"] for session in page["data"]}
            token = page.get("next_page_token") or ""
            if not token:
                return Listing(agent, began, time.monotonic(), frozenset(found))

    async def ask(self, draw: random.Random, method: str, path: str, **options: Any) -> int:
        """Send a request to any gateway, once; return the answer's status, 0 when there was none."""
        try:
            async with self._request(draw, method, path, **options) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0

    async def _until(self, draw: random.Random, wanted: tuple[int, ...], method: str, path: str, **options: Any) -> int:
        deadline = time.monotonic() + AGAIN_SECONDS
        while (status := await self.ask(draw, method, path, **options)) not in wanted:
            if time.monotonic() > deadline:
                self._history.unrecovered.append(f"{method} {path} is answered {status} for {AGAIN_SECONDS} s")
                return status
            await asyncio.sleep(0.2)
        return status

    def _request(self, draw: random.Random, method: str, path: str, **options: Any) -> Any:
        url = self._edges.url(draw.randrange(len(self._edges)), path)
        return self._edges.http.request(method, url, timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS), **options)


async def _moments(draw: random.Random, mean: float, until: float) -> AsyncIterator[None]:
    while True:
        await asyncio.sleep(min(draw.expovariate(1 / mean), max(until - time.monotonic(), 0.0)))
        if time.monotonic() >= until:
            return
        yield
