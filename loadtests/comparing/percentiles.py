"""The one way in which latencies are summed up here."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed; 0 of none.

    `ordered` is in ascending order. Nearest rank: no value is made up between two that were measured.
    """
    if not ordered:
        return 0.0
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def summary(latencies: Sequence[float]) -> dict[str, float]:
    """p50, p99 and p99.9 in seconds."""
    ordered = sorted(latencies)
    return {"p50": percentile(ordered, 0.5), "p99": percentile(ordered, 0.99), "p999": percentile(ordered, 0.999)}
