"""Random and mutated messages to every RPC of every service: whatever is sent, no answer is INTERNAL or UNKNOWN.

The methods come from the descriptors. The seed is fixed, so that a failure can be had again: PARLEY_FUZZ_SEED sets
another, PARLEY_FUZZ_SECONDS how long it goes on.
"""

import os
import random
import time
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message import Message

from access.authenticator import peer_credential
from access.caller import SERVICE
from parley.access.v1 import rule_pb2
from servicekit.rpc_status import from_rpc_error
from tests.servers.system import System
from tests.system.methods import METHODS

SEED = int(os.environ.get("PARLEY_FUZZ_SEED", "4"))
SECONDS = float(os.environ.get("PARLEY_FUZZ_SECONDS", "15"))
TEXTS = ("", "a", "hello", "default", "assistant", "é漢", "\x00", "a\nb", " ", "-", "x" * 300, "x" * 70_000, "%00", "*")
INTS = (0, 1, -1, 2, 7, 100, 1001, 2**31 - 1, -(2**31))
LONGS = (*INTS, 2**63 - 1, -(2**63))
FLOATS = (0.0, 1.0, -1.0, 0.5, 1e308, float("nan"), float("inf"), float("-inf"))
DEPTH = 5


class Generator:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def fill(self, message: Message, depth: int = 0) -> None:
        for field in message.DESCRIPTOR.fields:
            if self.random.random() < 0.45:
                continue
            if field.is_repeated:
                self._repeat(message, field, depth)
            elif field.type == F.TYPE_MESSAGE:
                if depth < DEPTH:
                    inner = getattr(message, field.name)
                    inner.SetInParent()
                    self.fill(inner, depth + 1)
            else:
                setattr(message, field.name, self.scalar(field))

    def _repeat(self, message: Message, field: Any, depth: int) -> None:
        values = getattr(message, field.name)
        for _ in range(self.random.choice((0, 1, 1, 2, 3))):
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
                if value.type == F.TYPE_MESSAGE:
                    if depth < DEPTH:
                        self.fill(values[self.scalar(key)], depth + 1)
                else:
                    values[self.scalar(key)] = self.scalar(value)
            elif field.type == F.TYPE_MESSAGE:
                if depth < DEPTH:
                    self.fill(values.add(), depth + 1)
            else:
                values.append(self.scalar(field))

    def scalar(self, field: Any) -> Any:
        choose = self.random.choice
        match field.type:
            case F.TYPE_STRING:
                return choose(TEXTS)
            case F.TYPE_BYTES:
                return choose((b"", b"\x00", b"\xff" * 40, self.random.randbytes(32)))
            case F.TYPE_BOOL:
                return choose((True, False))
            case F.TYPE_ENUM:
                return choose([*field.enum_type.values_by_number, 99])
            case F.TYPE_FLOAT | F.TYPE_DOUBLE:
                return choose(FLOATS)
            case F.TYPE_UINT32 | F.TYPE_UINT64 | F.TYPE_FIXED32 | F.TYPE_FIXED64:
                return choose((0, 1, 2**32 - 1))
            case F.TYPE_INT32 | F.TYPE_SINT32 | F.TYPE_SFIXED32:
                return choose(INTS)
            case _:
                return choose(LONGS)

    def mutated(self, data: bytes) -> bytes:
        changed = bytearray(data or b"\x00")
        for _ in range(self.random.randint(1, 4)):
            at = self.random.randrange(len(changed))
            match self.random.randrange(3):
                case 0:
                    changed[at] = self.random.randrange(256)
                case 1:
                    del changed[at:]
                    changed = changed or bytearray(b"\x07")
                case _:
                    changed[at:at] = self.random.randbytes(3)
        return bytes(changed)


def outcome(channel: grpc.Channel, method: Any, data: bytes, credential: str) -> str:
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    path = f"/{method.containing_service.full_name}/{method.name}"
    call = getattr(channel, kind)(path, request_serializer=None, response_deserializer=None)
    metadata = (("authorization", f"Bearer {credential}"),)
    sent = iter([data]) if method.client_streaming else data
    try:
        if not method.server_streaming:
            call(sent, timeout=1.0, metadata=metadata)
            return "OK"
        stream = call(sent, timeout=0.2, metadata=metadata)
        next(stream, None)
        stream.cancel()
    except grpc.RpcError as error:
        told = from_rpc_error(error)  # type: ignore[arg-type]
        return f"{error.code().name} {told.reason}"
    return "OK"


def test_whatever_is_sent_no_service_fails_within(guarded_system: System) -> None:
    generator, system = Generator(SEED), guarded_system
    targets = {
        "gateway": system.grpc_target,
        "config": system.config.grpc_target,
        "session": system.session.grpc_target,
    }
    peer = peer_credential(system.operator_key, "chat_gateway")
    channels = {name: grpc.insecure_channel(target) for name, target in targets.items()}
    faults: list[tuple[str, str, bytes]] = []
    sent = 0
    try:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for where, method in METHODS:
                request = message_factory.GetMessageClass(method.input_type)()
                generator.fill(request)
                data = request.SerializeToString()
                if generator.random.random() < 0.3:
                    data = generator.mutated(data)
                scope = method.GetOptions().Extensions[rule_pb2.rule].scope
                credential = peer if scope == SERVICE else system.operator_key
                ended = outcome(channels[where], method, data, credential)
                sent += 1
                if ended.split()[0] in ("INTERNAL", "UNKNOWN", "DATA_LOSS"):
                    faults.append((method.full_name, ended, data[:200]))
    finally:
        for channel in channels.values():
            channel.close()
    assert sent >= len(METHODS)  # each at least once, however slow the machine
    assert faults == []
    assert all(service.running for service in system.services)
