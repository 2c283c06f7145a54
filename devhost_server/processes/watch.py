"""The watch over the workers: which of them have been silent for too long."""

from collections.abc import Iterable

from devhost_server.processes.liveness import Patience
from devhost_server.processes.worker import GatewayWorker
from devhost_server.shared.board import Scoreboard, Slot, WorkerState


class Watch:
    """Reads the workers' signs of life from the scoreboard. Times are monotonic seconds."""

    def __init__(self, scoreboard: Scoreboard, heartbeat: float, now: float) -> None:
        self._scoreboard = scoreboard
        self._patience = Patience(heartbeat, now)

    def look(self, now: float) -> float:
        """Note that the master is there; return the seconds for which it was not, 0.0 in an ordinary turn."""
        return self._patience.look(now)

    def silence(self, worker: GatewayWorker, now: float) -> float | None:
        """Return for how many seconds a worker has been silent if that is too long, else None."""
        last = self._last_sign(worker)
        return self._patience.silence(last, now) if self._patience.is_over(last, now) else None

    def sees_life(self, workers: Iterable[GatewayWorker], now: float) -> bool:
        """Return whether some worker that has started has given a sign of life in time."""
        return any(
            self._scoreboard.row(worker.slot)[Slot.STATE] in (WorkerState.READY, WorkerState.DRAINING)
            and not self._patience.is_over(self._last_sign(worker), now)
            for worker in workers
        )

    def _last_sign(self, worker: GatewayWorker) -> float:
        return self._scoreboard.row(worker.slot)[Slot.HEARTBEAT] / 1e6
