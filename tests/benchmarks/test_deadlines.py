"""Deadlines on the wheel, beside timers of the event loop."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import pytest
import uvloop

from devhost_server.timing.deadlines import NEVER, TICK, Wheel

CONNECTIONS: Final = 1000
SECONDS: Final = 60.0


class Timed:
    """A connection, as far as the wheel knows it."""

    __slots__ = ("deadline", "expired", "visit")

    def __init__(self) -> None:
        self.deadline = NEVER
        self.visit = NEVER
        self.expired = 0

    def expire(self, now: float) -> None:
        assert now >= self.deadline
        self.deadline = NEVER
        self.expired += 1


class OnTheWheel:
    """Deadlines as connections set them; the clock is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wheel = Wheel(lambda: self.now)
        self.items = [Timed() for _ in range(CONNECTIONS)]
        self.late = Timed()

    def arm(self, item: Timed, seconds: float) -> None:
        item.deadline = self.wheel.now + seconds
        if item.deadline < item.visit:
            self.wheel.watch(item)

    def __call__(self) -> int:
        """Arm every connection, take all deadlines back but one that is due, and turn; give how many have expired."""
        before = self.late.expired
        for item in self.items:
            self.arm(item, SECONDS)
        for item in self.items:
            item.deadline = NEVER
        self.arm(self.late, 0)
        self.now += 3 * TICK
        self.wheel.turn()
        assert not any(item.expired for item in self.items[:10])
        return self.late.expired - before


class OnTheLoop:
    """The same with a timer for each deadline, cancelled when it is no longer needed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.expired = 0

    def expire(self) -> None:
        self.expired += 1

    def __call__(self) -> int:
        before = self.expired
        loop = self.loop
        handles = [loop.call_later(SECONDS, self.expire) for _ in range(CONNECTIONS)]
        for handle in handles:
            handle.cancel()
        loop.call_later(0, self.expire)
        loop.call_soon(loop.stop)
        loop.run_forever()
        return self.expired - before


@pytest.mark.benchmark(group=f"{CONNECTIONS} deadlines set and taken back")
@pytest.mark.parametrize(
    "make_loop",
    [
        pytest.param(None, id="wheel"),
        pytest.param(asyncio.new_event_loop, id="timers, asyncio"),
        pytest.param(uvloop.new_event_loop, id="timers, uvloop"),
    ],
)
def test_a_deadline_is_an_assignment(benchmark: Any, make_loop: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
    """A wheel saves making a timer for each request, and cancelling it: a request that is answered in time costs an
    assignment and a comparison.
    """
    if make_loop is None:
        assert benchmark(OnTheWheel()) == 1
        return
    with closing(make_loop()) as loop:
        assert benchmark(OnTheLoop(loop)) == 1
