"""What others get wrong when two requests meet, a process dies, or a caller leaves in the middle of a turn."""

import asyncio
import json
import time

import httpx

from tests.faults.lab import LEASE_SECONDS, SLACK_SECONDS, Lab, eventually, exchange, takes_a_turn, turn
from tests.servers.mock_model import Behaviour


async def test_turns_of_one_session_at_once_run_one_after_the_other(lab: Lab) -> None:
    agent = lab.new_agent()
    answers = await asyncio.gather(*(lab.chat(agent, f"m{n}", "at-once", gateway=n % 2) for n in range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    stored = await lab.stored("at-once")
    questions = [text for role, text in stored if role == "user"]
    assert sorted(questions) == [f"m{n}" for n in range(8)]
    assert stored == [m for n, text in enumerate(questions) for m in exchange(2 * n + 2, text)]
    assert lab.model.max_running == 1


async def test_a_gateway_that_dies_in_mid_turn_blocks_its_session_for_one_lease_at_most(lab: Lab) -> None:
    agent = lab.new_agent()
    assert (await lab.chat(agent, "one", "crash")).status_code == 200
    lab.model.script(Behaviour(hold_after_chunks=2))
    try:
        async with lab.streaming(agent, "lost", "crash") as lines:
            async for line in lines:
                if "content" in line:
                    break
            lab.cluster.gateways[0].kill()
            async for _ in lines:
                pass
    except httpx.TransportError:
        pass
    busy = await lab.chat(agent, "two", "crash", gateway=1, busy="reject")
    assert (busy.status_code, busy.json()["error"]["code"]) == (409, "session_busy")
    await takes_a_turn(lab, agent, "crash", gateway=1, text="two")
    assert await lab.stored("crash", gateway=1) == [*exchange(2, "one"), *exchange(4, "two")]


async def test_a_session_svc_that_dies_in_mid_turn_costs_the_turn_nothing(lab: Lab) -> None:
    agent = lab.new_agent()
    lab.model.script(Behaviour(hold=True))
    asked = asyncio.create_task(lab.chat(agent, "one", "other-replica"))
    await lab.model.received(1)
    lab.cluster.sessions[0].kill()
    lab.model.release()
    answer = await asked
    assert answer.status_code == 200, answer.text
    assert await lab.stored("other-replica") == exchange(2, "one")


async def test_a_caller_that_leaves_cancels_the_model_call_and_frees_the_session(lab: Lab) -> None:
    agent = lab.new_agent()
    lab.model.script(Behaviour(hold_after_chunks=2))
    async with lab.streaming(agent, "left", "disconnect") as lines:
        async for line in lines:
            if '"content":"echo' in line:
                break
        assert lab.model.running == 1
    await eventually(lambda: lab.model.running == 0)
    assert lab.model.abandoned == 1

    async def free() -> bool:
        return (await lab.chat(agent, "next", "disconnect", busy="reject")).status_code == 200

    await eventually(free)
    assert await lab.stored("disconnect") == exchange(2, "next")


async def test_a_unary_caller_that_leaves_does_the_same(lab: Lab) -> None:
    agent = lab.new_agent()
    lab.model.script(Behaviour(hold=True))
    asked = asyncio.create_task(lab.chat(agent, "left", "unary-disconnect"))
    await lab.model.received(1)
    asked.cancel()
    await eventually(lambda: lab.model.abandoned == 1)
    await takes_a_turn(lab, agent, "unary-disconnect", gateway=1, text="next")
    assert await lab.stored("unary-disconnect") == exchange(2, "next")


async def test_a_gateway_paused_beyond_its_lease_is_refused_when_it_commits(lab: Lab) -> None:
    agent = lab.new_agent()
    lab.model.script(Behaviour(hold=True))
    paused = asyncio.create_task(lab.chat(agent, "paused", "fenced"))
    await lab.model.received(1)
    lab.cluster.gateways[0].pause()
    await takes_a_turn(lab, agent, "fenced", gateway=1, text="went on")
    lab.model.release()
    lab.cluster.gateways[0].resume()
    refused = await paused
    # Where the machine stood still, the turn's own time has passed as well.
    assert (refused.status_code, refused.json()["error"]["code"]) in [(409, "lease_lost"), (504, "deadline_exceeded")]
    if refused.status_code == 409:
        assert refused.headers["x-should-retry"] == "true"
    assert await lab.stored("fenced") == exchange(2, "went on")


async def test_a_gateway_paused_beyond_its_lease_is_refused_also_if_nobody_took_it(lab: Lab) -> None:
    agent = lab.new_agent()
    lab.model.script(Behaviour(hold_after_chunks=2))
    async with lab.streaming(agent, "paused", "fenced-alone") as lines:
        async for line in lines:
            if '"content":"echo' in line:
                break
        lab.cluster.gateways[0].pause()
        await asyncio.sleep(LEASE_SECONDS + 0.5)
        lab.model.release()
        lab.cluster.gateways[0].resume()
        rest = [line async for line in lines if line.startswith("data: ")]
    assert json.loads(rest[-1][6:])["error"]["code"] == "lease_lost"
    assert "[DONE]" not in "".join(rest)
    assert await lab.stored("fenced-alone") == []
    assert (await lab.get("/v1/sessions/fenced-alone")).status_code == 404, "a session without a turn is none"


async def test_a_tool_call_without_a_result_does_not_brick_the_session(lab: Lab) -> None:
    agent = lab.new_agent()
    lab.model.script(Behaviour(tool_calls=(("call-1", "look", "{}"), ("call-2", "look", "{}"))))
    tools = [{"type": "function", "function": {"name": "look"}}]
    asked = await lab.chat(agent, "look around", "orphan", tools=tools)
    assert asked.json()["choices"][0]["finish_reason"] == "tool_calls"
    # The caller comes back with one result of the two, then with none at all, as after a crash of its own.
    body = turn(agent, "", "orphan", tools=tools)
    body["messages"] = [{"role": "tool", "tool_call_id": "call-1", "content": "a door"}]
    async with lab.client(1) as client:
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    assert (await lab.chat(agent, "never mind", "orphan", gateway=1)).status_code == 200
    for prompt in lab.model.prompts[1:]:
        called = [call["id"] for message in prompt for call in message.get("tool_calls") or ()]
        answered = [message["tool_call_id"] for message in prompt if message["role"] == "tool"]
        assert sorted(called) == sorted(answered) == ["call-1", "call-2"]


async def test_a_list_never_shows_an_expired_session(lab: Lab) -> None:
    agent = lab.new_agent(session={"idle_ttl": "1s", "max_lifetime": "60s"})
    for number in range(6):
        assert (await lab.chat(agent, "hi", f"short-{number}")).status_code == 200
        await asyncio.sleep(0.15)
    deadline = time.monotonic() + 1 + SLACK_SECONDS
    while True:
        listed = (await lab.get("/v1/sessions", agent_id=agent)).json()["data"]
        for session in listed:
            found = await lab.get(f"/v1/sessions/{session['id']}")
            # It may have ended since it was listed, but not before.
            if found.status_code == 404:
                again = (await lab.get("/v1/sessions", agent_id=agent)).json()["data"]
                assert session["id"] not in [other["id"] for other in again]
        if not listed:
            break
        assert time.monotonic() < deadline, "an expired session stays in the list"
        await asyncio.sleep(0.05)


async def test_an_interrupted_turn_leaves_nothing_and_its_caller_is_told(lab: Lab) -> None:
    agent = lab.new_agent()
    lab.model.script(Behaviour(hold=True))
    first = asyncio.create_task(lab.chat(agent, "first", "interrupt"))
    await lab.model.received(1)
    second = await lab.chat(agent, "second", "interrupt", gateway=1, busy="interrupt")
    assert second.status_code == 200, second.text
    told = await first
    assert (told.status_code, told.json()["error"]["code"]) == (409, "turn_interrupted")
    assert told.headers["x-should-retry"] == "false"
    await eventually(lambda: lab.model.abandoned == 1)
    assert await lab.stored("interrupt") == exchange(2, "second")
