"""Signs of life: how long the master waits for one of a worker, and when it owes the service manager its own.

Plain decisions; the clock (monotonic, in seconds) and the environment are passed in.
"""

from collections.abc import Mapping
from typing import Final, Self

# A master that was not there for this share of the patience was stopped itself: `docker pause`, Ctrl-Z, a debugger.
_GAP: Final = 1 / 4
# At least: the loop's own wait is half a second.
_SHORTEST_GAP: Final = 1.0


class Patience:
    """How long workers may be silent. Silence counts only while the master was there to hear them."""

    def __init__(self, seconds: float, now: float) -> None:
        self.seconds = seconds
        self._gap = max(seconds * _GAP, _SHORTEST_GAP)
        self._looked = self._listening_since = now

    def look(self, now: float) -> float:
        """Note that the master is there; return the seconds for which it was not, 0.0 in an ordinary turn."""
        gap = now - self._looked
        self._looked = now
        if gap < self._gap:
            return 0.0
        # Whatever stopped the master has most likely stopped the workers too: they get the whole time again.
        self._listening_since = now
        return gap

    def silence(self, last_sign: float, now: float) -> float:
        """Return for how long a worker has been silent whose last sign of life came at `last_sign`."""
        return now - max(last_sign, self._listening_since)

    def is_over(self, last_sign: float, now: float) -> bool:
        """Return whether that is too long."""
        return self.silence(last_sign, now) > self.seconds


class Watchdog:
    """When the service manager is to be told that the gateway lives (sd_watchdog_enabled(3)).

    It is told twice in the time it allows, as systemd recommends.
    """

    def __init__(self, allowed: float, now: float) -> None:
        self.interval = allowed / 2
        self._due = now

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int, now: float) -> Self | None:
        """Return the watchdog that the environment of process `pid` asks for, None if it asks for none."""
        allowed = environ.get("WATCHDOG_USEC", "")
        if not (allowed.isascii() and allowed.isdigit() and int(allowed)):
            return None
        return cls(int(allowed) / 1e6, now) if environ.get("WATCHDOG_PID", str(pid)) == str(pid) else None

    def is_due(self, now: float) -> bool:
        """Return whether it is time for the next sign; it then counts as given."""
        if now < self._due:
            return False
        self._due = now + self.interval
        return True
