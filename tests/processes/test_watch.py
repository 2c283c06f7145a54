"""The watch over the workers, by a clock that the tests turn."""

import pytest

from devhost_server.processes.watch import Watch
from devhost_server.shared.board import Slot, WorkerState
from tests.processes.workers import worker
from tests.shared.boards import Shared


@pytest.fixture
def shared() -> Shared:
    """A gateway of two workers, one of them ready, which gave their last signs of life at 10 and 20 seconds."""
    shared = Shared()
    for slot, state in enumerate((WorkerState.READY, WorkerState.BOOTING)):
        shared.scoreboard.row(slot)[Slot.STATE] = state
        shared.scoreboard.row(slot)[Slot.HEARTBEAT] = int((10 + 10 * slot) * 1e6)
    return shared


def test_silence_is_said_only_when_it_is_too_long(shared: Shared) -> None:
    watch = Watch(shared.scoreboard, 30, now=0)
    assert watch.silence(worker(0), now=40) is None
    assert watch.silence(worker(0), now=41) == 31
    assert watch.silence(worker(1), now=41) is None


def test_life_is_a_started_worker_that_is_not_silent(shared: Shared) -> None:
    watch = Watch(shared.scoreboard, 30, now=0)
    both = [worker(0), worker(1)]
    assert watch.sees_life(both, now=40)
    assert not watch.sees_life(both, now=41)
    assert not watch.sees_life([worker(1)], now=40)
    shared.scoreboard.row(1)[Slot.STATE] = WorkerState.DRAINING
    assert watch.sees_life(both, now=41)
    assert not watch.sees_life([], now=0)


def test_a_master_that_was_asleep_begins_anew(shared: Shared) -> None:
    watch = Watch(shared.scoreboard, 30, now=0)
    assert watch.look(1) == 0
    assert watch.look(1000) == 999
    assert watch.silence(worker(0), now=1030) is None
    assert watch.silence(worker(0), now=1031) == 31
