"""The OpenAI Agents SDK with its Responses model: a hand-over from one agent to another, which calls a tool."""

import asyncio
import json
import sys

from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

base_url, agent = sys.argv[1:3]


@function_tool
def look_up(number: int) -> str:
    """Look a number up."""
    return f"found {number}"


async def talk(*, streaming: bool) -> str:
    client = AsyncOpenAI(base_url=base_url, api_key="unused", max_retries=0)
    model = OpenAIResponsesModel(agent, client)
    second = Agent(name="second", tools=[look_up], model=model)
    first = Agent(name="first", handoffs=[second], model=model)
    if not streaming:
        return (await Runner.run(first, "count")).final_output
    result = Runner.run_streamed(first, "count")
    async for _ in result.stream_events():
        pass
    return result.final_output


set_tracing_disabled(True)
print(json.dumps([asyncio.run(talk(streaming=how == "stream")) for how in sys.argv[3:]]))
