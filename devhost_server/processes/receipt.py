"""What a drain has finished, closed and cut, and whether it was clean."""

import logging

from devhost_server.processes.deaths import Death
from devhost_server.processes.drain import receipt

_log = logging.getLogger("devhost_server.processes.master")


class Receipt:
    """The sums of a drain, over all workers that have ended in it."""

    def __init__(self) -> None:
        self._finished = 0
        self._closed = 0
        self._cut = 0
        self._hurried = False

    def __str__(self) -> str:
        return receipt(self._finished, self._closed, self._cut)

    @property
    def clean(self) -> bool:
        """Return whether nothing was cut, and nothing might have been."""
        return not (self._cut or self._hurried)

    def hurry(self) -> None:
        """Note that a second signal has ended the drain before it was over."""
        self._hurried = True

    def count(self, death: Death) -> None:
        """Add what a worker did in the drain. What it had in flight is lost if it ended by a failure."""
        self._finished += death.finished
        self._closed += death.closed
        self._cut += death.cut
        if death.failed:
            _log.error("%s %s during the drain", death.worker, death.how)
            self._cut += max(death.in_flight, 1)
