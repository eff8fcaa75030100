"""How a response is to be made: sampling, tools, the form of its text, and what is shown of it."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from chat_gateway.http_edge.openai.metadata import check_openai_metadata
from chat_gateway.http_edge.openai.responses import request_schema as shapes
from chat_gateway.http_edge.openai.responses.echo import RequestEcho
from chat_gateway.http_edge.openai.responses.shapes import MAX_SHOWN, Findings, shaped
from chat_gateway.http_edge.wire.bodies import check_free_form
from chat_gateway.model import turn as model

LOGPROBS: Final = "message.output_text.logprobs"
ENCRYPTED_REASONING: Final = "reasoning.encrypted_content"
INCLUDES: Final = frozenset(
    {
        LOGPROBS,
        ENCRYPTED_REASONING,
        "message.input_image.image_url",
        # Of items that no response of ours has.
        "file_search_call.results",
        "web_search_call.results",
        "web_search_call.action.sources",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
    }
)
"""What can be asked to be shown."""
_MODES: Final = ("auto", "none", "required")
_MAX_TOP_LOGPROBS: Final = 20
_PASSED_ON: Final = (
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
)
"""Fields with the same name and meaning in chat completions: the provider's to understand, or to refuse."""

_encode = msgspec.json.Encoder().encode


class Options:
    """Reads the options of one request, and notes what is wrong with them."""

    def __init__(self, asked: shapes.ResponseRequest, found: Findings) -> None:
        self._asked = asked
        self._found = found
        self.include = self._include()
        self.tools = self._tools()
        self.allowed_tools: frozenset[str] = frozenset()
        self.tool_choice = self._tool_choice()
        self._text = self._text_options()
        self.response_format = self._response_format()
        self._reasoning = self._reasoning_options()
        self.extra = self._extra()
        check_openai_metadata(found, asked.metadata)
        if asked.truncation not in (None, "auto", "disabled"):
            found.add("truncation", "must be auto or disabled")

    @property
    def sampling(self) -> model.Sampling:
        """How the model samples."""
        asked = self._asked
        return model.Sampling(
            temperature=asked.temperature,
            top_p=asked.top_p,
            max_output_tokens=asked.max_output_tokens,
            presence_penalty=asked.presence_penalty,
            frequency_penalty=asked.frequency_penalty,
        )

    def echo(self, previous_response_id: str) -> RequestEcho:
        """Returns what the response repeats of its request."""
        asked = self._asked
        return RequestEcho(
            model=asked.model,
            instructions=asked.instructions,
            previous_response_id=previous_response_id or None,
            max_output_tokens=asked.max_output_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            presence_penalty=asked.presence_penalty,
            frequency_penalty=asked.frequency_penalty,
            top_logprobs=asked.top_logprobs,
            tools=[_tool_json(tool) for tool in self.tools],
            tool_choice="auto" if asked.tool_choice is None else asked.tool_choice,
            parallel_tool_calls=asked.parallel_tool_calls is not False,
            text=self._text_json(),
            reasoning=self._reasoning_json(),
            include=sorted(self.include),
            truncation=asked.truncation or "disabled",
            metadata=asked.metadata or {},
            user=asked.user,
            safety_identifier=asked.safety_identifier,
            prompt_cache_key=asked.prompt_cache_key,
            prompt_cache_retention=asked.prompt_cache_retention,
            service_tier=asked.service_tier,
            background=asked.background is True,
        )

    def _include(self) -> frozenset[str]:
        for index, name in enumerate(self._asked.include or ()):
            if name not in INCLUDES:
                self._found.refuse(f"include[{index}]", f"{name[:MAX_SHOWN]!r} is not supported")
        return frozenset(self._asked.include or ()) & INCLUDES

    def _tools(self) -> tuple[model.Tool, ...]:
        tools = []
        for index, given in enumerate(self._asked.tools or ()):
            where = f"tools[{index}]"
            if given.get("type") != "function":
                kind = str(given.get("type"))[:MAX_SHOWN]
                self._found.refuse(
                    f"{where}.type", f"{kind!r} is not supported: must be function; other tools are the agent's"
                )
                continue
            tool = shaped(shapes.FunctionTool, given, where, self._found)
            if tool is None:
                continue
            if tool.parameters:
                check_free_form(tool.parameters, f"{where}.parameters")
            tools.append(model.Tool(tool.name, tool.description or "", tool.parameters, tool.strict is True))
        return tuple(tools)

    def _tool_choice(self) -> str:
        choice = self._asked.tool_choice
        if choice is None:
            return ""
        if isinstance(choice, str):
            if choice not in _MODES:
                self._found.add("tool_choice", "must be auto, none, required, or an object that names a tool")
            return choice
        match choice.get("type"):
            case "function":
                named = shaped(shapes.NamedTool, choice, "tool_choice", self._found)
                return "" if named is None else self._named(named.name)
            case "mcp":
                chosen = shaped(shapes.McpToolChoice, choice, "tool_choice", self._found)
                if chosen is not None and chosen.name is None:
                    self._found.add("tool_choice.name", "is required: the choice is of one tool")
                return "" if chosen is None or chosen.name is None else self._named(chosen.name)
            case "allowed_tools":
                return self._allowed(choice)
            case kind:
                self._found.refuse(
                    "tool_choice.type",
                    f"{str(kind)[:MAX_SHOWN]!r} is not supported: must be function, mcp or allowed_tools",
                )
        return ""

    def _named(self, name: str) -> str:
        if name in _MODES:
            self._found.add("tool_choice.name", "is a reserved word: give the tool another name")
        return name

    def _allowed(self, choice: shapes.Json) -> str:
        allowed = shaped(shapes.AllowedTools, choice, "tool_choice", self._found)
        if allowed is None:
            return ""
        if allowed.mode not in _MODES:
            self._found.add("tool_choice.mode", "must be auto, none or required")
        if not allowed.tools:
            self._found.add("tool_choice.tools", "must not be empty: the choice none allows none")
        names = set()
        for index, tool in enumerate(allowed.tools):
            name = tool.get("name")
            if tool.get("type") in ("function", "mcp") and isinstance(name, str):
                names.add(name)
            else:
                self._found.add(
                    f"tool_choice.tools[{index}]", "must be a function, or a tool of type mcp, with its name"
                )
        self.allowed_tools = frozenset(names)
        self.tools = tuple(tool for tool in self.tools if tool.name in names)
        return allowed.mode

    def _text_options(self) -> shapes.TextOptions:
        given = self._asked.text
        options = None if given is None else shaped(shapes.TextOptions, given, "text", self._found)
        return options or shapes.TextOptions()

    def _response_format(self) -> Mapping[str, Any] | None:
        asked = self._text.format
        if asked is None or asked.type == "text":
            return None
        if asked.type == "json_object":
            return {"type": "json_object"}
        if asked.type != "json_schema":
            self._found.add("text.format.type", "must be text, json_object or json_schema")
            return None
        for field in ("name", "schema"):
            if getattr(asked, field) is None:
                self._found.add(f"text.format.{field}", "is required")
        check_free_form(asked.schema or {}, "text.format.schema")
        said = {"name": asked.name, "schema": asked.schema, "description": asked.description, "strict": asked.strict}
        return {"type": "json_schema", "json_schema": {name: one for name, one in said.items() if one is not None}}

    def _reasoning_options(self) -> shapes.ReasoningOptions:
        given = self._asked.reasoning
        options = None if given is None else shaped(shapes.ReasoningOptions, given, "reasoning", self._found)
        for field in ("summary", "generate_summary"):
            if getattr(options, field, None) not in (None, "auto", "detailed"):
                self._found.add(f"reasoning.{field}", "must be auto or detailed: all that the provider shows is shown")
        return options or shapes.ReasoningOptions()

    def _extra(self) -> dict[str, bytes]:
        asked = self._asked
        extra = {name: getattr(asked, name) for name in _PASSED_ON}
        extra["reasoning_effort"] = self._reasoning.effort
        extra["verbosity"] = self._text.verbosity
        if LOGPROBS in self.include or asked.top_logprobs is not None:
            extra["logprobs"] = True
            extra["top_logprobs"] = asked.top_logprobs
        if asked.top_logprobs is not None and not 0 <= asked.top_logprobs <= _MAX_TOP_LOGPROBS:
            self._found.add("top_logprobs", f"must be from 0 to {_MAX_TOP_LOGPROBS}")
        if asked.service_tier == "auto":
            del extra["service_tier"]  # the provider's own choice, with or without it
        return {name: _encode(said) for name, said in extra.items() if said is not None}

    def _text_json(self) -> shapes.Json:
        asked = self._text.format
        form: shapes.Json = {"type": "text"}
        if asked is not None:
            form = {"type": asked.type}
            if asked.type == "json_schema":
                form |= {
                    "name": asked.name,
                    "description": asked.description,
                    "schema": asked.schema,
                    "strict": asked.strict is True,
                }
        return {"format": form, "verbosity": self._text.verbosity or "medium"}

    def _reasoning_json(self) -> shapes.Json:
        return {
            "effort": self._reasoning.effort,
            "summary": self._reasoning.summary or self._reasoning.generate_summary,
        }


def _tool_json(tool: model.Tool) -> shapes.Json:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description or None,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
