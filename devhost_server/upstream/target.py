"""A target: one server of an upstream as the balancer, the log and the board know it."""

import time
from urllib.parse import urlsplit

from devhost_server.failures import OUT_OF_PORTS, Fault
from devhost_server.shared.board import TargetCell
from devhost_server.timing.deadlines import Wheel
from devhost_server.upstream.backoff import Backoff
from devhost_server.upstream.dialler import Dialler
from devhost_server.upstream.options import PoolOptions, TargetOptions, UpstreamTimeouts
from devhost_server.upstream.pool import Pool


class Target:
    """One server: who it is, what is counted of it, and whether it is left alone. Its connections are its `pool`."""

    def __init__(
        self,
        upstream: str,
        options: TargetOptions,
        pool: PoolOptions,
        timeouts: UpstreamTimeouts,
        wheel: Wheel,
        row: memoryview,
        cell: int,
        backoff: "Backoff[Target]",
    ) -> None:
        self.url = options.url
        self.weight = options.weight
        self.timeouts = timeouts
        self.row = row
        self.cell = cell  # of its block on the board
        self.code_cells: dict[int, int] = {}
        self._wheel = wheel
        self._backoff = backoff
        dialler = Dialler(options)
        self.port = dialler.port
        parts = urlsplit(options.url)
        is_unix = parts.scheme == "unix"
        self.base_path = b"" if is_unix else parts.path.rstrip("/").encode()
        self.authority = b"localhost" if is_unix else parts.netloc.encode()
        self.pool = Pool(dialler, pool, timeouts, wheel, self)
        self._upstream = upstream.encode()
        self._show_address()

    def __repr__(self) -> str:
        return f"<Target {self.url} {self.pool!r}>"

    def _show_address(self) -> None:
        """Note where the target is reached, for whoever reads a log or an error page."""
        self.address = self.pool.address
        self.log_place = b'"upstream":"%b","target_addr":"%b",' % (self._upstream, self.address.encode())

    # -- what the pool tells ------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """Note that the server can be connected to."""
        if self.address != self.pool.address:
            self._show_address()
        self._backoff.connected(self)
        self.row[self.cell + TargetCell.FAILING_SINCE] = 0

    def slow(self) -> None:
        """Leave the server alone for a moment: it has not accepted a connection for a second."""
        self._backoff.failed(self, self._wheel.now)

    def failed(self, fault: Fault, *, probed: bool) -> None:
        """Note why a connection could not be made, unless what was missing was ours."""
        ours = fault.failure is OUT_OF_PORTS
        if not ours or probed:  # a probe reports whatever came of it
            self._backoff.failed(self, self._wheel.now)
        since = self.cell + TargetCell.FAILING_SINCE
        if not self.row[since] and not ours:
            self.row[since] = time.time_ns() // 1000

    def write_gauges(self) -> None:
        """Put the state of the pool on the board."""
        row, cell, pool = self.row, self.cell, self.pool
        row[cell + TargetCell.ACTIVE] = pool.active
        row[cell + TargetCell.IDLE] = pool.idle
        row[cell + TargetCell.CONNECTING] = pool.dialling
