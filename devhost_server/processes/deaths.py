"""Deaths of workers: how they ended, how often and why, and when the next one is started."""

import logging
import os
import signal
from dataclasses import dataclass
from typing import Final, Self

from devhost_server.processes.companions import Backoff
from devhost_server.processes.drain import receipt
from devhost_server.processes.worker import GatewayWorker
from devhost_server.shared.board import RESTART_REASONS, Board, Slot, WorkerState

_log = logging.getLogger("devhost_server.processes.master")

# A worker that dies younger than that (seconds) is not replaced at once but after a while, each time a longer one.
_YOUNG_WORKER: Final = 1.0
# Workers that fail to boot before one has ever been ready: after so many the configuration or the machine is at fault.
_BOOT_FAILURES_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended, and what its row of the scoreboard said then. `age` is in seconds."""

    worker: str
    how: str
    failed: bool
    reason: str  # one of `RESTART_REASONS`
    age: float
    finished: int
    closed: int
    cut: int
    in_flight: int

    @classmethod
    def of(cls, worker: GatewayWorker, status: int, row: "memoryview[int]", now: float) -> Self:
        """Return the death of a worker with a wait status, as long as its row is as the worker left it."""
        return cls(
            worker=f"worker {worker.slot} (pid {worker.pid})",
            how=how_it_ended(status),
            failed=bool(status),
            reason=_reason(worker, status, row),
            age=now - worker.born,
            finished=row[Slot.DRAIN_FINISHED],
            closed=row[Slot.DRAIN_CLOSED],
            cut=row[Slot.DRAIN_CUT],
            in_flight=row[Slot.IN_FLIGHT],
        )


def how_it_ended(status: int) -> str:
    """Return the end of a process as the rest of a sentence, from its wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hint = " (out of memory?)" if number == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(number).name}{hint}"
    return f"exited with code {os.WEXITSTATUS(status)}"


def _reason(worker: GatewayWorker, status: int, row: "memoryview[int]") -> str:
    left = row[Slot.STATE] == WorkerState.DRAINING and not status
    if left or worker.retiring:
        return "retired"
    if worker.aborted:
        return "heartbeat"
    if row[Slot.STATE] == WorkerState.BOOTING or not row[Slot.GENERATION]:
        return "boot"
    return "killed" if os.WIFSIGNALED(status) else "exited"


class Replacements:
    """When dead workers are replaced, and whether that is hopeless. Times are monotonic seconds."""

    def __init__(self, board: "memoryview[int]") -> None:
        self._board = board
        self._backoff = Backoff(_YOUNG_WORKER)
        self._boot_failures = 0
        self._ready_once = False

    @property
    def hopeless(self) -> bool:
        """Return whether so many workers could not boot that none ever will."""
        return self._boot_failures >= _BOOT_FAILURES_MAX and not self._ready_once

    def is_due(self, now: float) -> bool:
        """Return whether a missing worker may be started now."""
        return now >= self._backoff.due

    def was_ready(self) -> None:
        """Note that a worker has been ready: that later ones fail to boot is not the end."""
        self._ready_once = True

    def could_not_start(self, now: float) -> None:
        """Note that a worker could not be forked."""
        self._backoff.died(now, 0.0)

    def died(self, death: Death, now: float) -> None:
        """Count and log a death, and set the time of the replacement."""
        self._board[Board.RESTARTS + RESTART_REASONS.index(death.reason)] += 1
        if death.reason == "retired":
            _log.info("%s has left: %s", death.worker, receipt(death.finished, death.closed, death.cut))
        elif death.reason == "boot":
            _log.error("%s %s before it was ready", death.worker, death.how)
            self._boot_failed()
            self._backoff.died(now, 0.0)
        else:
            _log.error("%s %s; replacing it", death.worker, death.how)
            self._backoff.died(now, death.age)

    def _boot_failed(self) -> None:
        self._boot_failures += 1
        if self.hopeless:
            _log.error("no worker could start after %d attempts: giving up", self._boot_failures)
