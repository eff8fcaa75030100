"""A provider that answers, fails or streams as a test says, call by call."""

import asyncio

from chat_gateway.model.turn import AnswerDetails, Delta, FinishReason, Message, OnDelta, Sampling, Usage
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from contract.enums import Role

CALL = ModelCall("m", [Message(Role.USER, "hi")], Sampling())


def withheld() -> ModelAnswer:
    return ModelAnswer(Message(Role.ASSISTANT), FinishReason.CONTENT_FILTER, Usage(5, 0), "m")


class ScriptedProvider:
    """Does the next step of each call: an error is raised (a list: after its pieces), an answer given."""

    def __init__(self, name: str, *steps: BaseException | ModelAnswer | list[str | BaseException]) -> None:
        self.name = name
        self.calls: list[ModelCall] = []
        self.gate: asyncio.Event | None = None
        self._steps = list(steps)

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        self.calls.append(call)
        if self.gate is not None:
            await self.gate.wait()
        step = self._steps.pop(0) if self._steps else [self.name]
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, ModelAnswer):
            return step
        text = ""
        for piece in step:
            if isinstance(piece, BaseException):
                raise piece
            text += piece
            if on_delta is not None:
                await on_delta(Delta(piece))
        details = AnswerDetails(provider=self.name)
        return ModelAnswer(Message(Role.ASSISTANT, text), FinishReason.STOP, Usage(3, 2), call.model, details)
