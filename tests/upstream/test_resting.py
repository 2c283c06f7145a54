"""How long connections rest, by a clock of the test's own."""

from typing import Any

import pytest

from devhost_server.upstream.resting import REST_SECONDS, Resting


class Double:
    def __init__(self, head_seconds: float) -> None:
        self.head_seconds = head_seconds


def connection(head_seconds: float = 0.0) -> Any:
    """What is looked at of a connection."""
    return Double(head_seconds)


def test_the_one_that_came_first_is_the_first_that_may_go() -> None:
    resting = Resting()
    one, other = connection(), connection()
    resting.add(one, 10.0)
    resting.add(other, 10.01)
    assert resting.take(10.0 + REST_SECONDS / 2) is None
    assert resting.take(10.02 + REST_SECONDS) is one
    assert resting.take(10.02 + REST_SECONDS) is other
    assert resting.take(100.0) is None


@pytest.mark.parametrize(("took", "rests"), [(0.0, REST_SECONDS), (0.3, 0.3), (20.0, 1.0)])
def test_a_slow_server_is_given_longer(took: float, rests: float) -> None:
    resting = Resting()
    resting.add(connection(took), 10.0)
    assert resting.take(10.0 + rests - 0.001) is None
    assert resting.take(10.0 + rests + 0.001) is not None


def test_what_is_closed_is_forgotten() -> None:
    resting = Resting()
    one, other = connection(), connection()
    resting.add(one, 10.0)
    resting.add(other, 10.0)
    resting.forget(one)
    resting.forget(one)
    assert len(resting) == 1
    assert resting.take_first() is other
    assert resting.take_first() is None
