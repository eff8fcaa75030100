"""Replicas of session_svc for the tests in this folder."""

from collections.abc import AsyncIterator

import pytest

from tests.service.session_svc.replica import Replica, replica


@pytest.fixture
async def svc(redis_url: str) -> AsyncIterator[Replica]:
    """One replica with default settings."""
    async with replica(redis_url) as made:
        yield made
