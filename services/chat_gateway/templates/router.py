"""The template `router`: one session, in which each turn is answered by the agent that fits it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from chat_gateway.template_api import (
    Agent,
    AgentConfig,
    Answer,
    Message,
    ModelCall,
    OnDelta,
    ParametersInvalid,
    Placeholders,
    Provider,
    Role,
    TextPart,
    Tool,
    TurnContext,
    Usage,
    added,
    prompt_messages,
    schema_of,
)

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_ASK = "Choose who answers the user's last message. Call hand_over with one of:\n{agents}"
_MAX_READ = 16_384
"""Characters of a message that rules examine."""


class Route(msgspec.Struct, forbid_unknown_fields=True):
    """An agent of the project, and what it answers: any rule that matches is enough."""

    agent: Annotated[str, msgspec.Meta(pattern="^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
    description: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    """For the model that chooses."""
    keywords: Annotated[list[_Text], msgspec.Meta(max_length=256)] = []
    """Found anywhere in the message, in either case."""
    pattern: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    """An RE2 expression, searched for in the message."""
    metadata: dict[str, str] = {}
    """What the session's metadata has, all of it."""


class RouterParameters(msgspec.Struct, forbid_unknown_fields=True):
    """The routes in order; if none matches, the model chooses, or else `default` applies."""

    routes: Annotated[list[Route], msgspec.Meta(min_length=1, max_length=64)]
    default: str = ""
    """The first route's agent where it is empty."""
    ask_model: bool = False
    """Let the agent config's model choose where no rule matches."""


class RouterTemplate:
    """Hands each turn over to one of several agents."""

    id = "router"
    version = "1.0.0"
    description = (
        "Hands each turn over to one of several agents of the project, by keywords, a pattern, session metadata, or a "
        "call of the model. All of them see the same session."
    )
    parameters_schema: Mapping[str, Any] = schema_of(RouterParameters)
    placeholders: Placeholders | None = None

    def build(self, config: AgentConfig, provider: Provider) -> Agent:
        """Returns the router of this config. Raises `ParametersInvalid`."""
        return _Router(config, provider, msgspec.convert(config.parameters, RouterParameters))


class _Router:
    def __init__(self, config: AgentConfig, provider: Provider, parameters: RouterParameters) -> None:
        self._config = config
        self._provider = provider
        self._routes = parameters.routes
        self._default = parameters.default or parameters.routes[0].agent
        self._ask_model = parameters.ask_model
        self._patterns = [_compiled(number, route) for number, route in enumerate(parameters.routes)]

    def prompt(self, context: TurnContext) -> list[Message]:
        """Returns the prompt for choosing a route; the chosen agent makes the prompt of its answer."""
        agents = "\n".join(f"- {route.agent}: {route.description}" for route in self._routes)
        instructions = f"{self._config.instructions}\n\n{_ASK.format(agents=agents)}".strip()
        return prompt_messages(instructions, context.window, context.request.messages)

    async def respond(self, context: TurnContext, on_delta: OnDelta | None) -> Answer:
        """Hands over; the tokens of the choice count for the turn."""
        chosen, usage = self._going_on(context) or self._by_rule(context), Usage()
        if not chosen and self._ask_model:
            chosen, usage = await self._by_model(context)
        assert context.hand_over is not None, "every turn has it"
        counted = replace(context, spent=added(context.spent, usage))
        answer = await context.hand_over(chosen or self._default, counted, on_delta)
        return replace(answer, usage=added(usage, answer.usage))

    def _going_on(self, context: TurnContext) -> str:
        known = {self._default, *(route.agent for route in self._routes)}
        return next((agent for agent in context.goes_on_with[:1] if agent in known), "")

    def _by_rule(self, context: TurnContext) -> str:
        text = _last_said([*context.window, *context.request.messages])[:_MAX_READ]
        lowered = text.casefold()
        for route, pattern in zip(self._routes, self._patterns, strict=True):
            asked = route.metadata.items()
            if (asked and asked <= context.metadata.items()) or any(
                word.casefold() in lowered for word in route.keywords
            ):
                return route.agent
            if pattern is not None and pattern.search(text):
                return route.agent
        return ""

    async def _by_model(self, context: TurnContext) -> tuple[str, Usage]:
        names = [route.agent for route in self._routes]
        parameters = {"type": "object", "properties": {"agent": {"enum": names}}, "required": ["agent"]}
        call = ModelCall(
            self._config.model,
            self.prompt(context),
            self._config.sampling,
            tools=(Tool("hand_over", "Lets the agent answer.", parameters),),
            tool_choice="hand_over",
        )
        said = await self._provider.complete(call, None)
        return _chosen(said.message, names), said.usage


def _chosen(message: Message, names: Sequence[str]) -> str:
    for call in message.tool_calls:
        try:
            agent = json.loads(call.arguments).get("agent")
        except (ValueError, AttributeError, RecursionError):
            continue
        if agent in names:
            return str(agent)
    # Small models answer in a sentence.
    return next((name for name in names if name in message.content), "")


def _last_said(messages: Sequence[Message]) -> str:
    """Returns the user's last message: a turn that continues tool calls goes to the agent that got it."""
    for message in reversed(messages):
        if message.role is Role.USER:
            return message.content or " ".join(part.text for part in message.parts if isinstance(part, TextPart))
    return ""


def _compiled(number: int, route: Route) -> Any:
    if not route.pattern:
        return None
    # Python's regular expressions can take exponential time, and these come from projects.
    try:
        import re2  # type: ignore[import-untyped, unused-ignore]

        return re2.compile(route.pattern)
    except ImportError:
        raise ParametersInvalid(
            f"parameters.routes[{number}].pattern", "needs the extra `tools` of this gateway"
        ) from None
    except re2.error:
        raise ParametersInvalid(f"parameters.routes[{number}].pattern", "must be an expression of RE2") from None
