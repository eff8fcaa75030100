"""The template `assistant`: instructions, the window, and model calls until there is an answer."""

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
    merged_extra,
    merged_sampling,
    prompt_messages,
    run_tool_loop,
    several_answers,
)


class AssistantTemplate:
    """Answers, and calls its config's tools. Any parameter fills the placeholder of its name in the instructions."""

    id = "assistant"
    version = "2.0.0"
    description = (
        "Answers from its instructions and the conversation so far, and calls the tools that its config names. Every "
        "parameter fills the placeholder {{name}} of the instructions; what parameters leave open is filled from those "
        "keys of the session's metadata that metadata_keys names."
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


class AssistantTemplate1(AssistantTemplate):
    """Builds configs of 1.x with the same agent, so they may have tools, too."""

    version = "1.1.0"
    description = (
        "Answers from its instructions and the conversation so far. Every parameter fills the placeholder {{name}} of "
        "the instructions; what parameters leave open is filled from those keys of the session's metadata that "
        "metadata_keys names."
    )


class AssistantAgent:
    """One assistant, built from one revision of its config; shared by all of its turns, so it keeps no state of any."""

    __slots__ = ("_config", "_instructions", "_provider")

    def __init__(self, config: AgentConfig, provider: Provider) -> None:
        self._instructions = Instructions(config.instructions, config.parameters)
        self._config = config
        self._provider = provider

    def prompt(self, context: TurnContext) -> list[Message]:
        """Returns the messages for the model. Raises `PlaceholderMissing`."""
        instructions = self._instructions.filled(context.metadata)
        return prompt_messages(instructions, context.window, context.request.messages)

    async def respond(self, context: TurnContext, on_delta: OnDelta | None) -> Answer:
        """Calls the model, once unless there are tools. Raises the provider's errors, and `PlaceholderMissing`."""
        config, request = self._config, context.request
        if config.tools or context.approvals:
            call = ModelCall(
                config.model,
                (),
                merged_sampling(config.sampling, request.sampling),
                response_format=request.response_format,
                extra=merged_extra(config.extra, request.extra),
            )
            return await run_tool_loop(config, self._provider, context, on_delta, call=call, prompt=self.prompt)
        call = ModelCall(
            model=config.model,
            messages=self.prompt(context),
            sampling=merged_sampling(config.sampling, request.sampling),
            tools=request.tools,
            tool_choice=request.tool_choice,
            response_format=request.response_format,
            extra=merged_extra(config.extra, request.extra),
        )
        if request.choices > 1:
            return await several_answers(self._provider, call, request.choices, on_delta)
        answer = await self._provider.complete(call, on_delta)
        return Answer((answer.message,), answer.finish_reason, answer.usage, answer.model, answer.details)
