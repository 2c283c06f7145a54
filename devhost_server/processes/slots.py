"""The slots of the scoreboard, and the workers that have them."""

from collections.abc import Iterable

from devhost_server.processes.worker import GatewayWorker
from devhost_server.shared.board import Scoreboard, Slot, WorkerState


class Slots:
    """The rows of the workers. A worker keeps its slot until the master has reaped it."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        self.count = scoreboard.capacity.slots

    def row(self, worker: GatewayWorker) -> "memoryview[int]":
        """Return the row of a worker."""
        return self._scoreboard.row(worker.slot)

    def state(self, worker: GatewayWorker) -> int:
        """Return what a worker says of itself, a `WorkerState`."""
        return int(self.row(worker)[Slot.STATE])

    def free(self, workers: Iterable[GatewayWorker]) -> list[int]:
        """Return the slots that none of the workers has, the lowest first."""
        taken = {worker.slot for worker in workers}
        return [slot for slot in range(self.count) if slot not in taken]

    def take(self, slot: int) -> None:
        """Prepare the row of a free slot for a worker that is about to be forked."""
        row = self._scoreboard.row(slot)
        row[Slot.STATE] = WorkerState.BOOTING
        row[Slot.GENERATION] = row[Slot.REJECTED] = 0
        row[Slot.DRAIN_FINISHED] = row[Slot.DRAIN_CLOSED] = row[Slot.DRAIN_CUT] = 0
        row[Slot.RESTARTS] += 1

    def release(self, slot: int, routes: Iterable[int], targets: Iterable[int]) -> None:
        """Clear what only a living worker can have: its state, its pid and its gauges in these blocks."""
        row = self._scoreboard.row(slot)
        row[Slot.STATE] = WorkerState.EMPTY
        row[Slot.PID] = 0
        self._scoreboard.clear_gauges(slot, routes, targets)

    def mark_empty(self, workers: Iterable[GatewayWorker]) -> None:
        """Mark every free slot as empty, after a fork that failed."""
        for slot in self.free(workers):
            self._scoreboard.row(slot)[Slot.STATE] = WorkerState.EMPTY
