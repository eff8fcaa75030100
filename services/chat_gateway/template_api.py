"""The API for templates, those of the gateway and those of other packages (docs/templates.md). Plug-ins must not import
anything else of `chat_gateway`. Incompatible changes are listed under "Changed" in CHANGELOG.md.
"""

from chat_gateway.agents.agent import Agent, HandOver, TurnContext
from chat_gateway.agents.choices import several_answers
from chat_gateway.agents.functions import FunctionTool, function_tool, schema_of
from chat_gateway.agents.placeholders import Instructions
from chat_gateway.agents.prompt import prompt_messages
from chat_gateway.agents.template import Placeholders, Template
from chat_gateway.agents.tool_loop import run_tool_loop
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.errors import ParametersInvalid, PlaceholderMissing
from chat_gateway.model.turn import (
    Answer,
    AnswerDetails,
    AudioPart,
    Delta,
    FilePart,
    FinishReason,
    ImagePart,
    Message,
    OnDelta,
    ProviderData,
    Sampling,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    TurnRequest,
    Usage,
)
from chat_gateway.model.usage import added
from chat_gateway.providers.provider import ModelAnswer, ModelCall, Provider, merged_extra, merged_sampling
from contract.enums import Role
from servicekit.errors import ServiceError

__all__ = [
    "Agent",
    "AgentConfig",
    "Answer",
    "AnswerDetails",
    "AudioPart",
    "Delta",
    "FilePart",
    "FinishReason",
    "FunctionTool",
    "HandOver",
    "ImagePart",
    "Instructions",
    "Message",
    "ModelAnswer",
    "ModelCall",
    "OnDelta",
    "ParametersInvalid",
    "PlaceholderMissing",
    "Placeholders",
    "Provider",
    "ProviderData",
    "Role",
    "Sampling",
    "ServiceError",
    "Template",
    "TextPart",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "TurnContext",
    "TurnRequest",
    "Usage",
    "added",
    "function_tool",
    "merged_extra",
    "merged_sampling",
    "prompt_messages",
    "run_tool_loop",
    "schema_of",
    "several_answers",
]
