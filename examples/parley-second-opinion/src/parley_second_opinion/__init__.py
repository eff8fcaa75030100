"""The template `second-opinion`: the model drafts an answer, is asked what it makes of it, and answers anew."""

from collections.abc import Mapping
from typing import Any

from chat_gateway.template_api import (
    Agent,
    AgentConfig,
    Answer,
    Instructions,
    Message,
    ModelCall,
    OnDelta,
    Placeholders,
    Provider,
    Role,
    TurnContext,
    Usage,
    merged_sampling,
    prompt_messages,
)


class SecondOpinionTemplate:
    """Two calls of the model for each turn; only the second one's answer is streamed and stored."""

    id = "second-opinion"
    version = "1.0.0"
    description = "Drafts an answer, reviews it by the parameter `criteria`, and answers anew."
    parameters_schema: Mapping[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "criteria": {
                "type": "string",
                "minLength": 1,
                "maxLength": 2000,
                "default": "Is it correct, complete and short?",
            },
        },
        "additionalProperties": {"type": "string"},
    }
    placeholders: Placeholders | None = Placeholders(parameters=True, session_metadata=True)

    def build(self, config: AgentConfig, provider: Provider) -> Agent:
        """Returns the agent of this config; its parameters hold the defaults of the schema."""
        return SecondOpinionAgent(config, provider)


class SecondOpinionAgent:
    """Built once for each revision and used by many turns at a time: it keeps nothing of any of them."""

    def __init__(self, config: AgentConfig, provider: Provider) -> None:
        self._instructions = Instructions(config.instructions, config.parameters)
        self._review = (
            f"Read your draft again. {config.parameters['criteria']} Then write the answer anew, and nothing but it."
        )
        self._provider = provider
        self._model = config.model
        self._sampling = config.sampling

    def prompt(self, context: TurnContext) -> list[Message]:
        """Returns what the first call sends."""
        instructions = self._instructions.filled(context.metadata)
        return prompt_messages(instructions, context.window, context.request.messages)

    async def respond(self, context: TurnContext, on_delta: OnDelta | None) -> Answer:
        """Drafts, reviews, answers. Cancelling it cancels the call that is running."""
        request = context.request
        messages = self.prompt(context)
        sampling = merged_sampling(self._sampling, request.sampling)
        draft = await self._provider.complete(ModelCall(self._model, messages, sampling), None)
        review = ModelCall(
            model=self._model,
            messages=[*messages, draft.message, Message(Role.USER, self._review)],
            sampling=sampling,
            tools=request.tools,
            tool_choice=request.tool_choice,
            response_format=request.response_format,
        )
        answer = await self._provider.complete(review, on_delta)
        return Answer((answer.message,), answer.finish_reason, _sum(draft.usage, answer.usage), answer.model)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.cached_tokens + other.cached_tokens,
    )
