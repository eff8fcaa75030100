import pytest
from benchmarks.repeats import within


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("each", "repeats"),
    [
        pytest.param(45.0, 7, id="a quiet machine: all of them"),
        pytest.param(60.0, 5, id="no more than fit"),
        pytest.param(68.0, 5, id="one that just fits"),
        pytest.param(200.0, 4, id="never fewer than the least"),
    ],
)
def test_repeats_end_with_their_time_but_not_before_the_least(each: float, repeats: int) -> None:
    clock = Clock()
    done = 0
    for _ in within(340.0, least=4, most=7, clock=clock):
        clock.now += each
        done += 1
    assert done == repeats
