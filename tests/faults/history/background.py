"""Turns in the background, as their callers see them: submitted, looked at until they have ended, and cancelled."""

import asyncio
import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.faults.history.records import DEFINITE, GONE, MISMATCH, UNDECIDED, Ending, History, Operation

LOOK_PAUSE_SECONDS = 0.1
LOOK_SECONDS = 5.0
SETTLE_SECONDS = 40.0
"""Less than it takes until a turn that nobody runs is said to have ended because nothing is heard of it."""
NOT_FOUND = "(turn not found)"
UNFINISHED = frozenset({"queued", "in_progress"})
_TAKEN_OVER = re.compile(r'"attempt": (\d+), "event": "turn_taken_over"')
_HANDED_OVER = '"event": "turn_handed_over"'


@dataclass(frozen=True, slots=True)
class Told:
    """How an attempt ended, as the caller knows it."""

    ending: Ending
    detail: str = ""
    answer: str = ""
    replayed: bool = False
    said: str = ""


def refused(reason: str, status: int, said: str) -> Told:
    """Return what an error with a reason tells: only some of them promise that nothing was stored."""
    undecided = reason in UNDECIDED or (status >= 500 and reason not in DEFINITE | GONE | {MISMATCH})
    return Told(Ending.UNKNOWN if undecided else Ending.REFUSED, reason, said=said)


class Submissions:
    """Submits turns at one gateway, looks at them at the others, and cancels some."""

    def __init__(self, http: aiohttp.ClientSession, urls: list[str]) -> None:
        self._http = http
        self._urls = urls

    async def run(self, operation: Operation, gateway: int, body: dict[str, Any], headers: dict[str, str]) -> Told:
        """Submit a turn and look at it until it has ended; cancel it meanwhile where the operation says so."""
        url = f"{self._urls[gateway]}/v1/chat/completions"
        async with self._http.post(url, json=body | {"stream": False}, headers=headers) as response:
            state = await response.json()
            if response.status not in (200, 202):
                if state["error"]["code"] == "turn_not_found":  # that of an earlier attempt, whose session is gone
                    return Told(Ending.UNKNOWN, NOT_FOUND)
                return refused(state["error"]["code"], response.status, state["error"]["message"])
        operation.submitted.append(state["id"])
        if operation.cancel_after is None:
            return await self.end_of(state, gateway)
        async with asyncio.TaskGroup() as group:
            cancelling = group.create_task(self._cancel(state["id"], gateway, operation.cancel_after))
            told = await self.end_of(state, gateway)
            cancelling.cancel()
        return told

    async def end_of(self, state: dict[str, Any], gateway: int) -> Told:
        """Look at a turn, at one gateway after the other, until it has ended."""
        completion = state["id"]
        while state["status"] in UNFINISHED:
            await asyncio.sleep(LOOK_PAUSE_SECONDS)
            gateway = (gateway + 1) % len(self._urls)
            status, found = await self._ask("GET", gateway, completion)
            if status == 404:
                return Told(Ending.UNKNOWN, NOT_FOUND)
            if status == 200:
                state = found
        if not state["choices"] and not state.get("error"):
            return Told(Ending.UNKNOWN, "failed without a reason")
        if error := state.get("error"):
            status = 400 if state["status"] == "cancelled" or error["type"] == "invalid_request_error" else 500
            return refused(error["code"], status, error["message"])
        return Told(Ending.ACKNOWLEDGED, "", state["choices"][0]["message"]["content"] or "")

    async def settle(self, history: History) -> None:
        """Look once more at turns whose end nobody heard of: whoever takes one over ends it in a while."""
        deadline = time.monotonic() + SETTLE_SECONDS
        for operation in history.operations:
            for completion in operation.submitted if operation.ending is Ending.UNKNOWN else ():
                while await self._is_unfinished(completion):
                    if time.monotonic() > deadline:
                        history.abandoned[completion] = operation.session
                        break
                    await asyncio.sleep(LOOK_PAUSE_SECONDS)

    async def _is_unfinished(self, completion: str) -> bool:
        status, state = await self._ask("GET", 0, completion)
        return status == 0 or (status == 200 and state["status"] in UNFINISHED)

    async def _cancel(self, completion: str, gateway: int, after: float) -> None:
        """Cancel a turn, again where nobody answers: it is idempotent."""
        await asyncio.sleep(after)
        status = 0
        while status not in (200, 404):
            gateway = (gateway + 1) % len(self._urls)
            status, _ = await self._ask("POST", gateway, f"{completion}:cancel")
            await asyncio.sleep(LOOK_PAUSE_SECONDS)

    async def _ask(self, method: str, gateway: int, path: str) -> tuple[int, Any]:
        """Return status and answer; 0 where there is none."""
        url = f"{self._urls[gateway]}/v1/chat/completions/{path}"
        try:
            async with asyncio.timeout(LOOK_SECONDS), self._http.request(method, url) as response:
                return response.status, await response.json()
        except (aiohttp.ClientError, OSError, json.JSONDecodeError, TimeoutError):
            return 0, None


def taken_over(folder: Path) -> Counter[str]:
    """Return how many turns gateways took, as their logs say: from the queue, after another one, and left to others."""
    counts: Counter[str] = Counter()
    for log in folder.glob("gateway*.log"):
        text = log.read_text(errors="replace")
        attempts = _TAKEN_OVER.findall(text)
        counts["from the queue"] += attempts.count("1")
        counts["after another gateway"] += len(attempts) - attempts.count("1")
        counts["handed over by a gateway that stops"] += text.count(_HANDED_OVER)
    return counts
