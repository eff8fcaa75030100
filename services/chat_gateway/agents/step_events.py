"""The events of a running turn with tools: pieces of its answer, and the gateway's actions."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

from chat_gateway.agents.toolbox import Steps, StepSink
from chat_gateway.model.answers import STEP_BREAK
from chat_gateway.model.journal import StepCalled
from chat_gateway.model.tools import (
    CalledTool,
    CallFinished,
    CallStarted,
    StepFinished,
    ToolActivity,
    ToolResult,
    ToolsUnavailable,
)
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import Delta, Message, OnDelta, ProviderData, ToolCall, ToolCallDelta
from chat_gateway.model.usage import NO_USAGE, Usage, added


class StepEvents:
    """Passes events to the turn's sink, then to its caller, one at a time.

    The pieces of all steps together are the answer that `model.answers.visible` makes of the steps' messages: their
    texts with a break between two, and of the calls those that are the caller's to run.
    """

    def __init__(
        self,
        on_delta: OnDelta | None,
        sink: StepSink | None,
        callers: Collection[str],
        steps: Steps,
        unavailable: tuple[ToolsUnavailable, ...] = (),
        handed_to: tuple[str, ...] = (),
        spent: Usage = NO_USAGE,
    ) -> None:
        self._on_delta = on_delta
        self._sink = sink
        self._callers = callers
        self._unavailable = unavailable
        """The tools that this gateway is without: recorded once."""
        self._handed_to = handed_to
        self._spent = spent
        """Tokens of the agents that handed over, which make no choice again where the turn is taken over."""
        self._one_at_a_time = asyncio.Lock()
        texts = [message for message in steps.messages if not message.tool_call_id]
        self._said = {
            "content": any(message.content for message in texts),
            "refusal": any(message.refusal for message in texts),
            "reasoning": any(message.reasoning for message in texts),
        }
        self._step: _StepPieces | None = None
        self._last_end: CallFinished | None = None
        """The end of a step's last call, which the sink may write together with the step's end."""

    def of_step(self, *, shows_calls: bool) -> OnDelta | None:
        """Returns the callback for pieces of the next model call; None without a listener."""
        if self._on_delta is None:
            return None
        if self._step is not None:
            self._said = {name: said or name in self._step.said for name, said in self._said.items()}
        self._step = _StepPieces(self._on_delta, self._callers if shows_calls else (), self._said)
        return self._step

    async def listed(self, event: ToolsListed) -> None:
        """The model is offered these tools."""
        if self._sink is not None:
            await self._sink.tools_listed(event)
        await self._pass_on(event)

    async def answered(self) -> None:
        """The step was the last: passes on the rest of the answer."""
        if self._step is not None:
            await self._step.finish()

    async def started(self, step: int, call: ToolCall, server: str) -> None:
        """A call is about to be made."""
        if self._sink is None and self._on_delta is None:
            return
        event = CallStarted(step, call.id, call.name, call.arguments, server)
        async with self._one_at_a_time:
            if self._sink is not None:
                await self._sink.call_started(replace(event, unavailable=self._first_unavailable()))
            await self._pass_on(event)

    async def ended(
        self,
        step: int,
        call: ToolCall,
        server: str,
        found: ToolResult,
        seconds: float,
        result: Message,
        *,
        ends_step: bool,
    ) -> None:
        """A call has a result; with `ends_step`, `finished` follows at once."""
        if self._sink is None and self._on_delta is None:
            return
        event = CallFinished(step, call.id, call.name, server, found.outcome, seconds, result.content, found.usage)
        async with self._one_at_a_time:
            if self._sink is not None:
                await self._sink.call_finished(event, result, ends_step=ends_step)
            if ends_step:
                self._last_end = event
            else:
                await self._pass_on(event)

    async def called(self, step: int, message: Message, usage: Usage, tools: tuple[CalledTool, ...]) -> None:
        """The model has requested calls, of these tools."""
        if self._sink is not None:
            await self._sink.step_called(
                StepCalled(step, message, added(self._spent, usage), tools, self._first_unavailable(), self._handed_to)
            )

    async def finished(self, steps: Steps) -> None:
        """All calls of a step have their results, and another step follows."""
        if self._sink is not None:
            await self._sink.step_finished(replace(steps, usage=added(self._spent, steps.usage)))
        if self._last_end is not None:
            ended, self._last_end = self._last_end, None
            await self._pass_on(ended)
        await self._pass_on(StepFinished(steps.count, steps.usage))

    def _first_unavailable(self) -> tuple[ToolsUnavailable, ...]:
        unavailable, self._unavailable = self._unavailable, ()
        return unavailable

    async def _pass_on(self, activity: ToolActivity) -> None:
        if self._on_delta is not None:
            await self._on_delta(Delta(activity=activity))


class _StepPieces:
    """An `OnDelta` for one model call that drops what the caller does not see."""

    __slots__ = ("_before", "_callers", "_indexes", "_kept", "_on_delta", "said")

    def __init__(self, on_delta: OnDelta, callers: Collection[str], before: dict[str, bool]) -> None:
        self._on_delta = on_delta
        self._callers = callers
        self._before = before
        self._indexes: dict[int, int | None] = {}
        """The index of each call of the step among those that the caller sees; None for the gateway's."""
        self._kept: ProviderData | None = None
        self.said: set[str] = set()

    async def __call__(self, delta: Delta) -> None:
        calls = delta.tool_calls
        if calls:
            delta = replace(delta, tool_calls=tuple(shown for one in calls if (shown := self._shown(one))))
        if delta.provider_data is not None:
            # It belongs to the answer's message, and only its end shows whether this step is the answer.
            self._kept, delta = delta.provider_data, replace(delta, provider_data=None)
        for name, before in self._before.items():
            if (text := getattr(delta, name)) and name not in self.said:
                self.said.add(name)
                if before:
                    delta = replace(delta, **{name: STEP_BREAK + text})
        if delta != _NOTHING:
            await self._on_delta(delta)

    async def finish(self) -> None:
        if self._kept is not None:
            await self._on_delta(Delta(provider_data=self._kept))

    def _shown(self, delta: ToolCallDelta) -> ToolCallDelta | None:
        if delta.index not in self._indexes:
            places = sum(place is not None for place in self._indexes.values())
            self._indexes[delta.index] = places if delta.name in self._callers else None
        place = self._indexes[delta.index]
        return None if place is None else replace(delta, index=place)


_NOTHING = Delta()
