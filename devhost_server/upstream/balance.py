"""Which target is next: smooth weighted round robin, without I/O."""

from collections.abc import Container, Sequence
from typing import Generic, Protocol, TypeVar


class Weighted(Protocol):
    """What can be balanced."""

    weight: int


W = TypeVar("W", bound=Weighted)


class RoundRobin(Generic[W]):
    """Smooth weighted round robin, the algorithm nginx uses.

    Each pick raises every candidate's credit by its weight, takes the one with most credit and charges it the sum of
    the weights. Over any run of picks each candidate gets its share, and a heavy one is spread instead of bunched. With
    equal weights that is taking turns, which is done without the sums: it costs the same for any number of targets.
    """

    __slots__ = ("_credit", "_equal", "_next", "_targets")

    def __init__(self, targets: Sequence[W], start: int = 0) -> None:
        """`start` rotates the first pick, so that several workers do not all begin with the same target."""
        shift = start % len(targets)
        self._targets = (*targets[shift:], *targets[:shift])
        self._credit = [0] * len(self._targets)
        self._equal = len({target.weight for target in targets}) == 1
        self._next = 0

    def pick(self, barred: Container[W] = ()) -> W | None:
        """Return the next target that is not `barred`, None if all are."""
        return self._take_turns(barred) if self._equal else self._spend_credit(barred)

    def _take_turns(self, barred: Container[W]) -> W | None:
        for _ in self._targets:
            target = self._targets[self._next]
            self._next = (self._next + 1) % len(self._targets)
            if target not in barred:
                return target
        return None

    def _spend_credit(self, barred: Container[W]) -> W | None:
        best, total = -1, 0
        for index, target in enumerate(self._targets):
            if target in barred:
                continue
            total += target.weight
            self._credit[index] += target.weight
            if best < 0 or self._credit[index] > self._credit[best]:
                best = index
        if best < 0:
            return None
        self._credit[best] -= total
        return self._targets[best]
