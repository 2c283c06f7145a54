"""What measuring costs by itself."""

from typing import Any

import pytest


def nothing() -> None:
    pass


@pytest.mark.benchmark(group="floor")
def test_a_call_that_does_nothing(benchmark: Any) -> None:
    """Saves nothing: every other row holds this too, and in the smallest ones it is most of what is seen."""
    assert benchmark(nothing) is None
