"""What both ends know of a service: its unary methods, and the messages of the stream that carries the calls.

The messages are the service's own, with these fields under any numbers:

    message Requests {                     // from the caller
      repeated Call calls;
      repeated <uint64> cancelled_ids;     // calls whose answers are no longer waited for
    }
    message Call {
      <uint64> id;                         // unique among the calls of a stream that are under way
      <uint64> timeout_ms;                 // 0: no deadline
      map<string, string> trace_context;   // metadata that a unary call would carry
      oneof request { ... }                // one field a method
    }
    message Responses {                    // to the caller; the first, empty one says that calls are taken
      repeated Result results;
      bool draining;                       // no more calls, please: those under way will be answered
    }
    message Result {
      <uint64> id;
      oneof outcome {
        bytes failure;                     // a google.rpc.Status
        ...                                // one field a method, of the same name as in Call
      }
    }
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from servicekit.errors import Internal
from servicekit.rpc_status import to_status
from servicekit.wire import bytes_tag, fields, number_tag

Response = TypeVar("Response", bound=Message)

_UNREADABLE = to_status(Internal()).SerializeToString()


@dataclass(frozen=True, slots=True)
class Method(Generic[Response]):
    """A unary method, as an RPC and as a field of `Call` and `Result`."""

    name: str
    """With its service, as gRPC names it: `package.Service/Method`."""
    field: str
    request: type[Message]
    response: type[Response]
    call_tag: bytes
    result_tag: bytes


class Protocol:
    """The stream `package.Service/Method` of a service, and the methods that it carries."""

    def __init__(self, stream: str, requests: type[Message], responses: type[Message]) -> None:
        self.stream = stream
        self.service = stream.partition("/")[0]
        self.requests: Any = requests
        self.responses: Any = responses
        calls: Any = requests.DESCRIPTOR.fields_by_name["calls"]
        results: Any = responses.DESCRIPTOR.fields_by_name["results"]
        self.call: Any = calls.message_type._concrete_class
        self._call_fields: Mapping[str, Any] = calls.message_type.fields_by_name
        self._result_fields: Mapping[str, Any] = results.message_type.fields_by_name
        self.calls_tag = bytes_tag(calls.number)
        self.call_id_tag = number_tag(self._call_fields["id"].number)
        self.timeout_tag = number_tag(self._call_fields["timeout_ms"].number)
        self.results_tag = bytes_tag(results.number)
        self.result_id_tag = number_tag(self._result_fields["id"].number)
        self.failure_tag = bytes_tag(self._result_fields["failure"].number)
        self.read_requests = self._reader(self.requests, "calls", {})
        """Returns a message from the caller. An unreadable call in it has no method. Raises `DecodeError` for an
        unreadable message.
        """
        self.read_responses = self._reader(self.responses, "results", {"failure": _UNREADABLE})
        """Returns a message to the caller. An unreadable result in it is a failure of that call only."""

    def _reader(self, kind: Any, parts: str, instead: Mapping[str, bytes]) -> Callable[[bytes], Any]:
        whole = kind.FromString

        def read(data: bytes) -> Any:
            try:
                return whole(data)
            except DecodeError:
                return self._read_parts(kind, parts, data, instead)

        return read

    def _read_parts(self, kind: Any, parts: str, data: bytes, instead: Mapping[str, bytes]) -> Any:
        message = kind()
        field = kind.DESCRIPTOR.fields_by_name[parts]
        try:
            for number, value, whole in fields(data):
                if number == field.number and isinstance(value, bytes):
                    self._add(getattr(message, parts), field.message_type, value, instead)
                else:
                    message.MergeFromString(whole)
        except ValueError as error:
            raise DecodeError("not even the parts of the message can be read") from error
        return message

    def _add(self, parts: Any, kind: Any, data: bytes, instead: Mapping[str, bytes]) -> None:
        try:
            parts.append(kind._concrete_class.FromString(data))
        except DecodeError:
            own = kind.fields_by_name["id"].number
            call_id = next((value for number, value, _ in fields(data) if number == own), None)
            if call_id is not None:
                parts.add(id=call_id, **instead)

    def method(self, name: str, field: str, response: type[Response]) -> Method[Response]:
        """Returns the method `name` of the service, whose request and response are the fields `field`.

        Raises `ValueError` if the messages have no such field, or one of another type.
        """
        call, result = self._call_fields.get(field), self._result_fields.get(field)
        if call is None or result is None or result.message_type is not response.DESCRIPTOR:
            raise ValueError(f"{self.stream} does not carry {name} as {field!r}")
        return Method(
            f"{self.service}/{name}",
            field,
            call.message_type._concrete_class,
            response,
            bytes_tag(call.number),
            bytes_tag(result.number),
        )
