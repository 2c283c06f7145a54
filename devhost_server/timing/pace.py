"""Whether a client moves a body fast enough, in either direction. Sans I/O and without a clock.

A client has some seconds of grace and earns more with every byte, up to a bound. So a pause after much was moved is
nothing, and a byte now and then is not enough; what counts is only the time in which the client is to move.
"""

from typing import Final

from devhost_server.timing.deadlines import NEVER

# Kestrel's MinRequestBodyDataRate and MinResponseDataRate: 240 bytes a second after five seconds of grace.
GRACE_SECONDS: Final = 5.0


class Pace:
    """One body. `due` is when the client will have been too slow, `until` when the whole body has to be there."""

    __slots__ = ("_lead", "_per_second", "_stopped", "due", "until")

    def __init__(self, now: float, per_second: float | None, lead: float, total: float | None = None) -> None:
        """`per_second` are bytes, None for any; `lead` is how many seconds can be earned; `total` bounds the whole."""
        self._per_second = per_second
        self._lead = max(lead, GRACE_SECONDS)
        self._stopped = 0.0
        self.due = NEVER if per_second is None else now + GRACE_SECONDS
        self.until = NEVER if total is None else now + total

    def moved(self, size: int, now: float) -> None:
        """Note that `size` bytes have moved."""
        if self._per_second is not None:
            self.due = min(self.due + size / self._per_second, now + self._lead)

    def stop(self, now: float) -> None:
        """From now on it is not the client's turn."""
        self._stopped = now

    def go(self, now: float) -> None:
        """Note that it is the client's turn again."""
        self.due += now - self._stopped
        self.until += now - self._stopped
