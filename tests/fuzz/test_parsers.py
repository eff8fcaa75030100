"""A short run of every fuzz target; `make fuzz` is the long one."""

import pytest
from hypothesis import given, settings

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_of_foreign_bytes_answers_with_its_own_errors(name: str) -> None:
    target = TARGETS[name]
    settings(max_examples=150)(given(target.inputs)(target.check))()
