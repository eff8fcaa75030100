"""Where notices of turns go, in Redis: with the session, in its slot."""

from typing import Any

from servicekit.errors import InvalidArgument, Violation
from session_svc.model.errors import TurnNotFound
from session_svc.model.push import PushConfig, PushTurn
from session_svc.redis_client.link import RedisUnavailable
from session_svc.redis_store import script_calls as calls
from session_svc.redis_store import script_replies as replies
from session_svc.redis_store.script_replies import reply_of
from session_svc.redis_store.script_runner import RedisScripts

MAX_OF_TURN, MAX_OF_SESSION = 8, 16


class RedisPushConfigs:
    """The `PushConfigStore` on Redis."""

    def __init__(self, scripts: RedisScripts) -> None:
        self._scripts = scripts

    async def put(self, turn: PushTurn, config: PushConfig) -> None:
        bounds = MAX_OF_TURN, MAX_OF_SESSION
        reply = await self._run(
            turn, calls.PushConfigs(turn.turn_id, turn.user_id, "put", config.id, config.content, *bounds)
        )
        if type(reply) is replies.TooMany:
            raise InvalidArgument([Violation("push_config", f"a turn has at most {MAX_OF_TURN}")])

    async def list(self, turn: PushTurn) -> list[PushConfig]:
        reply = await self._run(turn, calls.PushConfigs(turn.turn_id, turn.user_id, "list"))
        named = reply.configs
        return [PushConfig(id.decode(), content) for id, content in zip(named[::2], named[1::2], strict=True)]

    async def delete(self, turn: PushTurn, config_id: str) -> None:
        await self._run(turn, calls.PushConfigs(turn.turn_id, turn.user_id, "delete", config_id))

    async def _run(self, turn: PushTurn, call: calls.PushConfigs) -> Any:
        """Returns a reply other than `Missing`. Raises `TurnNotFound`."""
        command = self._scripts.command(turn.key, call)
        try:
            [answer] = await self._scripts.run(command)
        except RedisUnavailable:
            [answer] = await self._scripts.run(command)
        reply = reply_of(calls.PushConfigs, answer)
        if type(reply) is replies.Missing:
            raise TurnNotFound(turn.turn_id)
        return reply
