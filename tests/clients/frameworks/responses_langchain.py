"""LangChain's `create_agent` over the Responses API."""

import json
import sys

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

base_url, agent = sys.argv[1:3]


@tool
def look_up(number: int) -> str:
    """Look a number up."""
    return f"found {number}"


def talk(*, streaming: bool) -> str:
    model = ChatOpenAI(
        base_url=base_url, api_key="unused", model=agent, streaming=streaming, use_responses_api=True, max_retries=0
    )
    loop = create_agent(model, [look_up])
    return loop.invoke({"messages": [("user", "count")]})["messages"][-1].text


print(json.dumps([talk(streaming=how == "stream") for how in sys.argv[3:]]))
