"""pydantic-ai: two questions in one conversation; the first one takes many rounds of a tool."""

import asyncio
import json
import sys

from openai import AsyncOpenAI
from pydantic_ai import Agent, UsageLimits
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

base_url, agent = sys.argv[1:3]


def look_up(number: int) -> str:
    """Look a number up."""
    return f"found {number}"


async def talk(session: str, *, streaming: bool) -> list[str]:
    headers = {"X-Session-ID": session} if session else {}
    client = AsyncOpenAI(base_url=base_url, api_key="unused", default_headers=headers, max_retries=0)
    model = OpenAIChatModel(agent, provider=OpenAIProvider(openai_client=client))
    loop = Agent(model, tools=[look_up])
    answers, history = [], []
    for text in ("count", "and now?"):
        limits = UsageLimits(request_limit=200)
        if streaming:
            async with loop.run_stream(text, message_history=history, usage_limits=limits) as result:
                answers.append(await result.get_output())
                history = result.all_messages()
        else:
            done = await loop.run(text, message_history=history, usage_limits=limits)
            answers.append(done.output)
            history = done.all_messages()
    return answers


for how, session in (run.split(":") for run in sys.argv[3:]):
    print(json.dumps(asyncio.run(talk(session, streaming=how == "stream"))))
