"""A gRPC server that answers calls as a test says, and keeps what it was asked."""

from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, Self

import grpc
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from parley_client.promises import SERVICES

Answer = Callable[[Any, grpc.ServicerContext], Any]


class Scripted:
    """Each method answers by the next of `answers[name]`, the last of which stays; `asked` has its requests."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.metadata: dict[str, str | bytes] = {}
        self.remaining: float | None = None
        """The deadline that the last call came with."""
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        handlers = [self._handlers(service) for services in SERVICES.values() for service in services]
        self._server.add_generic_rpc_handlers(tuple(handlers))
        self.health = health.HealthServicer()
        self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        for services in SERVICES.values():
            self.health.set(services[0].full_name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        place = "127.0.0.1:0"
        port = (
            self._server.add_secure_port(place, credentials) if credentials else self._server.add_insecure_port(place)
        )
        self.port = port
        self.target = f"127.0.0.1:{port}"

    def requests(self, name: str) -> list[Any]:
        return [request for method, request in self.asked if method == name]

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait(10)

    def _handlers(self, service: Any) -> grpc.GenericRpcHandler:
        methods = {}
        for method in service.methods:
            request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            kind, behaviour = grpc.unary_unary_rpc_method_handler, self._answered(method.name)
            if method.server_streaming:
                kind, behaviour = grpc.unary_stream_rpc_method_handler, self._streamed(method.name)
            if not method.client_streaming:
                methods[method.name] = kind(behaviour, request.FromString, response.SerializeToString)
        return grpc.method_handlers_generic_handler(service.full_name, methods)

    def _next(self, name: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append((name, request))
        self.metadata = dict(context.invocation_metadata())
        self.remaining = context.time_remaining()
        answers = self.answers[name]
        return (answers.pop(0) if len(answers) > 1 else answers[0])(request, context)

    def _answered(self, name: str) -> Answer:
        return lambda request, context: self._next(name, request, context)

    def _streamed(self, name: str) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
        def behaviour(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield from self._next(name, request, context)

        return behaviour


def gives(answer: Any) -> Answer:
    return lambda _request, _context: answer


def fails(code: grpc.StatusCode, *details: Any, message: str = "no") -> Answer:
    """Ends the call with a status and its details, as a service does."""

    def answer(_request: Any, context: grpc.ServicerContext) -> Any:
        status = status_pb2.Status(code=code.value[0], message=message)
        for detail in details:
            status.details.add().Pack(detail)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, message)

    return answer


def reason(name: str, **metadata: str) -> Any:
    return error_details_pb2.ErrorInfo(reason=name, domain="parley", metadata=metadata)
