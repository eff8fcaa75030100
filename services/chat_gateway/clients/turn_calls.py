"""The methods of TurnService, which are called over streams that all turns share."""

from typing import Final

import grpc

from callstream.client import CallStreamClient
from callstream.protocol import Protocol
from chat_gateway.clients.stubs import SESSION_SVC
from parley.session.v1 import turn_service_pb2 as pb

TURNS: Final = Protocol("parley.session.v1.TurnService/Turns", pb.TurnsRequest, pb.TurnsResponse)
BEGIN: Final = TURNS.method("BeginTurn", "begin", pb.BeginTurnResponse)
RENEW: Final = TURNS.method("RenewTurn", "renew", pb.RenewTurnResponse)
COMMIT: Final = TURNS.method("CommitTurn", "commit", pb.CommitTurnResponse)
ABORT: Final = TURNS.method("AbortTurn", "abort", pb.AbortTurnResponse)
APPEND: Final = TURNS.method("AppendTurnEvents", "append", pb.AppendTurnEventsResponse)


def turn_calls(session_channel: grpc.aio.Channel) -> CallStreamClient:
    """Returns what calls TurnService; the channel stays the caller's to close."""
    return CallStreamClient(TURNS, (BEGIN, RENEW, COMMIT, ABORT, APPEND), session_channel, peer=SESSION_SVC)
