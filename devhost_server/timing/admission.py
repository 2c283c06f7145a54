"""How many requests are begun in one turn of the event loop.

A turn reads from every socket that is readable before it looks at any again. With two thousand clients and no bound,
each turn would begin two thousand requests while the answers to those of the last one wait: every connection to the
targets stands idle meanwhile, requests run out of time in the line for one, and what the first request of a turn put
into the processor's caches is gone when its answer comes. So a turn begins a few and leaves the others, unread but for
their bytes, in line for the next; an answer is always worked on in the turn in which it comes.
"""

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from devhost_server.timing.deadlines import Soon

# With 128, two thousand clients make turns too long for a pool of 64 and 50 ms. From 32 down nothing changes any more,
# and a few dozen clients hardly ever stand in line.
PER_TURN: Final = 32


class Standing(Protocol):
    """Who can stand in line."""

    def take_turn(self) -> None:
        """Begin what stood in line."""


class Admission:
    """The line of one worker. `room` is how many more requests may begin in this turn; whoever begins one takes it."""

    __slots__ = ("_line", "_scheduled", "_soon", "room")

    def __init__(self, soon: "Soon") -> None:
        self.room = PER_TURN
        self._soon = soon
        self._line: deque[Standing] = deque()
        self._scheduled = False

    def join(self, client: Standing) -> None:
        """Let a client whose next request has come begin it in a later turn."""
        self._line.append(client)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        self._soon(self._turn)

    def _turn(self) -> None:
        line = self._line
        self._scheduled = False
        self.room = PER_TURN
        try:
            while line and self.room > 0:
                line.popleft().take_turn()
        finally:
            if line:
                self._schedule()
