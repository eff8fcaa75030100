"""What the metrics endpoint answers."""

import asyncio

import grpc
import pytest

from parley.config.v1 import agent_config_service_pb2 as pb
from tests.servers.ports import free_port
from tests.servers.web import read
from tests.service.config_svc.conftest import agent, publish, running


async def test_metrics_and_readiness(database_url: str) -> None:
    port = free_port()
    async with running(database_url, metrics_port=port) as service:
        await service.templates.PublishTemplate(publish())
        watch = service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest())
        await watch.read()
        create = pb.CreateAgentConfigRequest(agent_config=agent())
        await service.agents.CreateAgentConfig(create)
        with pytest.raises(grpc.aio.AioRpcError):
            await service.agents.CreateAgentConfig(create)
        assert (await watch.read()).agent_config.id == "support"
        answer = await read(port, "/metrics")
        assert 'parley_config_agent_config_writes_total{operation="create",outcome="ok"} 1.0' in answer
        assert 'outcome="AGENT_ALREADY_EXISTS"} 1.0' in answer
        assert "parley_config_watch_streams 1.0" in answer
        assert "parley_config_feed_delay_seconds_count 1.0" in answer
        assert "parley_config_feed_up 1.0" in answer
        assert "parley_config_database_connections_in_use 0.0" in answer
        assert "process_resident_memory_bytes" in answer
        assert '"postgresql": "up"' in await read(port, "/readyz")
        watch.cancel()
        async with asyncio.timeout(60):
            while "parley_config_watch_streams 0.0" not in await read(port, "/metrics"):
                await asyncio.sleep(0.05)
