"""The OpenAI Agents SDK with its chat model: two questions, the first over many rounds of a tool."""

import asyncio
import json
import sys

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

base_url, agent = sys.argv[1:3]


@function_tool
def look_up(number: int) -> str:
    """Look a number up."""
    return f"found {number}"


async def talk(session: str, *, streaming: bool) -> list[str]:
    headers = {"X-Session-ID": session} if session else {}
    client = AsyncOpenAI(base_url=base_url, api_key="unused", default_headers=headers, max_retries=0)
    loop = Agent(name="looper", tools=[look_up], model=OpenAIChatCompletionsModel(agent, client))
    answers, history = [], []
    for text in ("count", "and now?"):
        said = [*history, {"role": "user", "content": text}]
        if streaming:
            result = Runner.run_streamed(loop, said, max_turns=200)
            async for _ in result.stream_events():
                pass
        else:
            result = await Runner.run(loop, said, max_turns=200)
        answers.append(result.final_output)
        history = result.to_input_list()
    return answers


set_tracing_disabled(True)
for how, session in (run.split(":") for run in sys.argv[3:]):
    print(json.dumps(asyncio.run(talk(session, streaming=how == "stream"))))
