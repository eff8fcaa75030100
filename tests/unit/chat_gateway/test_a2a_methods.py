"""The methods that a gateway knows of A2A before it loads it."""

from a2a.types import a2a_pb2

from chat_gateway.grpc_edge.a2a.lazy import METHODS, SERVICE


def test_they_are_those_of_the_service() -> None:
    service = a2a_pb2.DESCRIPTOR.services_by_name["A2AService"]
    assert service.full_name == SERVICE
    assert set(METHODS) == {method.name for method in service.methods}
