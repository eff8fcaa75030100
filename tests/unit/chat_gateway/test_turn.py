"""The life of one turn, with everything that can go wrong in it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from chat_gateway.aborts import AbortTimes
from chat_gateway.leases import LeaseTimes
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.errors import CommitCutShort, CommitUnresolved, TurnTimeout
from chat_gateway.model.journal import UnwrittenEntries
from chat_gateway.model.not_found import AgentNotFound
from chat_gateway.model.provider_errors import ProviderUnavailable
from chat_gateway.model.stored_turn import Committed, Lease, Turn
from chat_gateway.model.turn import Delta, FinishReason, Message, TurnStarted, Usage
from contract.enums import Role
from servicekit.errors import Code, InvalidArgument, ServiceError, Unavailable
from tests.doubles.chat_gateway.sessions import FakeSessions, remote
from tests.unit.chat_gateway.world import FakeConfigs, FakeProvider, World, asks, make_config

QUICK = LeaseTimes(renew_after=0.01, renew_interval=0.02, retry_pause=0.01, commit_resolve=0.2)


async def ignore(_: object) -> None:
    """Takes an event and forgets it."""


async def test_a_turn_is_stored_whole_before_it_is_answered() -> None:
    world = World()
    outcome = await world.runner.run(asks("hi", session_id="s"))
    assert outcome.message.content == "hello"
    assert outcome.turn_number == 1
    (stored,) = world.sessions.turns["s"]
    assert [m.role for m in stored.messages] == [Role.USER, Role.ASSISTANT]
    assert (stored.usage, stored.finish_reason, stored.model) == (Usage(3, 2), FinishReason.STOP, "m-2026")
    assert world.sessions.aborted == []
    assert world.count("committed") == 1


async def test_the_second_prompt_holds_the_first_turn_after_the_instructions() -> None:
    world = World()
    await world.runner.run(asks("one", session_id="s"))
    await world.runner.run(asks("two", session_id="s"))
    assert [(m.role, m.content) for m in world.provider.calls[1].messages] == [
        (Role.SYSTEM, "You help."),
        (Role.USER, "one"),
        (Role.ASSISTANT, "hello"),
        (Role.USER, "two"),
    ]


async def test_events_come_in_order_and_the_answer_is_what_was_streamed() -> None:
    world = World(provider=FakeProvider("a", "b", "c"))
    seen: list[object] = []

    async def note(event: object) -> None:
        seen.append(event)

    outcome = await world.runner.run(asks(), note, note)
    assert isinstance(seen[0], TurnStarted)
    assert seen[1:] == [Delta("a"), Delta("b"), Delta("c")]
    assert outcome.message.content == "abc"
    assert seen[0].turn_id == outcome.turn_id


@pytest.mark.parametrize("error", [ProviderUnavailable("local", "can't be reached"), RuntimeError("a bug")])
async def test_a_failed_model_call_stores_nothing_and_releases_the_lease(error: Exception) -> None:
    async def fail() -> None:
        raise error

    world = World(provider=FakeProvider(before=fail))
    with pytest.raises(type(error)):
        await world.runner.run(asks(session_id="s"))
    await world.aborts.close(60)
    assert world.sessions.turns == {}
    assert len(world.sessions.aborted) == 1


async def test_cancelling_the_task_cancels_the_model_call_and_releases_the_lease() -> None:
    async def forever() -> None:
        await asyncio.sleep(60)

    world = World(provider=FakeProvider(before=forever))
    task = asyncio.create_task(world.runner.run(asks(session_id="s"), ignore, ignore))
    while not world.provider.calls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.aborts.close(60)
    assert world.provider.cancelled == 1
    assert len(world.sessions.aborted) == 1
    assert world.scheduler.load.running == 0
    assert world.scheduler.load.queued == 0
    assert world.count("cancelled") == 1


async def test_an_abort_is_asked_again_until_session_svc_answers() -> None:
    async def fail() -> None:
        raise ProviderUnavailable("local", "can't be reached")

    world = World(provider=FakeProvider(before=fail), times=QUICK)
    world.sessions.abort_errors = [Unavailable("session_svc"), Unavailable("session_svc")]
    with pytest.raises(ProviderUnavailable):
        await world.runner.run(asks())
    await world.aborts.close(60)
    assert len(world.sessions.aborted) == 1


async def test_the_lease_is_renewed_while_the_model_works() -> None:
    async def until_renewed() -> None:
        while world.sessions.renewed < 3:
            await asyncio.sleep(0.01)

    world = World(provider=FakeProvider(before=until_renewed), times=QUICK, turn_timeout=30.0)
    await world.runner.run(asks())
    renewed = world.sessions.renewed
    await asyncio.sleep(0.06)
    assert world.sessions.renewed == renewed


@pytest.mark.parametrize("reason", ["LEASE_LOST", "TURN_INTERRUPTED"])
async def test_a_lost_lease_stops_the_model_call_and_names_the_reason(reason: str) -> None:
    async def forever() -> None:
        await asyncio.sleep(60)

    world = World(provider=FakeProvider(before=forever), times=QUICK)
    world.sessions.renew_errors = [remote(reason, Code.ABORTED)]
    with pytest.raises(ServiceError) as caught:
        await world.runner.run(asks(session_id="s"))
    assert caught.value.reason == reason
    assert world.provider.cancelled == 1
    assert world.sessions.turns == {}


async def test_a_renewal_that_fails_while_session_svc_is_unreachable_does_not_end_the_turn() -> None:
    async def until_renewed() -> None:
        while world.sessions.renewed < 3:
            await asyncio.sleep(0.01)

    world = World(provider=FakeProvider(before=until_renewed), times=QUICK, turn_timeout=30.0)
    world.sessions.renew_errors = [Unavailable("session_svc"), Unavailable("session_svc")]
    outcome = await world.runner.run(asks())
    assert outcome.turn_number == 1


async def test_a_commit_with_an_unknown_outcome_is_asked_again_with_the_same_turn() -> None:
    world = World(times=replace(QUICK, commit_resolve=60))
    world.sessions.commit_errors = [Unavailable("session_svc"), Unavailable("session_svc")]
    outcome = await world.runner.run(asks(session_id="s"))
    assert world.sessions.commits == 3
    assert [turn.id for turn in world.sessions.turns["s"]] == [outcome.turn_id]


@pytest.mark.parametrize(("request_id", "error"), [("", CommitUnresolved), ("r-1", Unavailable)])
async def test_a_commit_that_stays_unknown_is_reported_after_its_bound(
    request_id: str, error: type[ServiceError]
) -> None:
    world = World(times=QUICK)
    world.sessions.commit_errors = [Unavailable("session_svc")] * 1000
    with pytest.raises(error):
        await world.runner.run(asks(request_id=request_id))


async def test_a_refused_commit_is_not_asked_again() -> None:
    world = World(times=QUICK)
    world.sessions.commit_errors = [remote("LEASE_LOST", Code.ABORTED)]
    with pytest.raises(ServiceError) as caught:
        await world.runner.run(asks())
    assert caught.value.reason == "LEASE_LOST"
    assert world.sessions.commits == 1


@pytest.mark.parametrize(("timeout", "bound"), [(0.8, "deadline"), (None, "turn")])
async def test_a_turn_ends_at_its_bound_and_names_it(timeout: float | None, bound: str) -> None:
    async def forever() -> None:
        await asyncio.sleep(60)

    world = World(provider=FakeProvider(before=forever), turn_timeout=1.0)
    with pytest.raises(TurnTimeout) as caught:
        await world.runner.run(asks(timeout=timeout))
    assert caught.value.metadata == {"bound": bound}
    await world.aborts.close(60)
    assert len(world.sessions.aborted) == 1


async def test_a_session_that_is_pinned_runs_on_its_revision() -> None:
    configs = FakeConfigs(make_config(revision=1, instructions="Old."), make_config(revision=2, instructions="New."))
    world = World(configs=configs)
    world.sessions.pinned_revision = 1
    outcome = await world.runner.run(asks(session_id="s"))
    assert outcome.agent_revision == 1
    assert world.provider.calls[0].messages[0].content == "Old."


async def test_a_request_can_ask_for_a_revision_and_is_told_when_there_is_none() -> None:
    configs = FakeConfigs(make_config(revision=1), make_config(revision=2))
    world = World(configs=configs)
    assert (await world.runner.run(asks(agent_revision=1))).agent_revision == 1
    with pytest.raises(ServiceError) as caught:
        await world.runner.run(asks(agent_revision=9))
    assert caught.value.reason == "REVISION_NOT_FOUND"


async def test_a_repeated_request_gets_the_stored_turn_and_no_model_call() -> None:
    world = World()
    world.sessions.replay = Turn(
        id="first",
        messages=(Message(Role.USER, "hi"), Message(Role.ASSISTANT, "stored")),
        agent_revision=7,
        usage=Usage(1, 1),
        finish_reason=FinishReason.LENGTH,
        begin_time=datetime(2026, 1, 1, tzinfo=UTC),
        model="m",
        number=4,
    )
    seen: list[object] = []

    async def note(event: object) -> None:
        seen.append(event)

    outcome = await world.runner.run(asks(request_id="r", session_id="s"), note, note)
    assert outcome.replayed
    assert (outcome.turn_id, outcome.turn_number, outcome.agent_revision) == ("first", 4, 7)
    assert outcome.finish_reason is FinishReason.LENGTH
    assert seen[1:] == [Delta("stored")]
    assert world.provider.calls == []
    assert world.sessions.commits == 0


async def test_an_agent_that_was_made_again_is_read_again() -> None:
    world = World()
    world.sessions.begin_errors = [remote("AGENT_DELETED", Code.FAILED_PRECONDITION)]
    forget = world.configs.forget

    def replaced(project: str, agent_id: str, uid: str) -> None:
        forget(project, agent_id, uid)
        world.configs.known[project, agent_id] = make_config(uid="uid-2")

    world.configs.forget = replaced  # type: ignore[method-assign]
    await world.runner.run(asks())
    assert world.sessions.begun_uids == ["uid-1", "uid-2"]


async def test_a_deleted_agent_is_not_found() -> None:
    world = World()
    world.sessions.begin_errors = [remote("AGENT_DELETED", Code.FAILED_PRECONDITION)]
    with pytest.raises(AgentNotFound):
        await world.runner.run(asks())


async def test_a_stateless_turn_touches_no_session() -> None:
    world = World()
    outcome = await world.runner.run(asks(stateless=True))
    assert (outcome.session_id, outcome.session_expire_time) == ("", None)
    assert world.sessions.begun_uids == []
    assert world.count("stateless") == 1


async def test_a_placeholder_that_nothing_fills_fails_before_the_turn_has_started() -> None:
    world = World(configs=FakeConfigs(make_config(instructions="For {{company}}.")))
    started: list[TurnStarted] = []

    async def note(event: TurnStarted) -> None:
        started.append(event)

    with pytest.raises(ServiceError) as caught:
        await world.runner.run(asks(), note, ignore)
    assert caught.value.reason == "PLACEHOLDER_MISSING"
    assert started == []


async def test_bad_input_costs_nothing() -> None:
    world = World()
    with pytest.raises(InvalidArgument):
        await world.runner.run(asks(session_id="no spaces"))
    assert world.sessions.begun_uids == []
    assert world.count("invalid_field") == 0


@pytest.mark.parametrize("session_id", ["s", ""])
async def test_a_begin_whose_answer_never_came_is_released(session_id: str) -> None:
    world = World(times=QUICK)
    world.sessions.begin_errors = [Unavailable("session_svc")]
    with pytest.raises(Unavailable):
        await world.runner.run(asks(session_id=session_id))
    await world.aborts.close(60)
    assert len(world.sessions.aborted) == (1 if session_id else 0)


async def test_a_begin_that_is_refused_leaves_nothing_to_release() -> None:
    world = World(times=QUICK)
    world.sessions.begin_errors = [remote("SESSION_BUSY", Code.ABORTED)]
    with pytest.raises(ServiceError):
        await world.runner.run(asks(session_id="s"))
    await world.aborts.close(60)
    assert world.sessions.aborted == []


class SlowCommits(FakeSessions):
    """Commits that are stored at once and answered late."""

    async def commit(
        self,
        lease: Lease,
        turn: Turn,
        config: AgentConfig,
        request_id: str,
        digest: bytes,
        rest: UnwrittenEntries | None = None,
    ) -> Committed:
        committed = await super().commit(lease, turn, config, request_id, digest, rest)
        await asyncio.sleep(1.1)
        return committed


async def test_the_bound_of_a_turn_does_not_cut_its_commit_short() -> None:
    world = World(turn_timeout=1.0, sessions=SlowCommits())
    outcome = await world.runner.run(asks(session_id="s"))
    assert outcome.turn_number == 1


@pytest.mark.parametrize(("request_id", "error"), [("", CommitCutShort), ("r", asyncio.CancelledError)])
async def test_a_commit_that_is_cut_short_says_whether_a_repeat_is_safe(
    request_id: str, error: type[BaseException]
) -> None:
    world = World(sessions=SlowCommits())
    task = asyncio.create_task(world.runner.run(asks(session_id="s", request_id=request_id)))
    while not world.sessions.commits:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert type(caught.value) is error


async def test_aborts_are_bounded_while_session_svc_is_unreachable() -> None:
    world = World(times=QUICK, abort_times=AbortTimes(retry_pause=60.0, resolve=600.0, max_aborts=3))
    world.sessions.abort_errors = [Unavailable("session_svc")] * 1000
    world.sessions.begin_errors = [Unavailable("session_svc")] * 10
    for _ in range(10):
        with pytest.raises(Unavailable):
            await world.runner.run(asks(session_id="s"))
    await asyncio.sleep(0.05)
    assert len(world.sessions.abort_errors) >= 1000 - 3 * 4
    await world.aborts.close(0)


async def test_a_failed_turn_has_released_its_lease_by_the_time_its_caller_hears_of_it() -> None:
    async def fail() -> None:
        raise ProviderUnavailable("local", "can't be reached")

    world = World(provider=FakeProvider(before=fail))
    with pytest.raises(ProviderUnavailable):
        await world.runner.run(asks(session_id="s"))
    assert len(world.sessions.aborted) == 1


async def test_an_abort_that_takes_long_does_not_hold_up_its_caller() -> None:
    async def fail() -> None:
        raise ProviderUnavailable("local", "can't be reached")

    world = World(provider=FakeProvider(before=fail), times=replace(QUICK, abort_wait=0.02))
    world.sessions.abort_errors = [Unavailable("session_svc")] * 1000
    with pytest.raises(ProviderUnavailable):
        await asyncio.wait_for(world.runner.run(asks(session_id="s")), 60)
    await world.aborts.close(0)
