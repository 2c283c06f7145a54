"""Waiting for a condition with a bound, instead of sleeping for luck."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 5.0, what: str = "") -> T:
    """Call `condition` until it gives something true, and give that back.

    Raises AssertionError naming `what` (or the condition) after `timeout` seconds. An AssertionError raised by the
    condition itself counts as "not yet" and is what the test sees if it never holds.
    """
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        failure: AssertionError | None = None
        try:
            value = condition()
        except AssertionError as error:
            failure = error
        else:
            if value:
                return value
        if time.monotonic() >= deadline:
            raise failure or AssertionError(f"{what or condition} did not hold within {timeout} s")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def seconds_since(start: float) -> float:
    """Seconds of the monotonic clock since `start`."""
    return time.monotonic() - start
