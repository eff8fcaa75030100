"""session_svc's TurnService as what keeps where notices of turns go."""

from chat_gateway.clients.stubs import SESSION_SVC, Stubs
from chat_gateway.model.background import TurnOfUser
from parley.session.v1 import turn_service_pb2 as pb
from servicekit.channels import call


class PushConfigClient:
    """`timeout` bounds each call, in seconds."""

    def __init__(self, stubs: Stubs, *, timeout: float) -> None:
        self._turns = stubs.turns
        self._timeout = timeout

    async def put(self, turn: TurnOfUser, config_id: str, content: bytes) -> None:
        request = pb.PutPushConfigRequest(**_named(turn), push_config=pb.PushConfig(id=config_id, content=content))
        await call(self._turns.PutPushConfig, request, timeout=self._timeout, peer=SESSION_SVC)

    async def list(self, turn: TurnOfUser) -> list[tuple[str, bytes]]:
        request = pb.ListPushConfigsRequest(**_named(turn))
        found = await call(self._turns.ListPushConfigs, request, timeout=self._timeout, peer=SESSION_SVC)
        return [(one.id, one.content) for one in found.push_configs]

    async def delete(self, turn: TurnOfUser, config_id: str) -> None:
        request = pb.DeletePushConfigRequest(**_named(turn), push_config_id=config_id)
        await call(self._turns.DeletePushConfig, request, timeout=self._timeout, peer=SESSION_SVC)


def _named(turn: TurnOfUser) -> dict[str, str]:
    return {
        "project": turn.project,
        "session_id": turn.session_id,
        "user_id": turn.user_id,
        "turn_id": turn.turn_id,
    }
