"""What kinds `anthropic` and `gemini` answer, as documented: golden files, whole and streamed, of one meaning."""

from pathlib import Path

import pytest

from chat_gateway.model.turn import Delta, FinishReason, Message, Sampling, Usage
from chat_gateway.providers.adapter import Adapter
from chat_gateway.providers.anthropic.adapter import AnthropicAdapter
from chat_gateway.providers.gemini.adapter import GeminiAdapter
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from chat_gateway.providers.sse import SseParser
from contract.enums import Role

GOLDEN = Path(__file__).parent / "golden"
ADAPTERS: dict[str, Adapter] = {"anthropic": AnthropicAdapter("local"), "gemini": GeminiAdapter("local")}
CALL = ModelCall("m", [Message(Role.USER, "hi")], Sampling())


def whole(kind: str, name: str) -> ModelAnswer:
    return ADAPTERS[kind].read((GOLDEN / kind / "answers" / f"{name}.json").read_bytes(), CALL)


def streamed(kind: str, name: str, cut: int) -> tuple[ModelAnswer, list[Delta]]:
    said = (GOLDEN / kind / "answers" / f"{name}.sse").read_bytes()
    parser, stream = SseParser(), ADAPTERS[kind].stream(CALL)
    pieces = [stream.add(parser.feed(said[start : start + cut])) for start in range(0, len(said), cut)]
    pieces.append(stream.add(parser.close()))
    return stream.answer(), [piece for piece in pieces if piece is not None]


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("name", ["text", "tool"])
@pytest.mark.parametrize("cut", [1, 97, 100_000])
def test_a_documented_stream_says_what_the_whole_answer_says(kind: str, name: str, cut: int) -> None:
    answer, deltas = streamed(kind, name, cut)
    right = whole(kind, name)
    assert (answer.message.content, answer.message.reasoning) == (right.message.content, right.message.reasoning)
    assert (answer.finish_reason, answer.usage, answer.model) == (right.finish_reason, right.usage, right.model)
    assert answer.message.tool_calls == right.message.tool_calls
    assert "".join(delta.content for delta in deltas) == right.message.content
    assert "".join(delta.reasoning for delta in deltas) == right.message.reasoning
    said = [piece.arguments for delta in deltas for piece in delta.tool_calls]
    assert "".join(said) == "".join(call.arguments for call in right.message.tool_calls)
    kept = [delta.provider_data for delta in deltas if delta.provider_data is not None]
    assert kept == ([answer.message.provider_data] if answer.message.provider_data else [])


@pytest.mark.parametrize("kind", ADAPTERS)
def test_what_a_documented_answer_means(kind: str) -> None:
    answer = whole(kind, "tool")
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    assert answer.message.reasoning == "The user wants the weather. Let me call the tool."
    assert answer.message.tool_calls[0].arguments == '{"location":"San Francisco, CA"}'
    thought = {"anthropic": Usage(872, 89, 400), "gemini": Usage(472, 89, 400, 49)}
    assert answer.usage == thought[kind]
