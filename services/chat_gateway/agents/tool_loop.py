"""The tool loop: a model call, the tool calls that it requests, the next model call, until an answer without tool
calls.

A step that also asks for the caller's functions ends the turn once the gateway's calls have run; so does one with calls
that wait for an approval. The last step that a turn may make is offered no tools, so that an answer comes.
"""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

from chat_gateway.agents.agent import TurnContext
from chat_gateway.agents.called_tools import CalledTools, of_approvals
from chat_gateway.agents.functions import FunctionTool
from chat_gateway.agents.listing import tools_to_list
from chat_gateway.agents.offer import Offer, make_offer, with_note
from chat_gateway.agents.step_events import StepEvents
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.answers import open_calls
from chat_gateway.model.errors import ToolCallsRepeated
from chat_gateway.model.history import canonical_arguments
from chat_gateway.model.provider_errors import ProviderBadResponse
from chat_gateway.model.rules import message_size, sizes
from chat_gateway.model.tools import ToolKind, ToolOutcome, ToolResult, ToolRun, merged_unavailable
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import Answer, FinishReason, Message, OnDelta, ToolCall
from chat_gateway.model.usage import added
from chat_gateway.providers.provider import ModelAnswer, ModelCall, Provider
from contract.enums import Role
from contract.messages import MAX_TOOL_CALLS
from servicekit import traces
from servicekit.supervision import cancel_and_wait

MAX_REPEATS: Final = 3
"""How often in a row the same call may be requested; the last one is not made."""
MAX_TURN_BYTES: Final = 960 * 1024
"""The maximum size of a turn's messages, so that its commit (1 MiB) can't fail because of tool results."""
ANSWER_BYTES: Final = 64 * 1024
"""The part of it reserved for the answer."""
MIN_STEP_BYTES: Final = 4096
"""With less space than this, no more tools are offered."""
TIMEOUT_MARGIN: Final = 1.0
"""Seconds after a call's own timeout at which it is cancelled here: its toolbox reports the timeout better."""

_UNKNOWN_OUTCOME: Final = (
    "The outcome of this call is unknown: whoever made it was lost before the answer came. It may have taken effect or "
    "not, and is not made again."
)
_CUT_SHORT: Final = (FinishReason.LENGTH, FinishReason.CONTENT_FILTER)


async def run_tool_loop(
    config: AgentConfig,
    provider: Provider,
    context: TurnContext,
    on_delta: OnDelta | None,
    *,
    call: ModelCall,
    prompt: Callable[[TurnContext], list[Message]],
    functions: Sequence[FunctionTool] = (),
) -> Answer:
    """Does the agent's part of a turn with the tools of its config, its template's `functions` and the request's.

    `call` is the template of every model call; the loop fills in its messages and tools. `prompt` returns the messages
    of a call from the context, with the turn's messages so far appended to the request's. Continues from
    `context.steps`. Raises what the provider and `Toolbox.tools` raise, and `ToolCallsRepeated`; a tool's failure is a
    result that the model sees. When cancelled, it cancels and awaits the running calls.
    """
    offer = await make_offer(config, context, functions)
    loop = _Loop(config, provider, context, on_delta, call, prompt, offer)
    return await loop.run(tools_to_list(context, offer))


class _Loop:
    """One turn's loop."""

    def __init__(
        self,
        config: AgentConfig,
        provider: Provider,
        context: TurnContext,
        on_delta: OnDelta | None,
        call: ModelCall,
        prompt: Callable[[TurnContext], list[Message]],
        offer: Offer,
    ) -> None:
        self._policy = config.tool_policy
        self._provider = provider
        self._context = context
        self._prompt = prompt
        self._offer = offer
        self._called = CalledTools(offer)
        said_by_caller = "parallel_tool_calls" in call.extra
        self._call = replace(call, parallel_tool_calls=None if said_by_caller else self._policy.parallel_tool_calls)
        self._steps = context.steps
        self._events = StepEvents(
            on_delta,
            context.sink,
            offer.callers,
            context.steps,
            offer.unavailable,
            context.handed_to,
            context.spent,
        )
        self._runs = list(context.steps.runs)
        self._repeats: dict[tuple[str, str], int] = {}
        self._uncounted: list[Sequence[ToolCall]] = []
        """The calls of the first steps, as long as they are too few to repeat one."""
        self._left = MAX_TURN_BYTES - ANSWER_BYTES - sizes(context.request.messages)[0]
        for message in context.steps.messages:
            self._left -= message_size(message)
            if message.tool_calls:
                self._count_repeats(self._gateways(message))

    async def run(self, listed: ToolsListed | None) -> Answer:
        if listed is not None:
            self._steps = replace(self._steps, listed=listed)
            await self._events.listed(listed)
        await self._decided()
        if (ended := await self._unfinished()) is not None:
            return ended
        self._called = CalledTools(self._offer)
        while True:
            last = self._steps.count + 1 >= self._policy.max_steps or self._left < MIN_STEP_BYTES
            answer = await self._ask(last)
            calls = self._gateways(answer.message)
            if last or not calls or answer.finish_reason in _CUT_SHORT:
                return await self._ended(answer, last)
            waiting = [call for call in calls if self._called.needs_approval(call)]
            running = [call for call in calls if call not in waiting]
            self._count_repeats(running)
            tools = self._called.requested(calls)
            await self._events.called(self._steps.count, answer.message, self._steps.usage, tools)
            self._keep(answer.message)
            goes_on = not waiting and len(calls) == len(answer.message.tool_calls)
            await self._run(running, self._result, ends_step=goes_on)
            if not goes_on:
                await self._events.answered()
                return self._answer(answer, waiting)
            await self._events.finished(self._steps)

    async def _decided(self) -> None:
        """Runs the approved calls of the previous turn, and reports rejections to the model."""
        self._called = CalledTools(self._offer, of_approvals(self._context.approvals))
        done = {message.tool_call_id for message in self._steps.messages}
        decided = [one for one in self._context.approvals if one.call.id not in done]
        rejected = {one.call.id: one.note for one in decided if not one.approve}
        begun = {one.call.id for one in decided if one.begun}

        async def result(call: ToolCall) -> ToolResult:
            if call.id not in rejected:
                return await self._result_again(call, begun=call.id in begun)
            note = f": {rejected[call.id]}" if rejected[call.id] else "."
            if call.id in begun:
                # A turn that failed may have made it: as not run it could be approved, and made, once more.
                return ToolResult(f"The user rejected this call{note}\n{_UNKNOWN_OUTCOME}", ToolOutcome.UNKNOWN)
            return ToolResult(f"Not run: the user rejected this call{note}", ToolOutcome.DENIED)

        await self._run([one.call for one in decided], result, ends_step=False)

    async def _unfinished(self) -> Answer | None:
        """Runs the calls without results from an earlier attempt of the turn; returns the turn's end, or None if
        another step follows.
        """
        owed = open_calls(self._steps.messages) if self._steps.count else ()
        if not owed:
            return None
        self._called = CalledTools(self._offer, self._steps.called)
        waiting = [call for call in owed if self._called.needs_approval(call)]
        own = [call for call in owed if call.name not in self._offer.callers and call not in waiting]
        await self._run(own, self._result_again, ends_step=len(own) == len(owed))
        if len(own) == len(owed):
            await self._events.finished(self._steps)
            return None
        said = next(one for one in reversed(self._steps.messages) if one.role is Role.ASSISTANT)
        answer = ModelAnswer(said, FinishReason.TOOL_CALLS, self._steps.usage, self._call.model)
        return self._answer(answer, waiting)

    async def _ask(self, last: bool) -> ModelAnswer:
        context, steps, offer = self._context, self._steps, self._offer
        if steps.messages:
            request = replace(context.request, messages=context.request.messages + steps.messages)
            context = replace(context, request=request)
        call = replace(
            self._call,
            messages=with_note(self._prompt(context), offer.unavailable),
            tools=() if last else offer.tools,
            tool_choice="" if last or steps.count else offer.choice,
        )
        answer = await self._provider.complete(call, self._events.of_step(shows_calls=not last))
        if len(answer.message.tool_calls) > MAX_TOOL_CALLS:
            raise ProviderBadResponse(self._provider.name, f"more than {MAX_TOOL_CALLS} tool calls at once")
        self._steps = replace(steps, count=steps.count + 1, usage=added(steps.usage, answer.usage))
        return answer

    def _gateways(self, message: Message) -> list[ToolCall]:
        """Returns the calls that the gateway answers, including those of unknown tools."""
        return [call for call in message.tool_calls if call.name not in self._offer.callers]

    def _count_repeats(self, calls: Sequence[ToolCall]) -> None:
        self._uncounted.append(calls)
        if not self._repeats and sum(map(len, self._uncounted)) < MAX_REPEATS:
            return
        for step in self._uncounted:
            self._count(step)
        self._uncounted.clear()

    def _count(self, calls: Sequence[ToolCall]) -> None:
        now: dict[tuple[str, str], int] = {}
        for call in calls:
            asked = (call.name, canonical_arguments(call.arguments))
            now[asked] = now.get(asked, self._repeats.get(asked, 0)) + 1
            if now[asked] >= MAX_REPEATS:
                raise ToolCallsRepeated(call.name, MAX_REPEATS)
        self._repeats = now

    async def _run(
        self,
        calls: Sequence[ToolCall],
        result: Callable[[ToolCall], Coroutine[Any, Any, ToolResult]],
        *,
        ends_step: bool,
    ) -> None:
        """Runs calls concurrently up to the limit, and keeps their results in the order of the calls. `ends_step`: the
        end of the step follows directly.
        """
        if not calls:
            return
        max_bytes = min(self._policy.max_result_bytes, max(self._left, 0) // len(calls))
        free = asyncio.Semaphore(self._policy.max_parallel_calls)

        left = len(calls)

        async def counted(call: ToolCall) -> tuple[ToolResult, bool]:
            nonlocal left
            found = await result(call)
            left -= 1
            return found, ends_step and not left

        async def one(call: ToolCall) -> tuple[Message, ToolResult]:
            async with free:
                return await self._observed(call, counted, max_bytes)

        for message, found in await all_or_none([one(call) for call in calls]):
            self._keep(message)
            self._steps = replace(self._steps, usage=added(self._steps.usage, found.usage))

    async def _observed(
        self,
        call: ToolCall,
        result: Callable[[ToolCall], Coroutine[Any, Any, tuple[ToolResult, bool]]],
        max_bytes: int,
    ) -> tuple[Message, ToolResult]:
        server = self._called.server(call)
        step = self._steps.count
        # A call of this turn is in its messages; one of the previous turn is not.
        own = (call.name, call.arguments) if not step else ("", "")
        place = len(self._runs)
        self._runs.append(ToolRun(call.id, server, ToolOutcome.UNKNOWN, *own))
        await self._events.started(step, call, server)
        begin = time.monotonic()
        with _span(call, server) as span:
            found, ends_step = await result(call)
            if found.outcome is not ToolOutcome.OK:
                span.set("error.type", found.outcome.value)
        message = Message(Role.TOOL, cut(found.text, max_bytes), tool_call_id=call.id)
        self._runs[place] = replace(self._runs[place], outcome=found.outcome)
        seconds = time.monotonic() - begin
        if call.name in self._offer.functions and self._context.calls is not None:
            self._context.calls.observe(ToolKind.FUNCTION, server, found.outcome, seconds)
        await self._events.ended(step, call, server, found, seconds, message, ends_step=ends_step)
        return message, found

    async def _result_again(self, call: ToolCall, *, begun: bool = False) -> ToolResult:
        """As `_result`, for a call that an earlier attempt, or a failed turn (`begun`), may have made: repeated only if
        idempotent.
        """
        if begun or call.id in self._context.steps.unrecorded:
            tool = self._called.tool(call)
            if tool is None or not tool.idempotent:
                return ToolResult(_UNKNOWN_OUTCOME, ToolOutcome.UNKNOWN)
        return await self._result(call)

    async def _result(self, call: ToolCall) -> ToolResult:
        """Calls one tool. Every outcome is a result, except errors that end the turn."""
        tool = self._called.tool(call)
        if tool is None:
            return self._called.missing(call)
        function = self._offer.functions.get(tool.name)
        arguments = call.arguments if call.arguments.strip() else "{}"
        if (problem := _problem_of(arguments)) is not None:
            return ToolResult(f"The arguments are not valid: {problem}", ToolOutcome.INVALID_ARGUMENTS)
        own = function is not None
        bound = self._policy.call_timeout + (0 if own else TIMEOUT_MARGIN)
        try:
            async with asyncio.timeout(bound) as scope:
                if function is not None:
                    return await function.call(arguments)
                assert self._context.toolbox is not None, "what is listed comes from the toolbox"
                return await self._context.toolbox.call(tool.name, arguments, call_id=call.id)
        except TimeoutError:
            if not scope.expired():
                raise
            return ToolResult(
                f"The tool did not answer within {self._policy.call_timeout:g} seconds.", ToolOutcome.TIMEOUT
            )

    def _keep(self, message: Message) -> None:
        self._left -= message_size(message)
        self._steps = replace(self._steps, messages=(*self._steps.messages, message))

    async def _ended(self, answer: ModelAnswer, last: bool) -> Answer:
        """Ends with an answer without calls of the gateway's tools; calls that can no longer be made are dropped."""
        calls = answer.message.tool_calls
        kept = () if last else tuple(call for call in calls if call.name in self._offer.callers)
        if len(kept) < len(calls):
            reason = answer.finish_reason if answer.finish_reason in _CUT_SHORT else FinishReason.LENGTH
            answer = replace(answer, message=replace(answer.message, tool_calls=kept), finish_reason=reason)
        await self._events.answered()
        self._steps = replace(self._steps, messages=(*self._steps.messages, answer.message))
        return self._answer(answer, ())

    def _answer(self, answer: ModelAnswer, waiting: Sequence[ToolCall]) -> Answer:
        ends_with_calls = self._steps.messages[-1].role is Role.TOOL or bool(waiting)
        reason = FinishReason.TOOL_CALLS if ends_with_calls else answer.finish_reason
        return Answer(
            messages=self._steps.messages,
            finish_reason=FinishReason.REQUIRES_APPROVAL if waiting else reason,
            usage=self._steps.usage,
            model=answer.model,
            details=answer.details,
            unavailable=merged_unavailable(self._context.steps.unavailable, self._offer.unavailable),
            awaiting=tuple(call.id for call in waiting),
            runs=(*self._runs, *[ToolRun(call.id, self._called.server(call), ToolOutcome.UNKNOWN) for call in waiting]),
            listed=self._steps.listed,
        )


async def all_or_none(running: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Runs all concurrently and returns their results in order. If one fails, the others are cancelled. None is running
    when this returns or raises.
    """
    if len(running) == 1:
        return [await running[0]]
    tasks = [asyncio.get_running_loop().create_task(one) for one in running]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(*tasks)


def cut(text: str, max_bytes: int) -> str:
    """Returns the text cut to about this many bytes, with a note at its end if it was cut."""
    if len(text) <= max_bytes // 4:
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return data.decode()
    note = f"\n[cut: the first of {len(data)} bytes]"
    return data[: max(max_bytes - len(note), 0)].decode("utf-8", "ignore") + note


def _problem_of(arguments: str) -> str | None:
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError) as error:
        return f"they are not JSON ({error})"
    return None if isinstance(given, dict) else "they are no JSON object"


def _span(call: ToolCall, server: str) -> traces.Span:
    if not traces.on():
        return traces.NO_SPAN
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": call.name,
        "gen_ai.tool.call.id": call.id,
        "gen_ai.tool.type": "function",
        "parley.tool_server": server,
    }
    return traces.span(f"execute_tool {call.name}", attributes=attributes)
