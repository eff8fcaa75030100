"""Clients that send their whole transcript again, with a session: only what is new of it is stored and sent."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.answers import joined
from chat_gateway.model.comparison import compare
from chat_gateway.model.errors import HistoryMismatch, SessionFull
from chat_gateway.model.history import EMPTY, end_of_history, grown
from chat_gateway.model.stored_turn import Turn
from chat_gateway.model.turn import FinishReason, ImagePart, Message, TextPart, ToolCall, TurnRequest
from chat_gateway.model.usage import Usage
from chat_gateway.ports import StoredWindow
from chat_gateway.preview import PromptPreview
from contract.enums import HistoryPolicy, Role
from servicekit.errors import InvalidArgument
from tests.unit.chat_gateway.world import World, asks

MAX_CPU_SECONDS = 20
"""In quadratic time it would be minutes."""
ANSWER = Message(Role.ASSISTANT, "hello")


def user(text: str) -> Message:
    return Message(Role.USER, text)


def system(text: str) -> Message:
    return Message(Role.SYSTEM, text)


def sends(*messages: Message, history: HistoryPolicy = HistoryPolicy.MATCH) -> TurnRequest:
    return asks(messages=messages, session_id="s", history=history)


def stored(world: World) -> list[str]:
    return [m.content for turn in world.sessions.turns["s"] for m in turn.messages]


def sent(world: World) -> list[str]:
    return [m.content for m in world.provider.calls[-1].messages][1:]


async def talk(world: World, *requests: object) -> None:
    for request in requests:
        await world.runner.run(request)  # type: ignore[arg-type]


async def test_of_a_transcript_only_what_is_new_is_stored_and_sent_and_no_history_is_read() -> None:
    world = World()
    one, two, three = user("one"), user("two"), user("three")
    await talk(world, sends(one), sends(one, ANSWER, two), sends(one, ANSWER, two, ANSWER, three))
    assert stored(world) == ["one", "hello", "two", "hello", "three", "hello"]
    assert sent(world) == ["one", "hello", "two", "hello", "three"]
    assert world.sessions.histories == 0


@pytest.mark.parametrize("calls", [False, True])
def test_answers_in_a_row_are_compared_in_linear_time(calls: bool) -> None:
    answers = [
        Message(Role.ASSISTANT, "" if calls else "x", tool_calls=(ToolCall(f"c{number}", "f", "{}"),) if calls else ())
        for number in range(20_000)
    ]
    transcript = [user("one"), *answers, user("two")]
    turn = Turn("t", (user("one"), joined(answers)), 1, Usage(), FinishReason.STOP, datetime.now(UTC), "m", number=1)
    begun = time.process_time()
    assert end_of_history(transcript, grown(EMPTY, transcript)) == len(transcript)
    assert compare(transcript, [turn])[0].last_turn == int(calls)
    assert time.process_time() - begun < MAX_CPU_SECONDS


async def test_new_messages_alone_and_transcripts_may_come_in_turns() -> None:
    world = World()
    one, two = user("one"), user("two")
    await talk(world, sends(one), sends(two), sends(one, ANSWER, two, ANSWER, user("three")), sends(user("four")))
    assert stored(world)[::2] == ["one", "two", "three", "four"]


async def test_what_contradicts_is_refused_and_the_first_message_that_differs_is_named() -> None:
    world = World()
    await talk(world, sends(user("one")), sends(user("two")))
    for messages, first in [
        ((user("one"), Message(Role.ASSISTANT, "other"), user("x")), 1),
        ((user("uno"), ANSWER, user("x")), 0),
        ((user("one"), ANSWER, user("dos"), ANSWER, user("x")), 2),
        ((user("one"), ANSWER, user("two")), 3),
    ]:
        with pytest.raises(HistoryMismatch) as refused:
            await talk(world, sends(*messages))
        assert refused.value.metadata["first_difference"] == str(first)
        assert refused.value.violations[0].field == f"messages[{first}]"
    assert len(world.provider.calls) == 2
    assert stored(world) == ["one", "hello", "two", "hello"]


async def test_replace_cuts_the_session_back_to_what_both_agree_on() -> None:
    world = World()
    await talk(world, sends(user("one")), sends(user("two")), sends(user("three")))
    await talk(world, sends(user("one"), ANSWER, user("edited"), history=HistoryPolicy.REPLACE))
    assert stored(world) == ["one", "hello", "edited", "hello"]
    assert sent(world) == ["one", "hello", "edited"]
    await talk(world, sends(user("one"), ANSWER, user("edited"), history=HistoryPolicy.REPLACE))  # regenerate
    assert stored(world) == ["one", "hello", "edited", "hello"]
    await talk(world, sends(user("one"), ANSWER, user("edited"), ANSWER, user("on")))
    assert stored(world)[-2:] == ["on", "hello"]
    await talk(world, sends(user("all new"), ANSWER, user("x"), history=HistoryPolicy.REPLACE))
    assert stored(world) == ["all new", "hello", "x", "hello"]


async def test_a_full_session_can_be_cut_and_nothing_else() -> None:
    world = World()
    await talk(world, sends(user("one")), sends(user("two")))
    world.sessions.max_turns = 2
    with pytest.raises(SessionFull):
        whole = (user("one"), ANSWER, user("two"), ANSWER, user("three"))
        await talk(world, sends(*whole, history=HistoryPolicy.REPLACE))
    assert len(world.provider.calls) == 2
    await talk(world, sends(user("one"), ANSWER, user("edited"), history=HistoryPolicy.REPLACE))
    assert stored(world) == ["one", "hello", "edited", "hello"]


async def test_append_stores_whatever_comes() -> None:
    world = World()
    example = (user("q"), Message(Role.ASSISTANT, "a"), user("one"))
    await talk(world, sends(*example), sends(*example, history=HistoryPolicy.APPEND))
    assert stored(world) == ["q", "a", "one", "hello"] * 2


async def test_the_callers_own_instructions_are_those_of_now() -> None:
    world = World()
    await talk(world, sends(system("be brief"), user("one")))
    await talk(world, sends(system("be long"), user("one"), ANSWER, user("two")))
    assert sent(world) == ["be long", "one", "hello", "two"]
    assert stored(world) == ["be brief", "one", "hello", "two", "hello"]


async def test_a_session_of_the_previous_release_is_compared_by_what_is_stored() -> None:
    world = World()
    await talk(world, sends(user("one")))
    world.sessions.turns["s"] = [replace(turn, history_digest=b"") for turn in world.sessions.turns["s"]]
    await talk(world, sends(user("two")), sends(user("one"), ANSWER, user("two"), ANSWER, user("three")))
    assert stored(world)[::2] == ["one", "two", "three"]
    assert world.sessions.histories == 1
    await talk(world, sends(*[user("one"), ANSWER, user("two"), ANSWER, user("three"), ANSWER, user("four")]))
    assert world.sessions.histories == 1


def calling(arguments: str, call_id: str = "c") -> Message:
    return Message(Role.ASSISTANT, tool_calls=(ToolCall(call_id, "f", arguments),))


@pytest.mark.parametrize(
    ("said", "resent"),
    [
        (user("a b"), Message(Role.USER, parts=(TextPart("a "), TextPart("b")))),
        (user("a"), user("a\n")),
        (user("caf\u00e9"), user("cafe\u0301")),
        (user("a\r\nb"), user("a\nb")),
        (calling('{"b": 1.0, "a": [1, 2]}'), calling('{"a":[1,2],"b":1}', "other")),
        (calling(""), calling("{}")),
        (calling("no json"), calling(" no json")),
        (Message(Role.ASSISTANT, "x", reasoning="hm"), Message(Role.ASSISTANT, "x")),
        (Message(Role.ASSISTANT, "x", reasoning="hm"), Message(Role.ASSISTANT, "<think>\nhm\n</think>\n\nx")),
        (Message(Role.ASSISTANT, "<think>hm</think>x"), Message(Role.ASSISTANT, "x")),
        (Message(Role.ASSISTANT, refusal="no"), Message(Role.ASSISTANT)),
    ],
)
def test_clients_write_the_same_message_in_many_ways(said: Message, resent: Message) -> None:
    digest = grown(EMPTY, [system("s"), user("first"), said])
    assert end_of_history([user("first"), resent, user("next")], digest) == 2


@pytest.mark.parametrize(
    ("said", "resent"),
    [
        (user("a"), user("b")),
        (user("a"), system("a")),
        (user("a"), user("<think>hm</think>a")),
        (calling('{"a": 1}'), calling('{"a": 2}')),
        (user("a"), Message(Role.USER, parts=(TextPart("a"), ImagePart("https://x")))),
        (Message(Role.TOOL, "1", tool_call_id="c"), Message(Role.TOOL, "2", tool_call_id="c")),
    ],
)
def test_what_says_something_else_is_another_message(said: Message, resent: Message) -> None:
    digest = grown(EMPTY, [user("first"), said])
    assert end_of_history([user("first"), resent, user("next")], digest) is None


def refused(world: World) -> None:
    """Has the model have refused in the last turn."""
    turns = world.sessions.turns["s"]
    asked = turns[-1].messages[0]
    refusal = Message(Role.ASSISTANT, refusal="no")
    before = turns[-2].history_digest if len(turns) > 1 else EMPTY
    turns[-1] = replace(turns[-1], messages=(asked, refusal), history_digest=grown(before, [asked, refusal]))


async def test_a_refusal_may_come_back_as_text_as_a_refusal_or_not_at_all() -> None:
    for resent in (Message(Role.ASSISTANT, "no"), Message(Role.ASSISTANT, refusal="no"), Message(Role.ASSISTANT)):
        world = World()
        await talk(world, sends(user("one")))
        refused(world)
        said = [user("one"), resent, user("two")]
        await talk(world, sends(*said), sends(*said, ANSWER, user("three")))
        assert stored(world) == ["one", "", "two", "hello", "three", "hello"]
        assert sent(world) == ["one", "no", "two", "hello", "three"]
        with pytest.raises(HistoryMismatch) as caught:
            await talk(world, sends(user("one"), Message(Role.ASSISTANT, "yes"), *said[2:], ANSWER, user("three")))
        assert caught.value.metadata["first_difference"] == "1"


async def test_a_client_may_give_calls_ids_of_its_own() -> None:
    world = World()
    await talk(world, sends(user("one")))
    turns = world.sessions.turns["s"]
    calls = tuple(ToolCall(call_id, "f", "{}") for call_id in ("c1", "c2"))
    asked = Message(Role.ASSISTANT, tool_calls=calls)
    turns[-1] = replace(turns[-1], messages=(user("one"), asked), history_digest=grown(EMPTY, [user("one"), asked]))
    theirs = Message(Role.ASSISTANT, tool_calls=tuple(ToolCall(call_id, "f", "{}") for call_id in ("x2", "c1")))
    results = [Message(Role.TOOL, text, tool_call_id=call_id) for text, call_id in (("b", "c1"), ("a", "x2"))]
    await talk(world, sends(user("one"), theirs, *results))
    prompt = world.provider.calls[-1].messages[1:]
    assert [(one.content, one.tool_call_id) for one in prompt[2:]] == [("b", "c2"), ("a", "c1")]
    with pytest.raises(InvalidArgument):
        await talk(world, sends(user("one"), theirs, *results, ANSWER, Message(Role.TOOL, "c", tool_call_id="x3")))


class Reader:
    """Reads what the world's sessions hold."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def window(self, request: TurnRequest, config: AgentConfig) -> StoredWindow:
        turns = self._world.sessions.turns[request.session_id]
        messages = tuple(message for turn in turns for message in turn.messages)
        return StoredWindow(messages, len(messages), {}, 0, datetime.now(UTC))

    async def turns(self, request: TurnRequest) -> tuple[Turn, ...]:
        return tuple(
            replace(turn, number=n) for n, turn in enumerate(self._world.sessions.turns[request.session_id], 1)
        )


async def test_a_preview_knows_a_transcript_as_a_turn_does() -> None:
    world = World()
    await talk(world, sends(user("one")), sends(user("two")))
    preview = PromptPreview(world.configs, Reader(world), world.instances)

    async def shown(request: TurnRequest) -> list[str]:
        prompt = await preview.show(request)
        return [message.content for message in prompt.messages if message.role is not Role.SYSTEM]

    assert await shown(sends(user("one"), ANSWER, user("two"), ANSWER, user("x"))) == [
        "one", "hello", "two", "hello", "x",
    ]  # fmt: skip
    assert await shown(sends(user("one"), ANSWER, user("edited"), history=HistoryPolicy.REPLACE)) == [
        "one", "hello", "edited",
    ]  # fmt: skip
    assert await shown(sends(user("q"), ANSWER, user("x"), history=HistoryPolicy.APPEND)) == [
        "one", "hello", "two", "hello", "q", "hello", "x",
    ]  # fmt: skip
    with pytest.raises(HistoryMismatch):
        await preview.show(sends(user("uno"), ANSWER, user("x")))
    assert stored(world) == ["one", "hello", "two", "hello"]
    late = Message(Role.TOOL, "4", tool_call_id="unknown")
    with pytest.raises(InvalidArgument, match=r"messages\[0\]"):
        await preview.show(sends(late, user("x")))
