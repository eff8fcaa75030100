"""`make try-provider ARGS='--base-url URL --model NAME'`: a live provider, called through the gateway's own adapter."""

import argparse
import asyncio
import json
import sys

from chat_gateway.model.turn import Delta, Message, Sampling, Tool
from chat_gateway.providers.http_client import open_client
from chat_gateway.providers.http_provider import HttpProvider, ProviderBounds
from chat_gateway.providers.kinds import make_provider
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from chat_gateway.providers.settings import ProviderSettings
from contract.enums import Role
from servicekit.errors import ServiceError

WEATHER = Tool(
    "get_weather",
    "The weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


async def whole(provider: HttpProvider, model: str) -> ModelAnswer:
    """A question, answered whole."""
    return await provider.complete(asked(model, "Say hello in three words."), None)


async def streamed(provider: HttpProvider, model: str) -> ModelAnswer:
    """A question, answered piece by piece."""

    async def show(delta: Delta) -> None:
        print(delta.content or delta.reasoning, end="", flush=True)

    answer = await provider.complete(asked(model, "Count from one to ten."), show)
    print()
    return answer


async def with_tools(provider: HttpProvider, model: str) -> ModelAnswer:
    """A tool call, and what follows its result."""
    question = asked(model, "What is the weather in Paris? Use the tool.", (WEATHER,))
    called = await provider.complete(question, None)
    print("called:", [(call.name, call.arguments) for call in called.message.tool_calls])
    results = [Message(Role.TOOL, "Sunny, 21 °C.", tool_call_id=call.id) for call in called.message.tool_calls]
    messages = [*question.messages, called.message, *results]
    return await provider.complete(ModelCall(model, messages, Sampling(), (WEATHER,)), None) if results else called


def asked(model: str, text: str, tools: tuple[Tool, ...] = ()) -> ModelCall:
    """Returns a call with one question."""
    return ModelCall(model, [Message(Role.USER, text)], Sampling(), tools)


async def try_all(settings: ProviderSettings, model: str) -> bool:
    """Returns whether every try succeeded."""
    good = True
    async with open_client(10) as session:
        provider = make_provider("live", settings, ProviderBounds(), session)
        for attempt in (whole, streamed, with_tools):
            try:
                answer = await attempt(provider, model)
                print(f"{attempt.__name__}: {answer.finish_reason} by {answer.model}: {answer.message.content!r}")
                print(f"  {answer.usage}, reasoning of {len(answer.message.reasoning)} characters")
            except ServiceError as error:
                good = False
                print(f"{attempt.__name__}: {error.reason}: {error.message}")
    return good


def main() -> None:
    """Reads the arguments and tries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--key-env", help="the variable that holds the key")
    parser.add_argument("--kind", default="openai")
    parser.add_argument("--settings", type=json.loads, default={}, help="more of PARLEY_PROVIDERS' fields, as JSON")
    given = parser.parse_args()
    settings = ProviderSettings(kind=given.kind, base_url=given.base_url, api_key_env=given.key_env, **given.settings)
    sys.exit(0 if asyncio.run(try_all(settings, given.model)) else 1)


if __name__ == "__main__":
    main()
