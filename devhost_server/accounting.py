"""What is counted and logged of exchanges: the cells of one worker's row, and its access log.

Plain additions to memory that the control process reads (see `devhost_server.shared.board`). Where the cells of a
route or target lie is known from the configuration; which of them a method and status go to is remembered.

The exchanges that end in one turn of the event loop are entered together at its end, when what was written in it is
sent too. A dozen entries in one loop cost half of what they cost each between two pieces of traffic, which push this
code out of the processor's caches: together that is a tenth of what an exchange costs.
"""

import time
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Final

from devhost_server.failures import FLAGS, UPSTREAM_PROTOCOL
from devhost_server.observe.access_log import AccessLog
from devhost_server.shared.board import (
    BUCKETS,
    HISTOGRAM_CELLS,
    METHOD_INDEX,
    RETRY_REASONS,
    ROUTE_CODES,
    TARGET_CODES,
    RouteCell,
    TargetCell,
    UpstreamCell,
    code_cell,
    code_key,
    observe,
)

if TYPE_CHECKING:
    from devhost_server.exchange import Exchange
    from devhost_server.route import Route
    from devhost_server.timing.deadlines import Soon
    from devhost_server.upstream.target import Target
    from devhost_server.upstream.upstream import Upstream

# Plain integers: arithmetic on enumeration members costs ten times as much, and this is done for every request.
_REQUEST_BYTES: Final = int(RouteCell.REQUEST_BYTES)
_RESPONSE_BYTES: Final = int(RouteCell.RESPONSE_BYTES)
_DURATION: Final = int(RouteCell.DURATION)
_DURATION_SUM: Final = _DURATION + HISTOGRAM_CELLS - 1
_HEAD_SUM: Final = HISTOGRAM_CELLS - 1
# Answers above this many bytes are entered at once. Their copies fill the caches anyway, and while the books are closed
# between two turns more of them would arrive: larger turns made 100 KB cost a quarter more.
_LARGE: Final = 16 * 1024
_CODES: Final = int(RouteCell.CODES)
_FLAG_CELLS: Final = {flag: RouteCell.FAILURES + index for index, flag in enumerate(FLAGS)}
_RETRY_CELLS: Final = {reason: UpstreamCell.RETRIES + index for index, reason in enumerate(RETRY_REASONS)}


class Accounts:
    """The books of one worker. `in_flight` is the number of exchanges that have a route and are not over.

    What has no route is counted for `unrouted`. `soon` calls what it is given at the end of this turn of the loop.
    """

    def __init__(self, row: memoryview, log: AccessLog, unrouted: "Route", soon: "Soon") -> None:
        self.row = row
        self.log = log
        self.unrouted = unrouted
        self.in_flight = 0
        self._soon = soon
        self._over: deque[Exchange] = deque()
        self._scheduled = False

    def begin(self, x: "Exchange", route: "Route") -> None:
        """Count an exchange in: from now on it has a route."""
        self.row[route.cell] += 1
        self.in_flight += 1
        x.route = route

    def end(self, x: "Exchange") -> bool:
        """Count and log an exchange that is over, at the end of this turn; False if it was over before."""
        if x.counted:
            return False
        x.counted = True
        x.seconds = time.monotonic() - x.started
        self._over.append(x)
        if x.bytes_out > _LARGE:
            self.settle()
        elif not self._scheduled:
            self._schedule()
        return True

    def settle(self) -> None:
        """Enter what is over now; for when there may be no end of this turn."""
        while self._over:
            self._enter(self._over.popleft())

    def _schedule(self) -> None:
        self._scheduled = True
        self._soon(self._end_turn)

    def _end_turn(self) -> None:
        self._scheduled = False
        try:
            self.settle()
        finally:
            if self._over:  # an error of ours costs one entry, not those behind it
                self._schedule()

    def _enter(self, x: "Exchange") -> None:
        row, route = self.row, x.route
        if route is None:
            route = self.unrouted
        else:
            row[route.cell] -= 1
            self.in_flight -= 1
        at = route.cell
        key = METHOD_INDEX.get(x.method, 0) << 10 | x.status  # `code_key`, without the call
        counter = route.code_cells.get(key)
        if counter is None:
            counter = code_cell(row, at + _CODES, ROUTE_CODES, key)
            route.code_cells[key] = counter
        row[counter] += 1
        if x.bytes_in:
            row[at + _REQUEST_BYTES] += x.bytes_in
        row[at + _RESPONSE_BYTES] += x.bytes_out
        took = int(x.seconds * 1e6)
        row[at + _DURATION + bisect_left(BUCKETS, took)] += 1
        row[at + _DURATION_SUM] += took
        if x.fault is not None:
            row[at + _FLAG_CELLS[x.fault.failure.flag]] += 1
        response, target, upstream = x.response, x.target, route.upstream
        if response is not None and target is not None and upstream is not None:
            counter = target.code_cells.get(key) if response.status == x.status else None
            if counter is None:
                self.count_target(target, x.method, response.status)
            else:
                row[counter] += 1
            took, at = int(x.upstream_seconds * 1e6), upstream.head_cell
            row[at + bisect_left(BUCKETS, took)] += 1
            row[at + _HEAD_SUM] += took
            if x.connect_seconds:
                observe(row, upstream.cell + UpstreamCell.CONNECT_DURATION, int(x.connect_seconds * 1e6))
        if self.log.enabled:
            self.log.write(x)

    def count_target(self, target: "Target", method: bytes, status: int) -> None:
        """Count a try on a target by what it answered, or by the status of the failure."""
        key = code_key(method, status)
        counter = target.code_cells.get(key)
        if counter is None:
            counter = code_cell(self.row, target.cell + TargetCell.CODES, TARGET_CODES, key)
            target.code_cells[key] = counter
        self.row[counter] += 1

    def count_retry(self, upstream: "Upstream", reason: str) -> None:
        """Count a try that is repeated, for one of `RETRY_REASONS`."""
        self.row[upstream.cell + _RETRY_CELLS[reason]] += 1

    def count_surplus(self, route: "Route") -> None:
        """Count an answer with bytes behind its end: it was good, but its target is at fault and should be known."""
        self.row[route.cell + _FLAG_CELLS[UPSTREAM_PROTOCOL.flag]] += 1

    def count_tunnels(self, route: "Route", change: int) -> None:
        """Count a tunnel that has opened (1) or ended (-1)."""
        self.row[route.cell + RouteCell.WEBSOCKETS] += change

    def failing_since(self, target: "Target") -> int:
        """Return since when connecting to a target has failed, in microseconds of Unix time; 0 if it has not."""
        since: int = self.row[target.cell + TargetCell.FAILING_SINCE]
        return since
