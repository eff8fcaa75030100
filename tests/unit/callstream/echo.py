"""A service of the tests' own, made without a .proto file: Echo and Count, called over the stream Echo/Calls."""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from callstream.protocol import Protocol

_TYPES = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"uint64": _TYPES.TYPE_UINT64, "string": _TYPES.TYPE_STRING, "bool": _TYPES.TYPE_BOOL}
_SCALARS |= {"bytes": _TYPES.TYPE_BYTES}

# Numbers that no service of ours has, so that nothing goes by them; `+` is repeated, `?` a member of the oneof.
_MESSAGES = {
    "EchoRequest": ("", [("text", 1, "string")]),
    "EchoResponse": ("", [("text", 1, "string")]),
    "CountRequest": ("", [("text", 3, "string")]),
    "CountResponse": ("", [("number", 3, "uint64")]),
    "Calls": ("", [("cancelled_ids", 9, "uint64+"), ("calls", 20, "Call+")]),
    "Call": (
        "request",
        [
            ("id", 16, "uint64"),
            ("timeout_ms", 2, "uint64"),
            ("trace_context", 5, "Call.TraceContextEntry+"),
            ("echo", 30, "EchoRequest?"),
            ("count", 8, "CountRequest?"),
        ],
    ),
    "Answers": ("", [("results", 17, "Result+"), ("draining", 1, "bool")]),
    "Result": (
        "outcome",
        [("id", 4, "uint64"), ("failure", 40, "bytes?"), ("echo", 5, "EchoResponse?"), ("count", 6, "CountResponse?")],
    ),
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="echo.proto", package="echo", syntax="proto3")
    for name, (oneof, fields) in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if oneof:
            message.oneof_decl.add(name=oneof)
        for field, number, kind in fields:
            _add(message, field, number, kind)
        if name == "Call":
            entry = message.nested_type.add(name="TraceContextEntry")
            entry.options.map_entry = True
            _add(entry, "key", 1, "string")
            _add(entry, "value", 2, "string")
    return file


def _add(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    label = _TYPES.LABEL_REPEATED if kind.endswith("+") else _TYPES.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, label=label)
    if kind.endswith("?"):
        field.oneof_index = 0
    kind = kind.rstrip("+?")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _TYPES.TYPE_MESSAGE, f".echo.{kind}"


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"echo.{name}"))


EchoRequest, EchoResponse = _class("EchoRequest"), _class("EchoResponse")
CountRequest, CountResponse = _class("CountRequest"), _class("CountResponse")
Calls, Call, Answers, Result = _class("Calls"), _class("Call"), _class("Answers"), _class("Result")

PROTOCOL = Protocol("echo.Echo/Calls", Calls, Answers)
ECHO = PROTOCOL.method("Echo", "echo", EchoResponse)
COUNT = PROTOCOL.method("Count", "count", CountResponse)
