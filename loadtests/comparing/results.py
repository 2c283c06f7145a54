"""What a comparison leaves behind, every round of every proxy and nothing derived; and the arithmetic on it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .proxies import GATEWAY
from .works import Target

FORMAT = 1
Rounds = list[dict[str, float]]
"""Measurements, each with the number of its `round`; one that failed is missing."""


class FormatError(Exception):
    """A file that does not hold results."""


@dataclass
class CaseResult:
    """One point: rounds by proxy."""

    label: str
    x: float | None
    command: str
    variant: str
    results: dict[str, Rounds] = field(default_factory=dict)


@dataclass
class WorkResult:
    """One piece of work."""

    title: str
    unit: str
    axis: str | None
    note: str
    cases: list[CaseResult]
    skipped: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def case(self, label: str) -> CaseResult | None:
        """The case of that label."""
        return next((case for case in self.cases if case.label == label), None)


@dataclass
class Results:
    """A whole comparison."""

    made: str
    """When, as RFC 3339."""
    command: str
    revision: str
    rounds: int
    seconds: float
    machine: dict[str, Any]
    versions: dict[str, str]
    works: dict[str, WorkResult] = field(default_factory=dict)
    took: float = 0.0
    """Seconds from begin to end."""

    def save(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read the file. Raises `OSError` and `FormatError`."""
        try:
            data = json.loads(path.read_text())
            if data.pop("format") != FORMAT:
                raise FormatError(f"{path}: written by another version of this program")
            data["works"] = {name: _work(work) for name, work in data["works"].items()}
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"{path}: not results of a comparison: {error}") from error

    def figures(self) -> Iterator[tuple[str, CaseResult, str, Rounds]]:
        """Every proxy of every case of every work."""
        for name, work in self.works.items():
            for case in work.cases:
                for proxy, rounds in case.results.items():
                    yield name, case, proxy, rounds


def _work(data: dict[str, Any]) -> WorkResult:
    data["cases"] = [CaseResult(**case) for case in data["cases"]]
    return WorkResult(**data)


def median(rounds: Sequence[dict[str, float]], figure: str) -> float | None:
    """Median over rounds; None where the figure was not measured."""
    values = [measured[figure] for measured in rounds if figure in measured]
    return statistics.median(values) if values else None


def total(rounds: Sequence[dict[str, float]], figure: str) -> int:
    """Sum over rounds."""
    return round(sum(measured.get(figure, 0) for measured in rounds))


def ratio(rounds: Rounds, base: Rounds, figure: str) -> float | None:
    """Median of the ratios within a round: a round in which the machine was slow was slow for both."""
    other = {measured["round"]: measured[figure] for measured in base if measured.get(figure)}
    pairs = [
        measured[figure] / other[measured["round"]]
        for measured in rounds
        if figure in measured and measured["round"] in other
    ]
    return statistics.median(pairs) if pairs else None


@dataclass(frozen=True)
class Verdict:
    """A target beside what was measured."""

    target: Target
    measured: float | None
    """None: not measured."""

    @property
    def met(self) -> bool | None:
        """None where nothing was measured."""
        if self.measured is None:
            return None
        if self.target.at_least:
            return self.measured >= self.target.limit
        return self.measured <= self.target.limit


def verdict(target: Target, results: Results, gateway: str) -> Verdict:
    """Hold a target against the results of the gateway, or of another working tree of it."""
    work = results.works.get(target.work)
    case = work.case(target.case) if work else None
    if work is None or case is None or gateway not in case.results:
        return Verdict(target, None)
    own = case.results[gateway]
    if target.peer is None:
        return Verdict(target, median(own, target.figure))
    beside = case if target.peer_case is None else work.case(target.peer_case)
    # What is compared with itself is compared with itself.
    base = beside.results.get(gateway if target.peer == GATEWAY else target.peer) if beside else None
    return Verdict(target, ratio(own, base, target.figure) if base else None)
