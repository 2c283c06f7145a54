"""Who waits for a connection to a target: first come, first served, and not for ever."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from devhost_server.failures import Fault
from devhost_server.timing.deadlines import NEVER
from devhost_server.upstream.caller import Caller

# An event loop counts in milliseconds, and from when its turn began: a timer may be as early as this.
_TIMER_SECONDS: Final = 0.001
# How many are refused in one turn of the loop.
_REFUSALS: Final = 16


class Waiter:
    """A caller that waits for a connection, until `until` (monotonic seconds).

    `caller` is None once it no longer does. A connection that is made for it may take `patience` seconds.
    """

    __slots__ = ("caller", "patience", "until")

    def __init__(self, caller: Caller, patience: float) -> None:
        self.caller: Caller | None = caller
        self.patience = patience
        self.until = NEVER

    def leave(self) -> Caller | None:
        """Stop waiting; return who waited, None if nobody did any more."""
        caller, self.caller = self.caller, None
        return None if caller is None or caller.over else caller


class Line:
    """The waiters of one pool. Belongs to one event loop.

    `refusal` says why nobody could be served in time. `waiting` is read by the pool, which asks on every release
    whether anybody is there.
    """

    __slots__ = ("_impatient", "_patience", "_refusal", "waiting")

    def __init__(self, refusal: Callable[[], Fault]) -> None:
        self.waiting: deque[Waiter] = deque()
        # Those of them who wait for a connection that is in use. They all wait equally long: the first is the first to
        # give up, and one timer does for all.
        self._impatient: deque[Waiter] = deque()
        self._patience: asyncio.TimerHandle | None = None
        self._refusal = refusal

    def __len__(self) -> int:
        return len(self.waiting)

    def join(self, waiter: Waiter, seconds: float | None = None) -> None:
        """Put a waiter at the end, who gives up after `seconds`; None waits for the connection made for it."""
        if seconds is not None:
            waiter.until = time.monotonic() + seconds
            self._impatient.append(waiter)
            if self._patience is None:
                self._wait_until(waiter.until)
        self.waiting.append(waiter)

    def next(self) -> Caller | None:
        """Take out whoever has waited longest and still does, or None."""
        while self.waiting:
            caller = self.waiting.popleft().leave()
            if caller is not None:
                if self._impatient and self._impatient[0].caller is None:
                    self._impatient.popleft()  # it is in both lines
                return caller
        return None

    def first(self) -> Waiter | None:
        """Return the first who still waits, or None."""
        self._forget_those_who_left()
        return self.waiting[0] if self.waiting else None

    def _wait_until(self, until: float) -> None:
        seconds = max(until - time.monotonic(), 0.0) + _TIMER_SECONDS
        self._patience = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        """Refuse those who have waited long enough, and look again when the next one will have.

        A few at a time: while many are refused at a stretch, no answer would free a connection for the others.
        """
        self._patience = None
        now = time.monotonic()
        impatient = self._impatient
        refused = 0
        while impatient and refused < _REFUSALS and (impatient[0].until <= now or impatient[0].caller is None):
            caller = impatient.popleft().leave()
            if caller is not None:
                refused += 1
                caller.post(self._refusal())
        self._forget_those_who_left()
        if impatient and self._patience is None:
            self._wait_until(impatient[0].until)

    def _forget_those_who_left(self) -> None:
        for line in (self.waiting, self._impatient):
            while line and line[0].caller is None:
                line.popleft()
