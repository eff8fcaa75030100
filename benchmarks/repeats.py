"""How often a measurement is repeated where the time for it has a bound."""

import time
from collections.abc import Callable, Iterator


def within(seconds: float, least: int, most: int, clock: Callable[[], float] = time.monotonic) -> Iterator[int]:
    """Yields 0, 1, … up to `most` numbers, at least `least`: none once one more would end after `seconds`.

    How long one more takes is what they took so far, on average.
    """
    began = clock()
    for number in range(most):
        spent = clock() - began
        if number >= max(least, 1) and spent + spent / number > seconds:
            return
        yield number
