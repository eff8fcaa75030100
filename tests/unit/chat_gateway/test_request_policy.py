"""What a request gets where it says nothing, by its key and its agent, and what it may not say."""

from typing import Any

import pytest

from access.caller import NO_REQUESTS, Caller, CallerRequests
from chat_gateway.model.agent_config import RequestPolicy
from chat_gateway.model.provider_errors import FieldNotOverridable
from chat_gateway.model.rules import RequestBounds
from chat_gateway.model.turn import Sampling, Tool, TurnRequest
from chat_gateway.preview import PromptPreview
from chat_gateway.request_policy import resolved, resolved_request
from contract.enums import HistoryPolicy
from servicekit.errors import InvalidArgument, MessageTooLarge
from tests.unit.chat_gateway.world import FakeConfigs, World, asks, make_config

STATELESS = RequestPolicy(store=False)


def caller(requests: CallerRequests = NO_REQUESTS) -> Caller:
    return Caller("key_1", "default", frozenset({"chat"}), requests=requests)


def seen(request: TurnRequest, policy: RequestPolicy, **of_key: Any) -> TurnRequest:
    return resolved(request, caller(CallerRequests(**of_key)), make_config(requests=policy))


@pytest.mark.parametrize(
    ("said", "of_key", "of_agent", "stateless"),
    [
        ({}, None, True, False),
        ({}, None, False, True),
        ({}, True, False, False),
        ({}, False, True, True),
        ({"store": True}, False, False, False),
        ({"session_id": "s"}, False, False, False),
        ({"session_id": "s", "session_must_exist": True}, None, False, False),
    ],
)
def test_the_request_comes_before_its_key_and_the_key_before_the_agent(
    said: dict[str, Any], of_key: bool | None, of_agent: bool, stateless: bool
) -> None:
    assert seen(asks(**said), RequestPolicy(store=of_agent), store=of_key).stateless is stateless
    assert seen(asks(store=False, stateless=True), RequestPolicy(store=of_agent), store=of_key).stateless


def test_so_it_is_with_the_history() -> None:
    append, replace, match = HistoryPolicy.APPEND, HistoryPolicy.REPLACE, HistoryPolicy.MATCH
    assert seen(asks(), RequestPolicy(history=append)).history is append
    assert seen(asks(), RequestPolicy(history=append), history=replace).history is replace
    assert seen(asks(history=match), RequestPolicy(history=append), history=replace).history is match
    kept = RequestPolicy(history=append, overridable=frozenset())
    assert seen(asks(), kept, history=replace).history is append


def test_where_nobody_says_anything_the_request_is_the_same_object() -> None:
    request = asks()
    assert resolved(request, caller(), make_config()) is request


ONLY_TEMPERATURE = RequestPolicy(overridable=frozenset({"temperature", "max_output_tokens"}))


def test_what_an_agent_keeps_to_itself_is_refused_by_name_all_at_once() -> None:
    request = asks(
        sampling=Sampling(temperature=1.0, top_p=0.5, max_output_tokens=3, stop=("x",), seed=1),
        tools=(Tool("f"),),
        tool_choice="f",
        response_format={"type": "json_object"},
        extra={"reasoning_effort": b'"high"', "top_k": b"3"},
        store=True,
        history=HistoryPolicy.REPLACE,
    )
    config = make_config(
        requests=ONLY_TEMPERATURE, sampling=Sampling(seed=1), extra={"top_k": b"3", "reasoning_effort": b'"low"'}
    )
    with pytest.raises(FieldNotOverridable) as refused:
        resolved(request, caller(), config)
    fields = [violation.field for violation in refused.value.violations]
    # What is set to the agent's own value is no override: seed, top_k, store.
    assert fields == ["history", "top_p", "stop", "tools", "tool_choice", "response_format", "reasoning_effort"]


def test_a_request_that_says_nothing_of_it_is_served() -> None:
    nothing = make_config(requests=RequestPolicy(overridable=frozenset()))
    assert resolved(asks(sampling=Sampling()), caller(), nothing).agent_id == "support"
    with pytest.raises(FieldNotOverridable):
        resolved(asks(sampling=Sampling(temperature=0.0)), caller(), nothing)


def test_the_bounds_of_a_session_are_kept_once_it_is_known_that_there_is_one() -> None:
    request, bounds = asks(messages=asks().messages * 3), RequestBounds(2)
    with pytest.raises(InvalidArgument):
        resolved_request(request, caller(), make_config(), bounds)
    with pytest.raises(MessageTooLarge):
        resolved_request(request, caller(), make_config(), RequestBounds(3, 5))
    assert resolved_request(request, caller(), make_config(requests=STATELESS), bounds).stateless


async def test_an_agent_loop_without_a_session_leaves_no_session_behind() -> None:
    world = World(configs=FakeConfigs(make_config(requests=STATELESS, extra={"reasoning_effort": b'"low"'})))
    messages = asks().messages
    for _ in range(10):
        outcome = await world.runner.run(asks(messages=messages))
        messages += (outcome.message, *asks().messages)
    assert outcome.session_id == ""
    assert not world.sessions.turns
    assert world.provider.calls[-1].extra == {"reasoning_effort": b'"low"'}
    outcome = await world.runner.run(asks(session_id="s", extra={"reasoning_effort": b'"high"', "x": b"1"}))
    assert outcome.session_id == "s"
    assert world.provider.calls[-1].extra == {"reasoning_effort": b'"high"', "x": b"1"}


async def test_an_older_revision_is_no_way_round_it() -> None:
    old, new = make_config(), make_config(revision=2, requests=RequestPolicy(overridable=frozenset()))
    configs = FakeConfigs(new)
    configs.revisions[old.uid, 1] = old
    world = World(configs=configs)
    with pytest.raises(FieldNotOverridable):
        await world.runner.run(asks(agent_revision=1, sampling=Sampling(temperature=1)))
    preview = PromptPreview(configs, world.sessions, world.instances)  # type: ignore[arg-type]
    with pytest.raises(FieldNotOverridable):
        await preview.show(asks(sampling=Sampling(temperature=1)))
