"""Rounds: every proxy in turn, again and again, so that what the machine does meanwhile meets all of them alike."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from .lab import Contender, Lab
from .loads import Occasion, Peaks, rounded, with_memory
from .machine import Cores
from .proxies import Proxy, UnavailableError, Variant
from .results import CaseResult, WorkResult
from .works import Case, Work
from .wrk import LoadError

Say = Callable[[str], None]
_WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure."""

    rounds: int
    seconds: float
    cores: Cores
    say: Say


def measure(work: Work, proxies: Iterable[Proxy], plan: Plan) -> WorkResult:
    """Measure one piece of work. What cannot take part is noted with its reason; raises `LabError`."""
    result = WorkResult(
        title=work.title,
        unit=work.unit,
        axis=work.axis,
        note=work.note,
        cases=[
            CaseResult(case.label, case.x, case.load.described(_seconds(work, case, plan)), case.variant.label)
            for case in work.cases
        ],
    )
    rounds = min(plan.rounds, work.rounds or plan.rounds)
    present = [proxy for proxy in proxies if _takes_part(proxy, result)]
    batches = [range(number, number + 1) for number in range(rounds)] if work.fresh else [range(rounds)]
    for batch in batches:
        with Lab(plan.cores, echoes=work.echoes) as lab:
            entered = _enter(lab, work, present, result)
            _run(work, entered, result, plan, batch)
    return result


def _seconds(work: Work, case: Case, plan: Plan) -> float:
    return plan.seconds * work.weight * case.weight


def _takes_part(proxy: Proxy, result: WorkResult) -> bool:
    try:
        proxy.executable()
    except UnavailableError as error:
        result.skipped[proxy.name] = str(error)
        return False
    return True


Entry = tuple[int, Case, Contender]


def _enter(lab: Lab, work: Work, proxies: Sequence[Proxy], result: WorkResult) -> list[Entry]:
    """Start each proxy once for each variant; give it once for each case."""
    running: dict[tuple[str, Variant], Contender] = {}
    entries: list[Entry] = []
    for index, case in enumerate(work.cases):
        for proxy in proxies:
            key = (proxy.name, case.variant)
            try:
                if key not in running:
                    running[key] = lab.enter(proxy, case.variant)
            except UnavailableError as error:
                result.skipped[f"{proxy.name} {case.label}".strip()] = str(error)
            else:
                entries.append((index, case, running[key]))
    failed = lab.ready()
    result.failures += failed.values()
    return [entry for entry in entries if entry[2].process.pid not in failed]


def _run(work: Work, entries: Sequence[Entry], result: WorkResult, plan: Plan, numbers: range) -> None:
    peaks: Peaks = {}
    if not work.fresh:
        _warm_up(entries, peaks, plan)
    for number in numbers:
        for index, case, contender in turned(entries, number):
            plan.say(f"{work.name} {case.label} round {number + 1}: {contender.name}")
            occasion = Occasion(contender, plan.cores.load, _seconds(work, case, plan), number, peaks)
            with _noted(result, contender.name, case):
                measured = with_memory(case.load.measure(occasion), contender)
                result.cases[index].results.setdefault(contender.name, []).append(
                    {"round": number, **rounded(measured)}
                )


def _warm_up(entries: Sequence[Entry], peaks: Peaks, plan: Plan) -> None:
    """Let each proxy open its connections and get going; what it fails at will show in the rounds."""
    seen: set[int] = set()
    for _, case, contender in entries:
        if contender.process.pid not in seen:
            seen.add(contender.process.pid)
            plan.say(f"warming up {contender.name}")
            with contextlib.suppress(LoadError):
                case.load.measure(Occasion(contender, plan.cores.load, _WARM_UP_SECONDS, 0, peaks))


@contextlib.contextmanager
def _noted(result: WorkResult, name: str, case: Case) -> Iterator[None]:
    try:
        yield
    except LoadError as error:
        result.failures.append(f"{name} {case.label}: {error}".replace(" :", ":"))


def turned(entries: Sequence[Entry], number: int) -> list[Entry]:
    """Begin each round with another one, so that nobody always comes after the same neighbour."""
    at = number % len(entries) if entries else 0
    return [*entries[at:], *entries[:at]]
