"""Every RPC of every service, from the services' descriptors, and what a call of it ends with."""

import time
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor

from chat_gateway.wiring import SERVICES as GATEWAY_SERVICES
from config_svc.wiring import SERVICES as CONFIG_SERVICES
from parley.access.v1 import rule_pb2
from servicekit.rpc_status import from_rpc_error
from session_svc.wiring import SERVICES as SESSION_SERVICES
from tests.servers.system import System

UNAVAILABLE = ("PEER_UNAVAILABLE", "UNAVAILABLE")
TRIES = 6
"""Of what a part can't answer for a moment: the machine may stand still."""


def _methods() -> list[tuple[str, MethodDescriptor]]:
    pool = descriptor_pool.Default()
    by_target = {"gateway": GATEWAY_SERVICES, "config": CONFIG_SERVICES, "session": SESSION_SERVICES}
    return [
        (target, method)
        for target, services in by_target.items()
        for service in services
        for method in pool.FindServiceByName(service).methods
    ]


METHODS = _methods()
"""Each with the service that it is asked of: `gateway`, `config` or `session`."""


def scope_of(method: MethodDescriptor) -> str:
    return str(method.GetOptions().Extensions[rule_pb2.rule].scope)


def target_of(system: System, where: str) -> str:
    served = {"gateway": system.gateways[0], "config": system.config, "session": system.session}
    return served[where].grpc_target


def refusal(
    channel: grpc.Channel, method: MethodDescriptor, request: Any, credential: str | None, patience: float = 30.0
) -> str:
    """The reason with which a call ends, its code where it has none, "" for OK or a stream that goes on."""
    for _ in range(TRIES):
        if (reason := _reason(channel, method, request, credential, patience)) not in UNAVAILABLE:
            break
        time.sleep(0.5)
    return reason


def _reason(
    channel: grpc.Channel, method: MethodDescriptor, request: Any, credential: str | None, patience: float
) -> str:
    path = f"/{method.containing_service.full_name}/{method.name}"
    metadata = (("authorization", f"Bearer {credential}"),) if credential is not None else ()
    answer_type = message_factory.GetMessageClass(method.output_type)
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(channel, kind)(
        path, request_serializer=type(request).SerializeToString, response_deserializer=answer_type.FromString
    )
    sent = iter([request]) if method.client_streaming else request
    try:
        if not method.server_streaming:
            call(sent, timeout=30, metadata=metadata)
            return ""
        stream = call(sent, timeout=patience, metadata=metadata)
        next(stream, None)
        stream.cancel()
    except grpc.RpcError as error:
        told = from_rpc_error(error)  # type: ignore[arg-type]
        return told.reason
    return ""
