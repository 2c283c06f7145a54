import mmap
import os
import signal
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devhost_server.failures import FLAGS
from devhost_server.shared.board import (
    BUCKETS,
    CLASSES,
    HISTOGRAM_CELLS,
    LISTENERS_MAX,
    METHODS,
    RESTART_REASONS,
    RETRY_REASONS,
    ROUTE_CODES,
    ROUTE_GAUGES,
    SLOT_GAUGES,
    TARGET_CODES,
    TARGET_GAUGES,
    Board,
    Capacity,
    RouteCell,
    Scoreboard,
    Slot,
    TargetCell,
    UpstreamCell,
    code_cell,
    code_key,
    observe,
)
from devhost_server.shared.publication import Document, Publication
from tests.shared.boards import exit_code, fork, forked
from tests.support import wait_until

SMALL = Capacity(slots=2, routes=3, upstreams=2, targets=3)


def route_cells(at: int) -> range:
    return range(at, at + RouteCell.CODES + 2 * ROUTE_CODES + len(METHODS) * CLASSES)


def upstream_cells(at: int) -> range:
    return range(at, at + UpstreamCell.CONNECT_DURATION + HISTOGRAM_CELLS)


def target_cells(at: int) -> range:
    return range(at, at + TargetCell.CODES + 2 * TARGET_CODES + len(METHODS) * CLASSES)


# --- layout ----------------------------------------------------------------------------------------------------------


@given(
    st.builds(
        Capacity,
        slots=st.integers(1, 4),
        routes=st.integers(0, 9),
        upstreams=st.integers(0, 9),
        targets=st.integers(0, 9),
    )
)
@settings(max_examples=30, deadline=None)
def test_every_cell_of_a_row_belongs_to_one_block_at_most(capacity: Capacity) -> None:
    board = Scoreboard(capacity)
    spans = [
        range(Slot.LISTENERS + 2 * LISTENERS_MAX),
        *(route_cells(board.route_at(n)) for n in range(capacity.routes)),
        *(upstream_cells(board.upstream_at(n)) for n in range(capacity.upstreams)),
        *(target_cells(board.target_at(n)) for n in range(capacity.targets)),
    ]
    cells = [cell for span in spans for cell in span]
    assert cells == list(range(board.row_cells))


def test_the_cells_of_a_block_do_not_run_into_each_other() -> None:
    assert max(RouteCell.IN_FLIGHT, RouteCell.WEBSOCKETS, RouteCell.REQUEST_BYTES, RouteCell.RESPONSE_BYTES) == 3
    assert RouteCell.FAILURES + len(FLAGS) == RouteCell.DURATION
    assert RouteCell.DURATION + HISTOGRAM_CELLS == RouteCell.CODES
    assert UpstreamCell.RETRIES + len(RETRY_REASONS) <= UpstreamCell.HEAD_DURATION
    assert UpstreamCell.HEAD_DURATION + HISTOGRAM_CELLS == UpstreamCell.CONNECT_DURATION
    assert max(TARGET_GAUGES) < TargetCell.CODES
    assert max(SLOT_GAUGES) < Slot.LISTENERS
    assert max(Board.REOPEN_LOGS, Board.WORKERS_WANTED) < Board.RESTARTS


def test_rows_and_the_board_are_apart() -> None:
    board = Scoreboard(SMALL)
    parts = [board.board, board.row(0), board.row(1)]
    for mark, part in enumerate(parts, 1):
        for cell in range(len(part)):
            part[cell] = mark
    assert [set(part) for part in parts] == [{1}, {2}, {3}]


def test_the_board_row_has_room_for_every_reason_of_a_restart() -> None:
    assert Board.RESTARTS + len(RESTART_REASONS) <= len(Scoreboard(SMALL).board)


def test_cells_hold_64_signed_bits() -> None:
    row = Scoreboard(SMALL).row(0)
    row[0], row[1] = 2**63 - 1, -(2**63)
    assert (row[0], row[1]) == (2**63 - 1, -(2**63))


def test_rows_are_those_that_a_worker_has_held() -> None:
    board = Scoreboard(Capacity(slots=4, routes=1, upstreams=1, targets=1))
    board.row(1)[Slot.PID] = 4711
    board.row(3)[Slot.RESTARTS] = 1
    board.row(1)[Slot.ACCEPTED], board.row(3)[Slot.ACCEPTED] = 10, 30
    assert [row[Slot.ACCEPTED] for row in board.rows()] == [10, 30]
    assert board.total(Slot.ACCEPTED) == 40


def test_memory_is_spent_only_on_what_is_written() -> None:
    capacity = Capacity(slots=512, routes=2000, upstreams=2000, targets=2000)
    board = Scoreboard(capacity)
    size = board.row_cells * 8 * capacity.slots
    board.row(7)[Slot.PID] = 4711
    for block in range(capacity.routes):
        observe(board.row(7), board.route_at(block) + RouteCell.DURATION, 10)
    for block in range(capacity.routes):
        board.histogram(board.route_at(block) + RouteCell.DURATION)
        board.codes(board.route_at(block) + RouteCell.CODES, ROUTE_CODES)
    board.clear_gauges(8, range(10), range(10))
    # One row is written in full, every other is looked at in its first page.
    assert _resident(size) < board.row_cells * 8 + 520 * 2 * mmap.PAGESIZE + 10 * mmap.PAGESIZE


def _resident(size: int) -> int:
    """Bytes of memory behind the anonymous shared mapping of at least `size` bytes."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    for at, line in enumerate(lines):
        first, _, last = line.split()[0].partition("-")
        if "/dev/zero" in line and int(last, 16) - int(first, 16) >= size:
            rss = next(field for field in lines[at:] if field.startswith("Rss:"))
            return int(rss.split()[1]) * 1024
    raise AssertionError("the mapping is not in /proc/self/smaps")


# --- histograms ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10**9)), max_size=60))
def test_a_duration_counts_in_the_first_bucket_that_is_not_below_it(seen: list[tuple[int, int]]) -> None:
    board = Scoreboard(SMALL)
    cell = board.route_at(1) + RouteCell.DURATION
    board.row(0)[Slot.PID] = board.row(1)[Slot.PID] = 1
    for slot, microseconds in seen:
        observe(board.row(slot), cell, microseconds)
    counts, total = board.histogram(cell)
    bounds = [0, *BUCKETS, 10**12]
    expected = [sum(low < max(us, 1) <= high for _, us in seen) for low, high in pairwise(bounds)]
    assert counts == expected
    assert total == sum(us for _, us in seen)


@pytest.mark.parametrize(("at", "bound"), list(enumerate(BUCKETS)))
def test_a_bound_is_part_of_its_bucket(at: int, bound: int) -> None:
    board = Scoreboard(SMALL)
    row, cell = board.row(0), board.upstream_at(0) + UpstreamCell.CONNECT_DURATION
    row[Slot.PID] = 1
    observe(row, cell, bound)
    observe(row, cell, bound + 1)
    counts, _ = board.histogram(cell)
    assert (counts[at], counts[at + 1]) == (1, 1)


def test_a_histogram_stays_within_its_cells() -> None:
    board = Scoreboard(SMALL)
    row, cell = board.row(0), board.upstream_at(0) + UpstreamCell.HEAD_DURATION
    observe(row, cell, 10**12)
    assert row[cell - 1] == 0
    assert list(row[cell : cell + HISTOGRAM_CELLS]) == [0] * len(BUCKETS) + [1, 10**12]
    assert row[cell + HISTOGRAM_CELLS] == 0


# --- codes -----------------------------------------------------------------------------------------------------------

requests = st.tuples(
    st.integers(0, 1), st.sampled_from([b"GET", b"POST", b"DELETE", b"PURGE", b""]), st.integers(100, 130)
)


@given(st.lists(requests, max_size=120))
def test_codes_lose_no_request(seen: list[tuple[int, bytes, int]]) -> None:
    board = Scoreboard(SMALL)
    cell = board.target_at(2) + TargetCell.CODES
    board.row(0)[Slot.PID] = board.row(1)[Slot.PID] = 1
    expected: dict[tuple[str, int], int] = {}
    met: list[set[tuple[bytes, int]]] = [set(), set()]
    for slot, method, status in seen:
        name = method if method.decode() in METHODS else b"OTHER"
        pair = (name.decode(), status)
        if len(met[slot]) == TARGET_CODES and (name, status) not in met[slot]:
            pair = (name.decode(), 1)
        else:
            met[slot].add((name, status))
        expected[pair] = expected.get(pair, 0) + 1
        row = board.row(slot)
        row[code_cell(row, cell, TARGET_CODES, code_key(method, status))] += 1
    assert board.codes(cell, TARGET_CODES) == expected


@pytest.mark.parametrize("status", [100, 204, 302, 404, 499, 500, 503, 599])
@pytest.mark.parametrize("method", METHODS)
def test_a_full_table_loses_neither_method_nor_class(method: str, status: int) -> None:
    board = Scoreboard(SMALL)
    row, cell = board.row(0), board.route_at(0) + RouteCell.CODES
    row[Slot.PID] = 1
    for number in range(200):
        row[code_cell(row, cell, ROUTE_CODES, code_key(b"X%d" % number, 600 + number))] += 1
    before = board.codes(cell, ROUTE_CODES)
    for _ in range(50):
        row[code_cell(row, cell, ROUTE_CODES, code_key(method.encode(), status))] += 1
    pair = (method, status // 100)
    assert board.codes(cell, ROUTE_CODES) == before | {pair: before.get(pair, 0) + 50}


def test_a_code_keeps_its_cell() -> None:
    row = Scoreboard(SMALL).row(0)
    first = code_cell(row, 100, ROUTE_CODES, code_key(b"GET", 200))
    assert code_cell(row, 100, ROUTE_CODES, code_key(b"POST", 200)) != first
    assert code_cell(row, 100, ROUTE_CODES, code_key(b"GET", 200)) == first


def test_rows_may_meet_codes_in_different_orders() -> None:
    board = Scoreboard(SMALL)
    cell = board.route_at(0) + RouteCell.CODES
    for slot, order in enumerate(([200, 404], [404, 500, 200])):
        row = board.row(slot)
        row[Slot.PID] = 1
        for status in order:
            row[code_cell(row, cell, ROUTE_CODES, code_key(b"GET", status))] += 1
    assert board.codes(cell, ROUTE_CODES) == {("GET", 200): 2, ("GET", 404): 2, ("GET", 500): 1}


@pytest.mark.parametrize("status", [100, 200, 499, 599, 999])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_and_status_comes_back(method: str, status: int) -> None:
    board = Scoreboard(SMALL)
    row = board.row(0)
    row[Slot.PID] = 1
    row[code_cell(row, board.route_at(0) + RouteCell.CODES, ROUTE_CODES, code_key(method.encode(), status))] += 1
    assert board.codes(board.route_at(0) + RouteCell.CODES, ROUTE_CODES) == {(method, status): 1}


# --- death, erasure --------------------------------------------------------------------------------------------------


def test_clearing_gauges_takes_what_a_living_worker_has_and_nothing_else() -> None:
    board = Scoreboard(SMALL)
    for cell in range(board.row_cells):
        board.row(0)[cell] = board.row(1)[cell] = 7
    board.clear_gauges(1, range(2), [1])
    gone = {
        *SLOT_GAUGES,
        *range(Slot.LISTENERS, Slot.LISTENERS + 2 * LISTENERS_MAX),
        *(board.route_at(block) + gauge for block in range(2) for gauge in ROUTE_GAUGES),
        *(board.target_at(1) + gauge for gauge in TARGET_GAUGES),
    }
    assert {cell for cell in range(board.row_cells) if board.row(1)[cell] == 0} == gone
    assert set(board.row(0)) == {7}


@pytest.mark.parametrize(
    ("erase", "cells"),
    [
        (lambda board: board.erase_route(1), lambda board: route_cells(board.route_at(1))),
        (lambda board: board.erase_upstream(1), lambda board: upstream_cells(board.upstream_at(1))),
        (lambda board: board.erase_target(1), lambda board: target_cells(board.target_at(1))),
    ],
    ids=["route", "upstream", "target"],
)
def test_erasing_a_block_zeroes_it_in_every_row_and_nothing_else(erase, cells) -> None:  # type: ignore[no-untyped-def]
    board = Scoreboard(SMALL)
    for cell in range(board.row_cells):
        board.row(0)[cell] = board.row(1)[cell] = 7
    erase(board)
    for row in (board.row(0), board.row(1)):
        assert {cell for cell in range(board.row_cells) if row[cell] == 0} == set(cells(board))


# --- several processes -----------------------------------------------------------------------------------------------


def test_what_processes_count_in_their_rows_adds_up() -> None:
    board = Scoreboard(Capacity(slots=4, routes=2, upstreams=1, targets=1))

    def count(slot: int) -> None:
        row = board.row(slot)
        row[Slot.PID] = os.getpid()
        cell = board.route_at(1)
        for number in range(2000):
            row[code_cell(row, cell + RouteCell.CODES, ROUTE_CODES, code_key(b"GET", 200 + number % 3))] += 1
            observe(row, cell + RouteCell.DURATION, number)

    children = [fork(lambda slot=slot: count(slot)) for slot in range(4)]
    assert [exit_code(child) for child in children] == [0] * 4
    assert sum(board.codes(board.route_at(1) + RouteCell.CODES, ROUTE_CODES).values()) == 8000
    counts, total = board.histogram(board.route_at(1) + RouteCell.DURATION)
    assert (sum(counts), total) == (8000, 4 * sum(range(2000)))


def test_what_a_killed_worker_has_counted_stays_and_its_successor_counts_on() -> None:
    board = Scoreboard(SMALL)
    cell = board.route_at(0) + RouteCell.CODES

    def work(ready: int, stay: bool) -> None:
        row = board.row(0)
        row[Slot.PID] = os.getpid()
        row[Slot.CONNECTIONS] = 5
        for _ in range(100):
            row[code_cell(row, cell, ROUTE_CODES, code_key(b"GET", 200))] += 1
        row[Slot.STATE] = ready
        while stay:
            signal.pause()

    with forked(lambda: work(2, True)) as pid:
        wait_until(lambda: board.row(0)[Slot.STATE] == 2)
        os.kill(pid, signal.SIGKILL)
        assert exit_code(pid) == -signal.SIGKILL
    board.clear_gauges(0, [0], [])
    assert board.row(0)[Slot.CONNECTIONS] == 0
    assert board.codes(cell, ROUTE_CODES) == {("GET", 200): 100}
    assert exit_code(fork(lambda: work(3, False))) == 0
    assert board.codes(cell, ROUTE_CODES) == {("GET", 200): 200}


# --- publication -----------------------------------------------------------------------------------------------------


def published() -> tuple[Scoreboard, Publication]:
    board = Scoreboard(SMALL)
    return board, Publication(board)


def test_nothing_is_read_before_something_is_written() -> None:
    _, publication = published()
    assert [publication.read(document) for document in Document] == [None, None]


@given(st.lists(st.tuples(st.sampled_from(Document), st.binary(min_size=1, max_size=300)), max_size=20))
@settings(deadline=None)
def test_a_reader_gets_what_was_written_last(writes: list[tuple[Document, bytes]]) -> None:
    _, publication = published()
    last: dict[Document, bytes] = {}
    for document, text in writes:
        publication.write(document, text)
        last[document] = text
        assert {d: publication.read(d) for d in Document} == {d: last.get(d) for d in Document}


def test_the_last_document_is_not_disturbed_while_the_next_is_written() -> None:
    board, publication = published()
    publication.write(Document.SNAPSHOT, b"first")
    cells = list(board.board[Board.SNAPSHOT_AT : Board.SNAPSHOT_SUM + 1])
    publication.write(Document.SNAPSHOT, b"second, and longer")
    board.board[Board.SNAPSHOT_AT : Board.SNAPSHOT_SUM + 1] = memoryview(
        b"".join(cell.to_bytes(8, "little") for cell in cells)
    ).cast("q")
    assert publication.read(Document.SNAPSHOT) == b"first"


@pytest.mark.parametrize("cell", [Board.SNAPSHOT_AT, Board.SNAPSHOT_SIZE, Board.SNAPSHOT_SUM])
def test_a_reader_in_the_middle_of_a_write_gets_nothing(cell: Board) -> None:
    board, publication = published()
    publication.write(Document.SNAPSHOT, b"one")
    old = board.board[cell]
    publication.write(Document.SNAPSHOT, b"another one")
    board.board[cell] = old
    assert publication.read(Document.SNAPSHOT) is None


def test_readers_in_other_processes_see_whole_documents_only() -> None:
    board, publication = published()
    enough = 50

    def text(number: int) -> bytes:
        return f"{number} ".encode() * (number % 700 + 1)

    def read(seen: memoryview) -> None:
        last = -1
        while seen[0] < enough:
            document = publication.read(Document.SNAPSHOT)
            if document is not None:
                number = int(document.split()[0])
                assert document == text(number)
                assert number >= last
                seen[0] += number > last
                last = number

    readers = [fork(lambda slot=slot: read(board.row(slot))) for slot in range(2)]
    for number in count():
        publication.write(Document.SNAPSHOT, text(number))
        if all(board.row(slot)[0] >= enough for slot in range(2)):
            break
    assert [exit_code(reader) for reader in readers] == [0, 0]


def test_large_documents_go_through() -> None:
    _, publication = published()
    text = bytes(range(256)) * 50_000
    publication.write(Document.SNAPSHOT, text)
    publication.write(Document.REPORT, b"small")
    assert publication.read(Document.SNAPSHOT) == text
    assert publication.read(Document.REPORT) == b"small"
