"""What the kernel knows about each worker: CPU time, memory, descriptors, age."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """A living process: CPU seconds used, bytes resident, descriptors open, and the Unix time of its start."""

    pid: int
    cpu: float
    resident: int
    descriptors: int
    started_at: float


def read_process(pid: int, booted_at: float) -> Process | None:
    """Read one process from /proc (proc(5)); None if it is gone. `booted_at` is the Unix time of the boot."""
    base = Path(f"/proc/{pid}")
    try:
        # The second field is the command in parentheses and may hold anything, so what follows the last one is read.
        fields = (base / "stat").read_text(errors="replace").rpartition(")")[2].split()
        pages = (base / "statm").read_text().split()[1]
        descriptors = len(os.listdir(base / "fd"))
    except OSError:
        return None
    cpu = (int(fields[11]) + int(fields[12])) / _TICK
    return Process(pid, cpu, int(pages) * _PAGE, descriptors, booted_at + int(fields[19]) / _TICK)


@dataclass(frozen=True, slots=True)
class Usage:
    """The worker of a slot, None if it is dead, and the CPU seconds of all workers that the slot has had."""

    process: Process | None
    cpu: float


class Usages:
    """Follows the workers of each slot, so that a slot's CPU time does not fall when its worker is replaced.

    What a worker used between the last reading and its death is not seen.
    """

    def __init__(self) -> None:
        # Computed once: a start time must not move with the adjustments of the clock.
        self._booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._last: dict[int, Process] = {}
        self._earlier: dict[int, float] = {}

    def read(self, pids: Mapping[int, int]) -> dict[int, Usage]:
        """Read the worker of each slot; `pids` are by slot, 0 for none. Slots seen earlier stay in the answer."""
        living = {slot: process for slot, pid in pids.items() if pid and (process := self._process(pid))}
        for slot, process in living.items():
            self._follow(slot, process)
        return {slot: Usage(living.get(slot), self._cpu(slot)) for slot in sorted(self._last)}

    def _process(self, pid: int) -> Process | None:
        return read_process(pid, self._booted_at)

    def _follow(self, slot: int, process: Process) -> None:
        last = self._last.get(slot)
        if last and (last.pid, last.started_at) != (process.pid, process.started_at):
            self._earlier[slot] = self._cpu(slot)
        self._last[slot] = process

    def _cpu(self, slot: int) -> float:
        return self._earlier.get(slot, 0.0) + self._last[slot].cpu
