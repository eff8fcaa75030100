"""Sends push notifications: signed, through the egress guard, in bounded tries, and never in a turn's way."""

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import aiohttp
import structlog
from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import MessageToDict

from chat_gateway.a2a.push_configs import PushConfigs
from chat_gateway.a2a.push_keys import PushKeys
from chat_gateway.metrics import PushMetrics
from chat_gateway.model.background import TurnOfUser
from servicekit.egress import EgressDenied, target_of
from servicekit.egress_http import GuardedClient
from servicekit.errors import ServiceError
from servicekit.supervision import cancel_and_wait
from servicekit.values import value

SIGNATURE: Final = "A2A-Notification-Signature"
TOKENS: Final = ("X-A2A-Notification-Token", "A2A-Notification-Token")
"""The protocol names no header for the token: the SDKs for Python and for Go read these."""
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_RUNNING: Final = frozenset({pb.TASK_STATE_SUBMITTED, pb.TASK_STATE_WORKING, pb.TASK_STATE_UNSPECIFIED})
_GOOD_SECONDS: Final = 300

log = structlog.get_logger("chat_gateway.a2a.push")


@value
class PushTimes:
    """In seconds, but for the counts. `pauses` come between the tries, half as much more or less."""

    timeout: float = 15.0
    pauses: tuple[float, ...] = (1.0, 5.0, 20.0)
    last: float = 5.0
    """What a gateway that stops leaves its notifications."""
    max_tasks: int = 1000
    """Tasks whose notifications are under way; those of more are dropped."""
    max_requests: int = 32
    """Requests under way."""


class PushSender:
    """Owns the notifications that are under way; `close` it when no turn runs any more."""

    def __init__(
        self,
        client: GuardedClient,
        configs: PushConfigs,
        keys: PushKeys,
        issuer: str,
        metrics: PushMetrics,
        times: PushTimes = PushTimes(),
    ) -> None:
        """`issuer` is what signatures say who signed; empty: they do not."""
        self._client = client
        self._configs = configs
        self._keys = keys
        self._issuer = issuer
        self._metrics = metrics
        self._times = times
        self._slots = asyncio.Semaphore(times.max_requests)
        self._under_way: set[asyncio.Task[None]] = set()

    def start(self, turn: TurnOfUser, read: Callable[[], Awaitable[pb.Task]], only: str = "") -> None:
        """Notifies of what `read` returns, unless the task runs; returns at once and raises nothing.

        `only` is the id of the one configuration that is meant; empty: all of the turn.
        """
        if len(self._under_way) >= self._times.max_tasks:
            self._metrics.ended("dropped")
            return
        task = asyncio.get_running_loop().create_task(self._quietly(turn, self._notify(turn, read, only)))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Leaves what is under way a moment, and cancels what is left."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._times.last)
        await cancel_and_wait(*self._under_way)
        await self._client.close()

    async def _quietly(self, turn: TurnOfUser, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ServiceError as error:
            self._metrics.ended("failed")
            log.warning("push_not_prepared", turn_id=turn.turn_id, reason=error.reason)
        except Exception as error:
            self._metrics.ended("failed")
            log.error("push_not_prepared", turn_id=turn.turn_id, exc_info=error)

    async def _notify(self, turn: TurnOfUser, read: Callable[[], Awaitable[pb.Task]], only: str) -> None:
        configs = [one for one in await self._configs.list(turn) if only in ("", one.id)]
        if not configs:
            return
        task = await read()
        if task.status.state in _RUNNING:
            return
        task.ClearField("history")
        document = MessageToDict(pb.StreamResponse(task=task))
        body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        event = f"{task.id} {pb.TaskState.Name(task.status.state)} {_calls_of(task)}"
        await asyncio.gather(*(self._deliver(config, task.id, event, body) for config in configs))

    async def _deliver(self, config: pb.TaskPushNotificationConfig, task: str, event: str, body: bytes) -> None:
        """Sends one notification until it was taken, or the tries are used up."""
        place = str(target_of(config.url))
        notification = hashlib.sha256(f"{event} {config.id}".encode()).hexdigest()[:32]
        outcome = ""
        for pause in (*self._times.pauses, None):
            headers = self._headers(config, task, place, notification, body)
            async with self._slots:
                outcome, again = await self._send(config.url, headers, body)
            if not again or pause is None:
                break
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        self._metrics.ended("delivered" if outcome == "delivered" else "failed")
        if outcome != "delivered":
            log.info("push_not_delivered", task_id=task, target=place, outcome=outcome)

    async def _send(self, url: str, headers: dict[str, str], body: bytes) -> tuple[str, bool]:
        """Returns what became of one try, and whether another may do better. Nothing of the answer's body is read."""
        try:
            async with asyncio.timeout(self._times.timeout):
                response = await self._client.send("POST", url, headers=headers, body=body)
        except EgressDenied:
            return "denied", False
        except TimeoutError:
            return "timeout", True
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return type(error).__name__, True
        status = response.status
        response.close()
        return ("delivered", False) if 200 <= status < 300 else (f"status {status}", status in _AGAIN)

    def _headers(
        self, config: pb.TaskPushNotificationConfig, task: str, audience: str, notification: str, body: bytes
    ) -> dict[str, str]:
        now = int(time.time())
        claims: dict[str, Any] = {
            "aud": audience,
            "iat": now,
            "exp": now + _GOOD_SECONDS,
            "jti": notification,
            "task_id": task,
            "request_body_sha256": hashlib.sha256(body).hexdigest(),
        }
        if self._issuer:
            claims["iss"] = self._issuer
        signature = self._keys.sign(claims)
        headers = {"Content-Type": "application/json", "A2A-Version": "1.0", SIGNATURE: signature}
        if config.token:
            headers |= dict.fromkeys(TOKENS, config.token)
        said = config.authentication
        if said.credentials:
            headers["Authorization"] = f"{said.scheme} {said.credentials}"
        elif not config.HasField("authentication") or said.scheme.lower() == "bearer":
            headers["Authorization"] = f"Bearer {signature}"
        return headers


def _calls_of(task: pb.Task) -> str:
    """Returns what distinguishes the times at which a task waits."""
    return str(task.status.message.message_id)
