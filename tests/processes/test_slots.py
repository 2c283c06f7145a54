"""Slots: the lowest free one is next, and a row starts and ends without the last worker's state."""

from devhost_server.processes.slots import Slots
from devhost_server.shared.board import Slot, WorkerState
from tests.processes.workers import worker
from tests.shared.boards import Shared


def test_the_lowest_free_slot_is_first() -> None:
    slots = Slots(Shared().scoreboard)
    assert slots.free([]) == [0, 1, 2, 3]
    assert slots.free([worker(0), worker(2)]) == [1, 3]
    assert slots.free(map(worker, range(slots.count))) == []


def test_a_row_is_prepared_for_its_next_worker() -> None:
    shared = Shared()
    slots, row = Slots(shared.scoreboard), shared.scoreboard.row(1)
    cells = (Slot.GENERATION, Slot.REJECTED, Slot.DRAIN_FINISHED, Slot.DRAIN_CLOSED, Slot.DRAIN_CUT)
    for cell in (*cells, Slot.RESTARTS):
        row[cell] = 5
    slots.take(1)
    assert [row[cell] for cell in cells] == [0, 0, 0, 0, 0]
    assert row[Slot.RESTARTS] == 6, "forks are counted over all workers of a slot"
    assert slots.state(worker(1)) == WorkerState.BOOTING
    assert slots.row(worker(1))[Slot.RESTARTS] == 6


def test_a_released_row_is_empty_but_keeps_its_counters() -> None:
    shared = Shared()
    slots, row = Slots(shared.scoreboard), shared.scoreboard.row(1)
    row[Slot.STATE], row[Slot.PID], row[Slot.RESTARTS], row[Slot.IN_FLIGHT] = WorkerState.READY, 77, 5, 3
    slots.release(1, [], [])
    assert [row[cell] for cell in (Slot.STATE, Slot.PID, Slot.IN_FLIGHT)] == [WorkerState.EMPTY, 0, 0]
    assert row[Slot.RESTARTS] == 5


def test_after_a_fork_that_failed_free_slots_are_empty() -> None:
    shared = Shared()
    slots = Slots(shared.scoreboard)
    slots.take(0)
    slots.take(1)
    slots.mark_empty([worker(0)])
    assert [slots.state(worker(slot)) for slot in (0, 1)] == [WorkerState.BOOTING, WorkerState.EMPTY]
