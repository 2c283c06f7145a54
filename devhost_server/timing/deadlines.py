"""Deadlines without timers: one coarse wheel per worker instead of an event-loop timer per request.

A connection has one deadline at a time and moves it with a plain assignment. The wheel visits a connection when the
earliest deadline it had asked for comes due; if the deadline has moved on by then, it is simply visited again later.
So a request that sets a deadline far behind the next visit costs one comparison, and nothing is ever cancelled.
"""

import logging
from collections.abc import Callable
from typing import Final, Protocol

_log = logging.getLogger("devhost_server.timing.deadlines")

NEVER: Final = float("inf")

# Seconds between two turns: how late a deadline may be noticed. 20 turns a second cost an idle worker 0.1 % of a core.
TICK: Final = 0.05


# A turn that is later than this is no turn that took its time: the worker was stopped, or got no core.
HELD_UP: Final = 0.25


Soon = Callable[[Callable[[], None]], object]
"""Calls what it is given at the end of this turn of the event loop: its `call_soon`."""


class Timed(Protocol):
    """What a wheel can watch. `visit` belongs to the wheel; begin with `NEVER`."""

    deadline: float
    visit: float

    def expire(self, now: float) -> None:
        """Act on a deadline that has passed. Without a new deadline, the item is not visited again."""


class LivedTime:
    """A clock that leaves out most of the time in which the event loop did not turn.

    Who sends in time to a worker that does not run is not late: what came meanwhile lies in the kernel's buffers. And
    what comes first after it is counted from the last turn, which is long ago. Of each such gap `HELD_UP` seconds
    count, so that deadlines come due however slow a loop is.
    """

    __slots__ = ("_clock", "_last", "_left_out")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()
        self._left_out = 0.0

    def __call__(self) -> float:
        """Return the time in seconds. Between a gap and the call of `turn` it is ahead: too late, never too early."""
        return self._clock() - self._left_out

    def turn(self) -> bool:
        """Note that a tick has passed, every `TICK` seconds; True if it was held up and something may wait unread."""
        now = self._clock()
        more = now - self._last - TICK - HELD_UP
        self._last = now
        if more <= 0:
            return False
        self._left_out += more
        return True


class Wheel:
    """Items by the tick in which they are visited next. The clock is `LivedTime` of the event loop's, in seconds.

    `now` is the time of the last turn plus one tick: reading it costs nothing, and a deadline counted from it is never
    early and at most two ticks late.
    """

    __slots__ = ("_last", "_slots", "clock", "now")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.now = clock() + TICK
        self._last = int(clock() / TICK)
        self._slots: dict[int, set[Timed]] = {}

    def watch(self, item: Timed) -> None:
        """See to it that `item` is visited by its deadline. Needed only if `item.deadline < item.visit`."""
        if item.deadline >= item.visit:
            return
        self.forget(item)
        tick = max(int(item.deadline / TICK), self._last) + 1
        # A little before the visit itself: a deadline that falls into the same tick need not be watched anew.
        item.visit = (tick - 1) * TICK
        self._slots.setdefault(tick, set()).add(item)

    def forget(self, item: Timed) -> None:
        """Stop visiting `item`, so that nothing keeps a closed connection in memory."""
        if item.visit != NEVER:
            slot = self._slots.get(round(item.visit / TICK) + 1)
            if slot is not None:
                slot.discard(item)
            item.visit = NEVER

    def turn(self) -> None:
        """Visit everything that is due. Called by the worker every `TICK` seconds.

        An item that fails costs only itself: it is logged, and not visited again unless it asks to be.
        """
        now = self.clock()
        self.now = now + TICK
        tick = int(now / TICK)
        while self._last < tick:
            self._last += 1
            due = self._slots.get(self._last, set())
            while due:
                item = due.pop()
                item.visit = NEVER
                try:
                    if item.deadline <= now:
                        item.expire(now)
                    if item.deadline > now:
                        self.watch(item)
                except Exception:
                    _log.exception("what is to happen at a deadline failed: %r", item)
            self._slots.pop(self._last, None)
