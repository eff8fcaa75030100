"""config_svc itself, in this process, over a real PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from config_svc.settings import ConfigSettings
from config_svc.wiring import build
from parley.config.v1 import (
    access_service_pb2_grpc,
    agent_config_service_pb2_grpc,
    provider_service_pb2_grpc,
    template_service_pb2_grpc,
    tool_server_service_pb2_grpc,
)
from parley.config.v1 import agent_config_pb2 as agents_pb
from parley.config.v1 import template_service_pb2 as templates_pb
from servicekit.channels import open_channel
from tests.servers.databases import migrated_database
from tests.servers.stores import PostgresServer


class Running:
    """A running config_svc and the stubs to call it."""

    def __init__(self, port: int, channel: Any) -> None:
        self.port = port
        self.channel = channel
        self.agents: Any = agent_config_service_pb2_grpc.AgentConfigServiceStub(channel)
        self.templates: Any = template_service_pb2_grpc.TemplateServiceStub(channel)
        self.tool_servers: Any = tool_server_service_pb2_grpc.ToolServerServiceStub(channel)
        self.access: Any = access_service_pb2_grpc.AccessServiceStub(channel)
        self.providers: Any = provider_service_pb2_grpc.ProviderServiceStub(channel)


PATIENT: dict[str, Any] = {"drain_timeout": 2, "database_timeout": 15.0}
"""On a busy machine a statement may take seconds; tests of the bound set one of their own."""


@asynccontextmanager
async def running(database_url: str, **settings: Any) -> AsyncIterator[Running]:
    """Runs config_svc on a free port while open."""
    given = ConfigSettings(database_url=SecretStr(database_url), grpc_port=0, **{**PATIENT, **settings})
    async with build(given) as details:
        port = details["grpc_port"]
        async with open_channel(f"127.0.0.1:{port}") as channel:
            yield Running(int(str(port)), channel)


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    with migrated_database(postgres_server) as url:
        yield url


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Running]:
    async with running(database_url) as started:
        await started.templates.PublishTemplate(publish())
        yield started


def publish(
    version: str = "1.0.0", template_id: str = "assistant", **schema: Any
) -> templates_pb.PublishTemplateRequest:
    """A request that publishes a template whose parameters may be anything that `schema` allows."""
    request = templates_pb.PublishTemplateRequest()
    request.template.id = template_id
    request.template.version = version
    request.template.parameters_schema.update({"type": "object", **schema})
    return request


def agent(agent_id: str = "support", **fields: Any) -> agents_pb.AgentConfig:
    """An agent config with all that is required."""
    model = fields.pop("model", None) or agents_pb.ModelConfig(provider="local", name="small")
    return agents_pb.AgentConfig(id=agent_id, model=model, **fields)
