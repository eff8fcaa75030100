"""Results of calls for the model: text within a bound, without secrets."""

from chat_gateway.model.tools import ToolOutcome, ToolResult
from chat_gateway.tools.secrets import Redaction

EMPTY = "(the tool answered without any content)"
_NOTE = "\n[cut: the result has {size} bytes, and only the first {kept} of them are shown]"
_NOTE_ROOM = 120


def finish(result: ToolResult, redaction: Redaction, max_bytes: int) -> ToolResult:
    """Returns the result without secrets, as text that can be stored, cut at `max_bytes` with a note on that."""
    text = redaction.clean(result.text).replace("\0", "") or EMPTY
    encoded = text.encode("utf-8", "replace")
    if len(encoded) > max_bytes:
        kept = max(max_bytes - _NOTE_ROOM, 0)
        shown = encoded[:kept].decode("utf-8", "ignore")
        text = shown + _NOTE.format(size=len(encoded), kept=kept)
        return ToolResult(text, result.outcome)
    return ToolResult(encoded.decode("utf-8"), result.outcome)


def failed(text: str, outcome: ToolOutcome = ToolOutcome.ERROR) -> ToolResult:
    """Returns the result of a call that did not go well."""
    return ToolResult(text, outcome)
