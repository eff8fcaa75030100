"""Names of a turn's request fields in OpenAI's chat completions."""

import re
from typing import Final

OWN_FIELDS: Final = frozenset(
    {
        "approvals",
        "audio",
        "background",
        "busy",
        "frequency_penalty",
        "function_call",
        "functions",
        "history",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "model",
        "n",
        "on_disconnect",
        "presence_penalty",
        "response_format",
        "resumable",
        "seed",
        "session_id",
        "session_must_exist",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
        "user",
        "user_id",
    }
)
"""The fields that Parley interprets; all others are passed on to the provider."""

FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
FIELD_NAME_RULE: Final = "must be letters, digits and '_', '.', '-', begin with a letter or '_', at most 64 characters"
MAX_EXTRA_FIELDS: Final = 64
