"""A commit whose reply is lost, late or refused: the turn is there once, and its caller knows."""

import asyncio
import time

import pytest

from tests.faults.lab import SLACK_SECONDS, TURN_SECONDS, Lab, eventually, exchange, recovers, takes_a_turn
from tests.servers.mock_model import Behaviour


@pytest.mark.parametrize("linger", [0.1, 1.5], ids=["at once", "after renewals"])
async def test_a_reply_to_a_commit_that_is_lost_between_gateway_and_session_svc(lab: Lab, linger: float) -> None:
    """While the gateway waits it goes on renewing: that the lease is gone must not count as a turn that is lost."""
    agent, session = lab.new_agent(), f"lost-reply-{linger}"
    links = [lab.cluster.links[f"gateway0>session{n}"] for n in (0, 1)]
    lost = [link.lost_replies for link in links]
    for link in links:
        link.lose_reply(b"keep me", linger)
    answer = await lab.chat(agent, "keep me", session)
    assert sum(link.lost_replies for link in links) > sum(lost), "no reply was lost: this proves nothing"
    assert answer.status_code == 200, answer.text
    assert await lab.stored(session) == exchange(2, "keep me")
    assert len(lab.model.requests) == 1
    await takes_a_turn(lab, agent, session, gateway=1)


async def test_a_reply_to_a_commit_that_is_lost_between_session_svc_and_redis(lab: Lab) -> None:
    agent, session = lab.new_agent(), "lost-redis-reply"
    links = [lab.cluster.links[f"session{n}>redis"] for n in (0, 1)]
    for link in links:
        link.lose_reply(b"keep me", 0.1)
    answer = await lab.chat(agent, "keep me", session)
    assert sum(link.lost_replies for link in links), "no reply was lost: this proves nothing"
    assert answer.status_code == 200, answer.text
    assert await lab.stored(session) == exchange(2, "keep me")
    assert len(lab.model.requests) == 1


@pytest.mark.parametrize("kind", ["blackhole", "refuse"])
async def test_redis_away_for_a_moment_in_mid_turn_costs_a_pause(lab: Lab, kind: str) -> None:
    agent, session = lab.new_agent(), f"redis-{kind}"
    lab.model.script(Behaviour(hold=True))
    asked = asyncio.create_task(lab.chat(agent, "one", session))
    await lab.model.received(1)
    links = [lab.cluster.links[f"session{n}>redis"] for n in (0, 1)]
    for link in links:
        getattr(link, kind)()
    lab.model.release()
    await asyncio.sleep(0.7)
    for link in links:
        link.heal()
    answer = await asked
    assert answer.status_code == 200, answer.text
    assert await lab.stored(session) == exchange(2, "one")


async def test_redis_away_for_long_in_mid_turn_is_an_error_in_bounded_time(lab: Lab) -> None:
    agent, session = lab.new_agent(), "redis-away"
    lab.model.script(Behaviour(hold=True))
    asked = asyncio.create_task(lab.chat(agent, "one", session))
    await lab.model.received(1)
    links = [lab.cluster.links[f"session{n}>redis"] for n in (0, 1)]
    for link in links:
        link.blackhole()
    lab.model.release()
    began = time.monotonic()
    answer = await asked
    assert time.monotonic() - began < TURN_SECONDS + SLACK_SECONDS
    assert (answer.status_code, answer.json()["error"]["code"]) in [
        (503, "peer_unavailable"),
        (504, "deadline_exceeded"),
        (409, "lease_lost"),
    ]
    for link in links:
        link.heal()
    await recovers(lab, agent, session, text="two")
    # What was held back may have arrived since: the turn is there whole, or not at all.
    assert await lab.stored(session) in (exchange(2, "two"), [*exchange(2, "one"), *exchange(4, "two")])


async def test_a_key_that_is_repeated_after_a_crash_runs_the_turn_once(lab: Lab) -> None:
    agent, session = lab.new_agent(), "key-crash"
    lab.model.script(Behaviour(hold=True))
    asked = asyncio.create_task(lab.chat(agent, "one", session, key="k"))
    await lab.model.received(1)
    lab.cluster.gateways[0].kill()
    (outcome,) = await asyncio.gather(asked, return_exceptions=True)
    assert isinstance(outcome, Exception)
    first = await lab.chat(agent, "one", session, gateway=1, key="k")
    again = await lab.chat(agent, "one", session, gateway=1, key="k")
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json()["choices"] == first.json()["choices"]
    assert await lab.stored(session, gateway=1) == exchange(2, "one")
    assert len(lab.model.requests) == 2, "the turn that crashed, and the one that was stored"


@pytest.mark.parametrize("key", ["", "with-key"])
async def test_a_commit_that_stays_unresolved_is_not_called_safe_to_repeat(lab: Lab, key: str) -> None:
    """The official clients repeat what `x-should-retry` allows: without a key that would store the turn twice."""
    agent, session = lab.new_agent(), f"unresolved{key}"
    links = [lab.cluster.links[f"gateway0>session{n}"] for n in (0, 1)]
    lost = sum(link.lost_replies for link in links)
    for link in links:
        link.lose_reply(b"keep me", 60)  # until they are refused
    asked = asyncio.create_task(lab.chat(agent, "keep me", session, key=key))

    async def stored() -> bool:
        return bool(await lab.stored(session, gateway=1))

    await eventually(stored)
    assert sum(link.lost_replies for link in links) > lost
    for link in links:
        link.refuse()
    answer = await asked
    assert answer.status_code in (503, 504), answer.text
    assert answer.headers["x-should-retry"] == ("true" if key else "false")
    for link in links:
        link.heal()
    assert await lab.stored(session, gateway=1) == exchange(2, "keep me"), "it was stored all the same"
    if key:

        async def replayed() -> bool:
            return (await lab.chat(agent, "keep me", session, key=key)).status_code == 200

        await eventually(replayed)
        assert await lab.stored(session) == exchange(2, "keep me")


async def test_a_session_svc_without_redis_does_not_fail_the_turns_of_another(lab: Lab) -> None:
    agent = lab.new_agent()
    lab.cluster.links["session0>redis"].refuse()
    await asyncio.sleep(3.0)
    answers = await asyncio.gather(*(lab.chat(agent, "hi", f"half-{n}", gateway=n % 2) for n in range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12
