import pytest
from structlog.testing import capture_logs

from servicekit import logs
from servicekit.interceptors import CallLog

METHOD = "parley.test.v1.TestService/Echo"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr(logs, "time", stopped)
    return stopped


def test_so_many_calls_a_second_have_a_line_and_the_next_line_counts_the_others(clock: Clock) -> None:
    tell = CallLog(max_lines=3).of(METHOD)
    with capture_logs() as lines:
        for _ in range(10):
            tell("OK", None, 0.001)
        clock.now += 1
        tell("OK", None, 0.001)
        tell("OK", None, 0.001)
    assert [line.get("left_out") for line in lines] == [None, None, None, 7, None]
    assert all(line["method"] == METHOD and line["code"] == "OK" and line["ms"] == 1.0 for line in lines)


def test_each_method_has_its_own_lines(clock: Clock) -> None:
    log = CallLog(max_lines=1)
    with capture_logs() as lines:
        for method in ("a.S/One", "a.S/Two"):
            tell = log.of(method)
            tell("OK", None, 0.001)
            tell("OK", None, 0.001)
    assert [line["method"] for line in lines] == ["a.S/One", "a.S/Two"]


@pytest.mark.parametrize(("code", "level"), [("ABORTED", "info"), ("INTERNAL", "error")])
def test_calls_that_end_in_another_way_have_lines_of_their_own(clock: Clock, code: str, level: str) -> None:
    tell = CallLog(max_lines=1).of(METHOD)
    with capture_logs() as lines:
        for _ in range(3):
            tell("OK", None, 0.001)
            tell(code, "SOME_REASON", 0.001)
        clock.now += 1
        tell(code, "SOME_REASON", 0.001)
    failed = [line for line in lines if line["code"] == code]
    assert [(line["log_level"], line["reason"]) for line in failed] == [(level, "SOME_REASON")] * 2
    assert [line.get("left_out") for line in failed] == [None, 2]
