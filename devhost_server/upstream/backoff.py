"""Which targets of an upstream are left alone for a moment, because they could not be connected to.

Sans I/O; the caller passes the time in. It is a first step towards health: what one worker met, forgotten at the first
connection that succeeds.
"""

from collections.abc import Container, Iterator
from typing import Final, Generic, TypeVar

from devhost_server.timing.deadlines import NEVER

# nginx leaves a failing server alone for 10 s (fail_timeout). Beginning with one second, a restart costs little.
FIRST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 10.0

T = TypeVar("T")


class _Rest:
    """How long a target is left alone; `until` is `NEVER` while a probe of it is under way."""

    __slots__ = ("seconds", "until")

    def __init__(self, until: float) -> None:
        self.seconds = FIRST_SECONDS
        self.until = until


class Backoff(Generic[T]):
    """The targets that are left alone, the one whose last failure is longest ago first."""

    __slots__ = ("_resting",)

    def __init__(self) -> None:
        self._resting: dict[T, _Rest] = {}

    def __repr__(self) -> str:
        return f"<Backoff {list(self._resting)}>"

    def __bool__(self) -> bool:
        return bool(self._resting)

    def __contains__(self, target: T) -> bool:
        return target in self._resting  # compiled code does not fall back on iterating

    def __iter__(self) -> Iterator[T]:
        return iter(self._resting)

    def failed(self, target: T, now: float) -> None:
        """Note that connecting to `target` failed.

        The time it rests doubles when it was over; connections that were being made meanwhile do not add to it.
        """
        rest = self._resting.pop(target, None)
        if rest is None:
            rest = _Rest(now + FIRST_SECONDS)
        elif rest.until == NEVER or rest.until <= now:
            rest.seconds = min(2 * rest.seconds, LONGEST_SECONDS)
            rest.until = now + rest.seconds
        self._resting[target] = rest

    def connected(self, target: T) -> None:
        """Note that `target` accepted a connection."""
        self._resting.pop(target, None)

    def due(self, now: float) -> list[T]:
        """Return the targets to probe, each once; the caller reports the outcome as `failed` or `connected`."""
        due = [target for target, rest in self._resting.items() if rest.until <= now]
        for target in due:
            self._resting[target].until = NEVER
        return due

    def longest_ago(self, tried: Container[T]) -> T | None:
        """Return the target whose failure is longest ago and that is not among `tried`, None if there is none."""
        return next((target for target in self._resting if target not in tried), None)
