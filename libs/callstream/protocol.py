"""What both ends know of a service: its unary methods, and the messages of the stream that carries their calls.

The messages are the service's own, and bear these fields, whatever their numbers:

    message Requests {                     // from the caller
      repeated Call calls;
      repeated <uint64> cancelled_ids;     // calls whose answers nobody waits for any more
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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from servicekit.wire import bytes_tag, number_tag

Response = TypeVar("Response", bound=Message)


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

    def method(self, name: str, field: str, response: type[Response]) -> Method[Response]:
        """Returns the method `name` of the service, whose request and response are the fields `field`.

        Raises `ValueError` where the messages have no such field, or one that holds another response.
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
