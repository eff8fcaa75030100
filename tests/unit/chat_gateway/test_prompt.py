"""Instructions with placeholders, and prompts whose tool calls are all answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_gateway.agents.placeholders import Instructions
from chat_gateway.agents.prompt import prompt_messages
from chat_gateway.model.errors import PlaceholderMissing
from chat_gateway.model.turn import Message, ToolCall
from chat_gateway.providers.paired import NO_RESULT
from contract.enums import Role
from contract.placeholders import names

USER = Message(Role.USER, "hi")
CALLS = Message(Role.ASSISTANT, tool_calls=(ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}")))


def test_parameters_come_before_metadata() -> None:
    text = Instructions("{{a}} and {{ b }}", {"a": "parameter"})
    assert text.filled({"a": "metadata", "b": "session"}) == "parameter and session"


def test_values_that_are_not_text_are_written_as_json() -> None:
    exact = {"n": 14, "m": 9007199254740993, "f": 0.5}
    assert Instructions("{{n}} {{m}} {{f}}", exact).filled({}) == "14 9007199254740993 0.5"
    assert Instructions("{{n}} {{b}} {{s}}", {"n": 3, "b": True, "s": "x"}).filled({}) == "3 true x"


def test_a_placeholder_that_nothing_fills_is_named() -> None:
    with pytest.raises(PlaceholderMissing) as caught:
        Instructions("Hello {{who}}", {}).filled({"other": "x"})
    assert caught.value.metadata == {"placeholder": "who"}


@given(value=st.text(), tail=st.text(alphabet="ab{} "))
def test_what_a_value_contains_is_never_parsed(value: str, tail: str) -> None:
    assert Instructions("<{{p}}|{{m}}>", {"p": value + "{{m}}"}).filled({"m": tail + "{{p}}"}) == (
        "<" + value + "{{m}}|" + tail + "{{p}}>"
    )


@given(st.text(alphabet="x{ \n") | st.text(alphabet="x} \n"))
def test_text_without_placeholders_stays_as_it_is(text: str) -> None:
    assert Instructions(text, {"x": "filled"}).filled({}) == text


def test_without_instructions_there_is_no_system_message() -> None:
    assert prompt_messages("", (), (USER,)) == [USER]


def test_calls_without_results_get_one_that_says_so() -> None:
    result = Message(Role.TOOL, "42", tool_call_id="c1")
    prompt = prompt_messages("", (USER, CALLS), (result, USER))
    assert prompt == [USER, CALLS, result, Message(Role.TOOL, NO_RESULT, tool_call_id="c2"), USER]


def test_calls_at_the_end_get_results_too() -> None:
    assert [m.tool_call_id for m in prompt_messages("", (), (USER, CALLS))] == ["", "", "c1", "c2"]


def test_answered_calls_are_left_alone() -> None:
    results = tuple(Message(Role.TOOL, "1", tool_call_id=i) for i in ("c2", "c1"))
    assert prompt_messages("", (USER, CALLS), results) == [USER, CALLS, *results]


@pytest.mark.parametrize("escape", ["{{'{{'}}", "{{ '{{' }}", '{{"{{"}}', '{{ "{{" }}'])
def test_braces_that_begin_no_placeholder_can_be_written(escape: str) -> None:
    text = f"Write {escape}a}} for {{{{a}}}}, {escape}{escape}b}}, or {escape}"
    assert Instructions(text, {"a": "x"}).filled({}) == "Write {{a} for x, {{{{b}, or {{"
    assert names(text) == ("a",)
