"""A short run of every fuzz target; `make fuzz` is the long one."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import __main__ as long_run
from tests.fuzz.targets import TARGETS, Target

STORED, SENT, CONFIGURED = ("stored_turn",), ("sse", "jwks", "token", "filter"), ("redis_url", "postgres_url")
PAGED = ("session_page_token", "config_page_token")


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_of_foreign_bytes_answers_with_its_own_errors(name: str) -> None:
    target = TARGETS[name]
    settings(max_examples=150)(given(target.inputs)(target.check))()


def test_no_parser_that_anybody_reaches_is_left_out() -> None:
    assert set(TARGETS) >= {*STORED, *SENT, *CONFIGURED, *PAGED}


def test_the_long_run_fails_with_a_target_and_runs_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(data: bytes) -> None:
        raise KeyError("a parser's own")

    targets = {"broken": Target(st.just(b""), broken), "sound": Target(st.just(b""), lambda data: None)}
    monkeypatch.setattr(long_run, "TARGETS", targets)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--seconds", "0.01"])
    assert long_run.main() == 1
    said = capsys.readouterr().out
    assert "broken: failed" in said
    assert "a parser's own" in said
    assert "sound: " in said
    monkeypatch.setattr(sys, "argv", ["fuzz", "--seconds", "0.01", "sound"])
    assert long_run.main() == 0
