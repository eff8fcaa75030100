"""What has outlived its retention goes: on both stores."""

import uuid
from dataclasses import replace
from datetime import timedelta

import pytest

from config_svc.agents.configs import AgentConfigs
from config_svc.model.errors import AgentNotFound, IdempotencyKeyReused
from config_svc.ports.store import Store
from config_svc.sweep import Sweep, purge
from tests.contract.config_svc.conftest import RETENTION, Clock, spec

P = "default"


async def test_a_sweep_removes_what_is_due_and_nothing_else(
    agents: AgentConfigs, store: Store, clock: Clock, sweep: Sweep
) -> None:
    gone = await agents.create(P, "gone", spec())
    await agents.delete(P, "gone")
    clock.advance(days=20)
    key = str(uuid.uuid4())
    kept = await agents.create(P, "kept", spec(), request_id=key)
    await agents.delete(P, "kept")
    await sweep.once()
    assert [one.agent_config.id for one in await store.changes(0, 10)] == ["kept", "kept"]
    with pytest.raises(IdempotencyKeyReused):
        await agents.create(P, "other", spec(), request_id=key)
    clock.now += RETENTION - timedelta(days=20)
    await sweep.once()
    with pytest.raises(AgentNotFound):
        await agents.undelete(P, gone.uid)
    assert (await agents.undelete(P, kept.uid)).revision == 1
    assert (await agents.create(P, "other", spec(), request_id=key)).id == "other"
    assert [one.agent_config.id for one in await store.changes(0, 10)] == ["kept", "other"]


async def test_a_sweep_removes_in_small_steps(agents: AgentConfigs, store: Store, clock: Clock, sweep: Sweep) -> None:
    sweep = replace(sweep, batch=2)
    for number in range(5):
        await agents.create(P, f"a{number}", spec())
        await agents.delete(P, f"a{number}")
    clock.advance(days=31)
    await sweep.once()
    assert await purge(store, clock(), 10) == 0
    assert await store.changes(0, 100) == []
