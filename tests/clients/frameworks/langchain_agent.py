"""LangChain's `create_agent`: two questions in one thread; the first one takes many rounds of a tool."""

import json
import sys

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

base_url, agent = sys.argv[1:3]


@tool
def look_up(number: int) -> str:
    """Look a number up."""
    return f"found {number}"


def talk(session: str, *, streaming: bool) -> list[str]:
    headers = {"X-Session-ID": session} if session else {}
    model = ChatOpenAI(
        base_url=base_url, api_key="unused", model=agent, streaming=streaming, default_headers=headers, max_retries=0
    )
    loop = create_agent(model, [look_up], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}, "recursion_limit": 200}
    answers = []
    for text in ("count", "and now?"):
        state = loop.invoke({"messages": [HumanMessage(text)]}, config)
        answers.append(state["messages"][-1].text)
    return answers


for how, session in (run.split(":") for run in sys.argv[3:]):
    print(json.dumps(talk(session, streaming=how == "stream")))
