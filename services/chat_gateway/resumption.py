"""What a turn is, for a gateway that goes on with it: as it is written, and as it is read again."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from access.caller import current, user_token
from chat_gateway.agents.toolbox import Steps
from chat_gateway.convert.resumption import resumable_to_bytes
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.background import ResumableTurn
from chat_gateway.model.journal import CallRecorded, JournalEntry, StepCalled
from chat_gateway.model.tools import CallStarted, ServerTools, StepFinished, ToolRun
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import Delta, Message, TurnRequest
from chat_gateway.model.usage import NO_USAGE
from contract.enums import HistoryPolicy, Role


def needs_user_token(config: AgentConfig) -> bool:
    """Whether the turn passes its caller's own token on to tools: it is written nowhere, so no other gateway has it."""
    forwards = any(isinstance(tool, ServerTools) and tool.forward_user_token for tool in config.tools)
    return forwards and bool(user_token())


def resumption_of(request: TurnRequest, config: AgentConfig, digest: bytes, begin_time: datetime) -> bytes:
    """Returns what another gateway needs to go on with a turn that has begun; nothing where none can.

    Raises `MessageTooLarge` for a background turn.
    """
    if needs_user_token(config):
        return b""
    return resumable_to_bytes(ResumableTurn(request, current(), config.revision, digest, begin_time))


def with_session(request: TurnRequest, session_id: str) -> TurnRequest:
    """Returns a request that is asked again in the session that it was given.

    What it brings is no transcript of a session that it did not name.
    """
    history = request.history if request.session_id else HistoryPolicy.APPEND
    return replace(request, session_id=session_id, history=history, background=False, after_turn="")


def time_left(asked: ResumableTurn, bound: float) -> float:
    """Returns the seconds that the turn may take from now on: a background turn has all of `bound` at each gateway."""
    if asked.request.background:
        return bound
    if asked.request.timeout is not None:
        bound = min(bound, asked.request.timeout)
    return max(bound - (datetime.now(UTC) - asked.begin_time).total_seconds(), 0.0)


async def unheard(delta: Delta) -> None:
    """Takes the pieces of an answer that has no caller: they are in the journal."""


def steps_of(entries: Iterable[JournalEntry]) -> Steps:
    """Returns what a turn has done, by its journal: what the model said of a step without calls is asked for again."""
    done: list[Message] = []
    step: Message | None = None
    results: dict[str, Message] = {}
    started: dict[str, CallStarted] = {}
    runs: list[ToolRun] = []
    count, usage = 0, NO_USAGE
    listed: ToolsListed | None = None
    for entry in entries:
        match entry:
            case StepCalled():
                done += _of_step(step, results)
                step, results, started = entry.message, {}, {}
                count, usage = entry.step, entry.usage
            case CallStarted():
                started[entry.call_id] = entry
            case CallRecorded(event, content):
                results[event.call_id] = Message(Role.TOOL, content, tool_call_id=event.call_id)
                call = started.get(event.call_id)
                own = (call.name, call.arguments) if call is not None and not event.step else ("", "")
                runs.append(ToolRun(event.call_id, event.server, event.outcome, *own))
            case StepFinished():
                usage = entry.usage
            case ToolsListed():
                listed = entry
    done += _of_step(step, results)
    unrecorded = frozenset(started.keys() - results.keys())
    return Steps(tuple(done), count, usage, runs=tuple(runs), unrecorded=unrecorded, listed=listed)


def _of_step(step: Message | None, results: dict[str, Message]) -> list[Message]:
    """Returns a step's messages: results in the order of the calls, or, of calls that were approved, as they came."""
    if step is None:
        return list(results.values())
    return [step, *(results[call.id] for call in step.tool_calls if call.id in results)]
