from collections.abc import AsyncIterator

import pytest

from tests.service.chat_gateway.http_edge.edge import Edge, running_edge


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge() as running:
        yield running
