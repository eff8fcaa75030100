"""What an agent instance takes is measured on the template that is shipped."""

import pytest
from benchmarks.instances import bytes_per_instance


@pytest.mark.slow
def test_an_instance_takes_some_kilobytes() -> None:
    assert 500 < bytes_per_instance(50) < 100_000
