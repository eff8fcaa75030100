"""The template `assistant`: instructions, the window, one model call."""

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
    TurnContext,
    merged_sampling,
    prompt_messages,
)


class AssistantTemplate:
    """Answers with one call of the model. Any parameter fills the placeholder of its name in the instructions."""

    id = "assistant"
    version = "1.1.0"
    description = (
        "Answers from its instructions and the conversation so far. Every parameter fills the placeholder {{name}} of "
        "the instructions; what parameters leave open is filled from those keys of the session's metadata that "
        "metadata_keys names."
    )
    parameters_schema: Mapping[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_.-]{0,63}$"},
        "additionalProperties": {"type": ["string", "number", "boolean"]},
        "maxProperties": 256,
    }
    placeholders: Placeholders | None = Placeholders(parameters=True, session_metadata=True)

    def build(self, config: AgentConfig, provider: Provider) -> Agent:
        """Returns the agent of this config."""
        return AssistantAgent(config, provider)


class AssistantAgent:
    """One assistant, built from one revision of its config; shared by all of its turns, so it keeps no state of any."""

    __slots__ = ("_instructions", "_model", "_provider", "_sampling")

    def __init__(self, config: AgentConfig, provider: Provider) -> None:
        self._instructions = Instructions(config.instructions, config.parameters)
        self._provider = provider
        self._model = config.model
        self._sampling = config.sampling

    def prompt(self, context: TurnContext) -> list[Message]:
        """Returns what the model is sent. Raises `PlaceholderMissing`."""
        instructions = self._instructions.filled(context.metadata)
        return prompt_messages(instructions, context.window, context.request.messages)

    async def respond(self, context: TurnContext, on_delta: OnDelta | None) -> Answer:
        """Calls the model once. Raises the provider's errors, and `PlaceholderMissing`."""
        request = context.request
        call = ModelCall(
            model=self._model,
            messages=self.prompt(context),
            sampling=merged_sampling(self._sampling, request.sampling),
            tools=request.tools,
            tool_choice=request.tool_choice,
            response_format=request.response_format,
            extra=request.extra,
        )
        answer = await self._provider.complete(call, on_delta)
        return Answer((answer.message,), answer.finish_reason, answer.usage, answer.model, answer.details)
