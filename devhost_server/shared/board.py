"""The scoreboard: what every process of one gateway shares, in one anonymous piece of memory.

The master makes it before the first fork; every later fork inherits it and the kernel frees it with the last process,
so there are no names to clean up. It is an array of signed 64-bit cells: one *board row* written by the master, then
one row for each worker slot. A row has one writer, so a cell is changed without locks; readers add up the rows. A slot
keeps its row when its worker is replaced: counters outlive any worker, even one killed with SIGKILL.

Routes, upstreams and targets each own a block of cells at the same place in every row. The master gives the blocks out
by name and publishes their numbers with the configuration, so that all processes agree on them.

Durations are kept in whole microseconds, sizes in bytes.
"""

import mmap
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from devhost_server.failures import FLAGS

CELL: Final = 8

# Upper bounds of the duration histograms, in microseconds: 1 ms to 60 s, about three a decade; the last bucket is +Inf.
BUCKETS: Final = (
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
)  # fmt: skip
HISTOGRAM_CELLS: Final = len(BUCKETS) + 2  # the buckets, +Inf, and the sum

METHODS: Final = ("OTHER", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
METHOD_INDEX: Final = {method.encode(): index for index, method in enumerate(METHODS)}

# Each route and target has a small table of (method, status) pairs met, each with its count. Behind it there is a cell
# for each method and class of status, for what no longer fits: clients can fill a table with odd requests, but never so
# that a 500 that follows does not count as a failure.
ROUTE_CODES: Final = 24
TARGET_CODES: Final = 12
CLASSES: Final = 5  # 1xx to 5xx
_CLASS_CELLS: Final = len(METHODS) * CLASSES

RETRY_REASONS: Final = ("connect", "stale", "reset")
RESTART_REASONS: Final = ("exited", "killed", "heartbeat", "boot", "retired")


class Board(IntEnum):
    """Cells of the board row; the master writes them."""

    GENERATION = 0  # of the configuration that every worker is to serve
    DRAINING = 1  # 1 once a drain has begun
    DRAIN_UNTIL = 2  # CLOCK_MONOTONIC microseconds at which what remains is cut
    CUT_NOW = 3  # 1 when workers are to stop at once
    STARTED_AT = 4  # Unix time, microseconds
    RELOADS_OK = 5
    RELOADS_FAILED = 6
    RELOAD_REQUESTS = 7  # written by the control process: requests for a reload so far
    RELOAD_SERVED = 8  # the value of RELOAD_REQUESTS that the last finished reload had seen
    SNAPSHOT_AT = 9  # byte offset, length and check sum of the snapshot in its memory file
    SNAPSHOT_SIZE = 10
    SNAPSHOT_SUM = 11
    REPORT_AT = 12  # the same for the report of the last reload
    REPORT_SIZE = 13
    REPORT_SUM = 14
    CONTROL_PID = 15
    WORKERS_WANTED = 16
    REOPEN_LOGS = 17  # counts USR1
    HUPS_ASKED = 18  # written by the control process where it may not send the master that signal
    TERMS_ASKED = 19  # likewise
    RESTARTS = 24  # one cell for each of RESTART_REASONS


class WorkerState(IntEnum):
    """What a worker slot is doing."""

    EMPTY = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3


class Slot(IntEnum):
    """The first cells of a worker's row; the worker writes them, the master clears the gauges of a dead one."""

    STATE = 0
    PID = 1
    GENERATION = 2  # of the configuration it serves
    REJECTED = 3  # a generation that it could not build
    STARTED_AT = 4  # Unix time, microseconds
    RESTARTS = 5  # how often the slot has been given to a new worker (written by the master)
    LOG_DROPPED = 6  # access log lines that could not be written
    ACCEPTED = 7
    CONNECTIONS = 8  # gauge: open client connections
    IN_FLIGHT = 9  # gauge
    WEBSOCKETS = 10  # gauge: open tunnels
    DRAIN_FINISHED = 11
    DRAIN_CLOSED = 12
    DRAIN_CUT = 13
    OVERLOADED = 14  # connections refused because limits.connections was reached
    HEARTBEAT = 15  # CLOCK_MONOTONIC microseconds of the last sign of life
    LISTENERS = 16  # for each listener two gauges: active, idle


LISTENERS_MAX: Final = 16
_SLOT_CELLS: Final = Slot.LISTENERS + 2 * LISTENERS_MAX
SLOT_GAUGES: Final = (Slot.CONNECTIONS, Slot.IN_FLIGHT, Slot.WEBSOCKETS)


class RouteCell(IntEnum):
    """Cells of a route's block."""

    IN_FLIGHT = 0  # gauge
    WEBSOCKETS = 1  # gauge
    REQUEST_BYTES = 2
    RESPONSE_BYTES = 3
    FAILURES = 4  # one for each of FLAGS
    DURATION = 4 + len(FLAGS)
    CODES = 4 + len(FLAGS) + HISTOGRAM_CELLS


class UpstreamCell(IntEnum):
    """Cells of an upstream's block."""

    RETRIES = 0  # one for each of RETRY_REASONS
    HEAD_DURATION = 4
    CONNECT_DURATION = 4 + HISTOGRAM_CELLS


class TargetCell(IntEnum):
    """Cells of a target's block."""

    ACTIVE = 1  # gauge: connections carrying an exchange
    IN_FLIGHT = 1  # the same number: a connection carries one exchange at a time
    IDLE = 2  # gauge
    CONNECTING = 3  # gauge
    FAILING_SINCE = 4  # gauge: Unix time in microseconds of the first failure of the running series; 0 while it works
    CODES = 5


ROUTE_GAUGES: Final = (RouteCell.IN_FLIGHT, RouteCell.WEBSOCKETS)
TARGET_GAUGES: Final = (
    TargetCell.ACTIVE,
    TargetCell.IDLE,
    TargetCell.CONNECTING,
    TargetCell.FAILING_SINCE,
)
_BOARD_CELLS: Final = 64
_ROUTE_CELLS: Final = RouteCell.CODES + 2 * ROUTE_CODES + _CLASS_CELLS
_UPSTREAM_CELLS: Final = UpstreamCell.CONNECT_DURATION + HISTOGRAM_CELLS
_TARGET_CELLS: Final = TargetCell.CODES + 2 * TARGET_CODES + _CLASS_CELLS


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much a scoreboard holds. Memory is only spent on what is written."""

    slots: int
    routes: int
    upstreams: int
    targets: int


class Scoreboard:
    """The shared cells, and where in a row each block lies."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._routes_at = int(_SLOT_CELLS)
        self._upstreams_at = self._routes_at + capacity.routes * _ROUTE_CELLS
        self._targets_at = self._upstreams_at + capacity.upstreams * _UPSTREAM_CELLS
        self.row_cells = self._targets_at + capacity.targets * _TARGET_CELLS
        size = (_BOARD_CELLS + capacity.slots * self.row_cells) * CELL
        self._memory = mmap.mmap(-1, size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
        cells = memoryview(self._memory).cast("q")
        self.board = cells[:_BOARD_CELLS]
        self._rows = [
            cells[_BOARD_CELLS + slot * self.row_cells : _BOARD_CELLS + (slot + 1) * self.row_cells]
            for slot in range(capacity.slots)
        ]

    def __repr__(self) -> str:
        return f"<Scoreboard {self.capacity} generation={self.board[Board.GENERATION]}>"

    def row(self, slot: int) -> memoryview:
        """Return the cells of a worker slot."""
        return self._rows[slot]

    def rows(self) -> Iterator[memoryview]:
        """Return the rows of all slots that a worker has ever held."""
        return (row for row in self._rows if row[Slot.RESTARTS] or row[Slot.PID])

    def route_at(self, block: int) -> int:
        """Return the index of a route block's first cell within a row."""
        return self._routes_at + block * _ROUTE_CELLS

    def upstream_at(self, block: int) -> int:
        """Return the index of an upstream block's first cell within a row."""
        return self._upstreams_at + block * _UPSTREAM_CELLS

    def target_at(self, block: int) -> int:
        """Return the index of a target block's first cell within a row."""
        return self._targets_at + block * _TARGET_CELLS

    def total(self, cell: int) -> int:
        """Add one cell up over all rows."""
        return sum(row[cell] for row in self._rows)

    def histogram(self, cell: int) -> tuple[list[int], int]:
        """Add a histogram up over all rows: counts of each bucket (+Inf last), and the sum in microseconds."""
        totals = [0] * HISTOGRAM_CELLS
        for row in self.rows():
            for index, value in enumerate(row[cell : cell + HISTOGRAM_CELLS]):
                totals[index] += value
        return totals[:-1], totals[-1]

    def codes(self, cell: int, entries: int) -> dict[tuple[str, int], int]:
        """Add a table of codes up over all rows: counts by (method, status).

        What the table had no room for is counted by class: its status is that of `class_code`.
        """
        totals: dict[tuple[str, int], int] = {}
        classes = cell + 2 * entries
        for row in self.rows():
            for at in range(cell, classes, 2):
                key = row[at]
                if not key:
                    break  # they are claimed in order, and the classes after the last
                pair = METHODS[key >> 10 & 7], key & 0x3FF
                totals[pair] = totals.get(pair, 0) + row[at + 1]
            else:
                for index, count in enumerate(row[classes : classes + _CLASS_CELLS]):
                    if count:
                        pair = METHODS[index // CLASSES], index % CLASSES + 1
                        totals[pair] = totals.get(pair, 0) + count
        return totals

    def clear_gauges(self, slot: int, routes: Iterable[int], targets: Iterable[int]) -> None:
        """Forget what only a living worker can have; the master calls it once the worker of `slot` is dead.

        `routes` and `targets` are the blocks in use: reading the others would spend memory on them.
        """
        row = self._rows[slot]
        for cell in (*SLOT_GAUGES, *range(Slot.LISTENERS, Slot.LISTENERS + 2 * LISTENERS_MAX)):
            row[cell] = 0
        for block in routes:
            self._clear(row, self.route_at(block), ROUTE_GAUGES)
        for block in targets:
            self._clear(row, self.target_at(block), TARGET_GAUGES)

    @staticmethod
    def _clear(row: memoryview, at: int, cells: Iterable[int]) -> None:
        for cell in cells:
            if row[at + cell]:  # a write would make a page of memory out of one that was never used
                row[at + cell] = 0

    def erase_route(self, block: int) -> None:
        """Zero a route's block in all rows, before it is given to another route."""
        self._erase(self.route_at(block), _ROUTE_CELLS)

    def erase_upstream(self, block: int) -> None:
        """Zero an upstream's block in all rows."""
        self._erase(self.upstream_at(block), _UPSTREAM_CELLS)

    def erase_target(self, block: int) -> None:
        """Zero a target's block in all rows."""
        self._erase(self.target_at(block), _TARGET_CELLS)

    def _erase(self, at: int, size: int) -> None:
        for row in self._rows:
            self._clear(row, at, range(size))


def observe(row: memoryview, cell: int, microseconds: int) -> None:
    """Add one duration to the histogram at `cell`."""
    row[cell + bisect_left(BUCKETS, microseconds)] += 1
    row[cell + HISTOGRAM_CELLS - 1] += microseconds


def code_key(method: bytes, status: int) -> int:
    """Return what a method and a status are counted under: a small number, however many methods clients invent."""
    return METHOD_INDEX.get(method, 0) << 10 | status


def code_cell(row: memoryview, cell: int, entries: int, key: int) -> int:
    """Find or claim the count of a `code_key` in the table at `cell`; the writer of `row` remembers the answer."""
    mark = 1 << 13 | key
    classes = cell + 2 * entries
    for at in range(cell, classes, 2):
        if row[at] == mark:
            return at + 1
        if not row[at]:
            row[at] = mark
            return at + 1
    status = key & 0x3FF
    return classes + (key >> 10) * CLASSES + min(max(status // 100, 1), CLASSES) - 1


def code_name(status: int) -> str:
    """Return a status of `Scoreboard.codes` as it is written: 404, or 4xx for what is known by its class alone."""
    return str(status) if status > CLASSES else f"{status}xx"
