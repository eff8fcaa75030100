"""An agent is deleted, and something dies at one of its steps: no turn starts any more, and its sessions go."""

import asyncio

import httpx
import pytest

from tests.faults.history.cluster import Service
from tests.faults.lab import Lab, eventually, exchange
from tests.servers.stores import PostgresServer, RedisServer

SESSIONS = 12


async def delete(lab: Lab, agent: str, gateway: int = 0) -> int:
    """Ask for the deletion; 0 when the connection was lost."""
    try:
        async with lab.client(gateway) as client:
            return (await client.delete(f"/v1/agents/{agent}")).status_code
    except httpx.TransportError:
        return 0


async def populate(lab: Lab, agent: str) -> list[str]:
    sessions = [f"{agent}-s{number}" for number in range(SESSIONS)]
    answers = await asyncio.gather(*(lab.chat(agent, "hi", session, gateway=1) for session in sessions))
    assert {answer.status_code for answer in answers} == {200}
    return sessions


BEFORE_THE_DELETION = "the config is being deleted"
STEPS = {
    BEFORE_THE_DELETION: ("gateway0>config",),
    "the config is deleted": ("gateway0>session0", "gateway0>session1"),
    "sessions are being removed": ("session0>redis", "session1>redis"),
}


SERVICES = [(step, victim) for step in STEPS for victim in ("gateway0", "session0", "config")]
STORES = [(BEFORE_THE_DELETION, "postgres"), ("sessions are being removed", "redis")]
"""Each at the steps that use it."""


@pytest.mark.parametrize(("step", "victim"), [*SERVICES, *STORES])
async def test_a_deletion_survives_a_kill(lab: Lab, step: str, victim: str) -> None:
    agent = lab.new_agent()
    sessions = await populate(lab, agent)
    links = [lab.cluster.links[name] for name in STEPS[step]]
    for link in links:
        link.blackhole()
    asked = asyncio.create_task(delete(lab, agent))
    if step != BEFORE_THE_DELETION:
        await eventually(lambda: config_is_gone(lab, agent))
    killed = _victim(lab, victim)
    await asyncio.to_thread(killed.kill)
    for link in links:
        link.heal()
    await asked
    await asyncio.to_thread(lab.cluster.start_redis if victim == "redis" else killed.start)
    if step == BEFORE_THE_DELETION:
        # It may not have been: the caller, who was not told that it was, asks again.
        await eventually(lambda: deleted(lab, agent))

    async def refused() -> bool:
        answer = await lab.chat(agent, "again", sessions[0], gateway=1)
        return answer.status_code == 404 and answer.json()["error"]["code"] == "agent_not_found"

    async def gone() -> bool:
        found = [(await lab.get(f"/v1/sessions/{session}", gateway=1)).status_code for session in sessions]
        listed = await lab.get("/v1/sessions", gateway=1, agent_id=agent)
        return set(found) == {404} and listed.status_code == 200 and not listed.json()["data"]

    await eventually(refused)
    await eventually(gone)
    lab.create(agent)
    lab.model.reset()
    await eventually(lambda: answers(lab, agent, sessions[0]))
    assert await lab.stored(sessions[0]) == exchange(2, "born again")
    assert {len(prompt) for prompt in lab.model.prompts} == {2}, "a new agent must not see the sessions of the old one"


def _victim(lab: Lab, name: str) -> Service | PostgresServer | RedisServer:
    if name == "redis":
        return lab.cluster.redis
    return lab.cluster.postgres if name == "postgres" else lab.cluster.services[name]


async def config_is_gone(lab: Lab, agent: str) -> bool:
    return (await lab.get(f"/v1/agents/{agent}", gateway=1)).status_code == 404


async def deleted(lab: Lab, agent: str) -> bool:
    return await delete(lab, agent, gateway=1) in (204, 404)


async def answers(lab: Lab, agent: str, session: str) -> bool:
    return (await lab.chat(agent, "born again", session)).status_code == 200


async def test_no_turn_starts_once_a_deletion_has_returned(lab: Lab) -> None:
    """While many turns begin on all sides, also at a gateway that does not hear of the deletion."""
    agent = lab.new_agent()
    sessions = await populate(lab, agent)
    lab.cluster.links["gateway1>config"].blackhole()
    stop = asyncio.Event()
    began_after: list[str] = []
    returned = asyncio.Event()

    async def chatter(session: str) -> None:
        while not stop.is_set():
            late = returned.is_set()
            answer = await lab.chat(agent, "more", session, gateway=1)
            if late and answer.status_code == 200:
                began_after.append(session)

    chatters = [asyncio.create_task(chatter(session)) for session in sessions[:4]]
    await asyncio.sleep(0.3)
    assert await delete(lab, agent) == 204
    returned.set()
    await asyncio.sleep(1.0)
    stop.set()
    await asyncio.gather(*chatters)
    assert began_after == []
    assert (await lab.get("/v1/sessions", agent_id=agent)).json()["data"] == []
