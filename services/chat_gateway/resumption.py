"""Writes a turn so that another gateway can continue it, and reads it again."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from access.caller import current, user_token
from chat_gateway.agents.toolbox import Steps
from chat_gateway.convert.resumption import resumable_to_bytes
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.background import ResumableTurn
from chat_gateway.model.journal import CallRecorded, JournalEntry, StepCalled
from chat_gateway.model.tools import (
    CalledTool,
    CallStarted,
    ServerTools,
    StepFinished,
    ToolRun,
    ToolsUnavailable,
    merged_unavailable,
)
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import Delta, Message, TurnRequest
from chat_gateway.model.usage import NO_USAGE, added
from contract.enums import HistoryPolicy, Role


def needs_user_token(config: AgentConfig) -> bool:
    """Whether the turn passes its caller's token on to tools: it is never stored, so no other gateway has it."""
    forwards = any(isinstance(tool, ServerTools) and tool.forward_user_token for tool in config.tools)
    return forwards and bool(user_token())


def resumption_of(request: TurnRequest, config: AgentConfig, digest: bytes, begin_time: datetime) -> bytes:
    """Returns what another gateway needs to continue a turn; empty if none can.

    Raises `MessageTooLarge` for a background turn.
    """
    if needs_user_token(config):
        return b""
    return resumable_to_bytes(ResumableTurn(request, current(), config.revision, digest, begin_time))


def with_session(request: TurnRequest, session_id: str) -> TurnRequest:
    """Returns a request to be repeated in the session that was created for it. Its messages are not a transcript of
    that session.
    """
    history = request.history if request.session_id else HistoryPolicy.APPEND
    return replace(request, session_id=session_id, history=history, background=False, after_turn="")


def time_left(asked: ResumableTurn, bound: float) -> float:
    """Returns the remaining seconds of the turn: a background turn has the whole `bound` at each gateway.

    Never more than the bound, though the gateway where it began may have had another time than this one.
    """
    if asked.request.background:
        return bound
    if asked.request.timeout is not None:
        bound = min(bound, asked.request.timeout)
    gone = (datetime.now(UTC) - asked.begin_time).total_seconds()
    return max(bound - max(gone, 0.0), 0.0)


async def unheard(delta: Delta) -> None:
    """Discards the pieces of an answer without a caller: they are in the journal."""


def steps_of(entries: Iterable[JournalEntry]) -> Steps:
    """Returns what a turn has done according to its journal. An unfinished model call is made again."""
    done: list[Message] = []
    step: Message | None = None
    results: dict[str, Message] = {}
    started: dict[str, CallStarted] = {}
    runs: list[ToolRun] = []
    count, usage = 0, NO_USAGE
    called: tuple[CalledTool, ...] = ()
    handed_to: tuple[str, ...] = ()
    unavailable: tuple[ToolsUnavailable, ...] = ()
    listed: ToolsListed | None = None
    for entry in entries:
        match entry:
            case StepCalled():
                done += _of_step(step, results)
                step, results, started = entry.message, {}, {}
                count, usage, called = entry.step, entry.usage, entry.tools
                unavailable = merged_unavailable(unavailable, entry.unavailable)
                handed_to = entry.handed_to
            case CallStarted():
                started[entry.call_id] = entry
                unavailable = merged_unavailable(unavailable, entry.unavailable)
            case CallRecorded(event, content):
                results[event.call_id] = Message(Role.TOOL, content, tool_call_id=event.call_id)
                call = started.get(event.call_id)
                own = (call.name, call.arguments) if call is not None and not event.step else ("", "")
                usage = added(usage, event.usage)
                runs.append(ToolRun(event.call_id, event.server, event.outcome, *own))
            case StepFinished():
                usage = entry.usage
            case ToolsListed():
                listed = entry
    done += _of_step(step, results)
    unrecorded = frozenset(started.keys() - results.keys())
    return Steps(tuple(done), count, usage, tuple(runs), unrecorded, listed, called, unavailable, handed_to)


def _of_step(step: Message | None, results: dict[str, Message]) -> list[Message]:
    """Returns a step's messages: results in the order of the calls, or, of calls that were approved, as they came."""
    if step is None:
        return list(results.values())
    return [step, *(results[call.id] for call in step.tool_calls if call.id in results)]
