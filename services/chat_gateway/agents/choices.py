"""Several answers to one prompt by concurrent model calls, so that every kind of provider supports them."""

import asyncio
from dataclasses import replace

from chat_gateway.model.turn import Answer, Delta, OnDelta, OtherAnswer
from chat_gateway.model.usage import added
from chat_gateway.providers.provider import ModelAnswer, ModelCall, Provider
from servicekit.supervision import cancel_and_wait


async def several_answers(provider: Provider, call: ModelCall, count: int, on_delta: OnDelta | None) -> Answer:
    """Returns `count` answers to the call, with the sum of their tokens. The first error cancels the others and is
    raised. Pieces of all answers reach `on_delta` one at a time, with the number of their answer.
    """
    turn = asyncio.Lock()

    async def one(number: int) -> ModelAnswer:
        async def numbered(delta: Delta) -> None:
            async with turn:
                await on_delta(replace(delta, choice=number) if number else delta)  # type: ignore[misc]

        return await provider.complete(call, None if on_delta is None else numbered)

    tasks = [asyncio.create_task(one(number), name=f"answer {number}") for number in range(count)]
    try:
        first, *others = await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(*tasks)
    usage = first.usage
    for other in others:
        usage = added(usage, other.usage)
    return Answer(
        (first.message,),
        first.finish_reason,
        usage,
        first.model,
        first.details,
        others=tuple(OtherAnswer(other.message, other.finish_reason, other.details) for other in others),
    )
