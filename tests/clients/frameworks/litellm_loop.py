"""LiteLLM: a loop of one's own over its `completion`; the first question takes many rounds of a tool."""

import json
import sys

import litellm

base_url, agent = sys.argv[1:3]
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a number up.",
        "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
    },
}


def ask(messages: list, headers: dict[str, str], *, streaming: bool):
    asked = {
        "model": f"openai/{agent}",
        "base_url": base_url,
        "api_key": "unused",
        "extra_headers": headers,
        "messages": messages,
        "tools": [TOOL],
        "num_retries": 0,
    }
    if not streaming:
        return litellm.completion(**asked).choices[0].message
    chunks = list(litellm.completion(**asked, stream=True))
    return litellm.stream_chunk_builder(chunks, messages=messages).choices[0].message


def talk(session: str, *, streaming: bool) -> list[str]:
    headers = {"X-Session-ID": session} if session else {}
    messages: list = []
    answers = []
    for text in ("count", "and now?"):
        messages.append({"role": "user", "content": text})
        while True:
            message = ask(messages, headers, streaming=streaming)
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                break
            for call in message.tool_calls:
                number = json.loads(call.function.arguments)["number"]
                messages.append({"role": "tool", "tool_call_id": call.id, "content": f"found {number}"})
        answers.append(message.content)
    return answers


for how, session in (run.split(":") for run in sys.argv[3:]):
    print(json.dumps(talk(session, streaming=how == "stream")))
