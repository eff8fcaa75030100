"""The figures of one gateway and of all."""

from chat_gateway.clients.peer_replicas import PeerReplicas
from chat_gateway.clients.replicas import Replicas
from tests.servers.ports import free_port
from tests.service.chat_gateway.http_edge.edge import Edge, running_edge


async def test_a_gateway_alone_is_the_only_replica(edge: Edge) -> None:
    edge.readiness.parts["config_svc"] = "unreachable for 3 s"
    own = (await edge.client.get("/v1/figures")).json()
    assert (own["ready"], own["parts"]["config_svc"], own["samples"]) == (False, "unreachable for 3 s", [])
    [replica] = (await edge.client.get("/v1/replicas")).json()["data"]
    assert (replica["problem"], replica["figures"]["replica"]) == (None, own["replica"])


async def test_all_gateways_are_asked_and_one_that_does_not_answer_is_named() -> None:
    async with running_edge() as other:
        alive, dead = f"http://127.0.0.1:{other.port}", f"http://127.0.0.1:{free_port()}"
        async with running_edge(replicas=Replicas([alive, dead])) as edge:
            found = {one["address"]: one for one in (await edge.client.get("/v1/replicas")).json()["data"]}
    assert set(found) == {alive, dead}
    assert found[alive]["figures"]["ready"]
    assert (found[dead]["problem"], found[dead]["figures"]) == ("does not answer", None)


async def test_replicas_of_the_services_behind_are_listed_too() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with running_edge(replicas=Replicas(peers=PeerReplicas({"config_svc": address}))) as edge:
        services = (await edge.client.get("/v1/replicas")).json()["services"]
    assert services == [{"service": "config_svc", "address": address, "state": "unreachable", "latency_ms": None}]
