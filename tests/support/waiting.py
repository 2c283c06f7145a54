"""Waiting for a condition with a bound, instead of sleeping for luck.

Bounds are written for a machine that has little else to do. `patient` stretches them by how busy this one is, so that
a test fails because something hangs or waits for a timer, and not because a process got no turn.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 5.0, what: str = "") -> T:
    """Call `condition` until it gives something true, and give that back.

    Raises AssertionError naming `what` (or the condition) after `timeout` seconds, stretched on a busy machine. An
    AssertionError raised by the condition itself counts as "not yet" and is what the test sees if it never holds.
    """
    start = time.monotonic()
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
        if time.monotonic() - start >= patient(timeout):
            raise failure or AssertionError(f"{what or condition} did not hold within {timeout} s")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def seconds_since(start: float) -> float:
    """Seconds of the monotonic clock since `start`."""
    return time.monotonic() - start


def patient(seconds: float) -> float:
    """Stretch an upper bound by how many processes want a core at the moment and in the last minute."""
    load, _, _, now, _ = Path("/proc/loadavg").read_text().split()
    wanting = max(float(load), float(now.partition("/")[0]))
    return seconds * max(1.0, 1.5 * wanting / (os.cpu_count() or 1))
