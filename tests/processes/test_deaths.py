"""Deaths of workers: the reason that is counted, what is said, and when the next worker comes."""

import logging
import signal

import pytest

from devhost_server.processes.deaths import Death, Replacements, how_it_ended
from devhost_server.shared.board import RESTART_REASONS, Board, Slot, WorkerState
from tests.processes.workers import worker
from tests.shared.boards import Shared

CLEAN = 0
CODE_1 = 1 << 8  # as waitpid(2) gives it
ALL_READY = {Slot.STATE: WorkerState.READY, Slot.GENERATION: 1}


def death(
    shared: Shared, status: int = CODE_1, *, retiring: bool = False, aborted: bool = False, **cells: int
) -> Death:
    row = shared.scoreboard.row(2)
    for cell, value in {**ALL_READY, **{Slot[name]: value for name, value in cells.items()}}.items():
        row[cell] = value
    return Death.of(worker(2, pid=77, born=5.0, retiring=retiring, aborted=aborted), status, row, now=8.0)


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (CLEAN, "exited with code 0"),
        (3 << 8, "exited with code 3"),
        (signal.SIGTERM, "was killed by SIGTERM"),
        (signal.SIGKILL, "was killed by SIGKILL (out of memory?)"),
    ],
)
def test_how_a_process_ended_is_said(status: int, how: str) -> None:
    assert how_it_ended(status) == how


def test_the_reason_is_what_the_row_and_the_master_know() -> None:
    shared = Shared()
    assert death(shared, CODE_1).reason == "exited"
    assert death(shared, CLEAN).reason == "exited"
    assert death(shared, signal.SIGKILL).reason == "killed"
    assert death(shared, signal.SIGABRT, aborted=True).reason == "heartbeat"
    assert death(shared, CODE_1, STATE=WorkerState.BOOTING).reason == "boot"
    assert death(shared, CODE_1, GENERATION=0).reason == "boot"
    assert death(shared, CLEAN, STATE=WorkerState.DRAINING).reason == "retired"
    assert death(shared, CODE_1, STATE=WorkerState.DRAINING).reason == "exited"
    assert death(shared, signal.SIGKILL, retiring=True, aborted=True).reason == "retired"


def test_a_death_keeps_what_the_row_said() -> None:
    shared = Shared()
    found = death(shared, DRAIN_FINISHED=1, DRAIN_CLOSED=2, DRAIN_CUT=3, IN_FLIGHT=4)
    shared.scoreboard.row(2)[Slot.DRAIN_FINISHED] = 0
    assert found == Death("worker 2 (pid 77)", "exited with code 1", True, "exited", 3.0, 1, 2, 3, 4)


def test_an_old_worker_is_replaced_at_once_and_a_young_one_later() -> None:
    shared = Shared()
    replacements = Replacements(shared.board)
    assert replacements.is_due(0.0)
    replacements.died(death(shared), 8.0)
    assert replacements.is_due(8.0)
    replacements.could_not_start(8.0)
    assert not replacements.is_due(8.1)
    assert replacements.is_due(8.21)


@pytest.mark.parametrize(
    ("cells", "reason", "level", "said"),
    [
        ({}, "exited", "ERROR", "worker 2 (pid 77) exited with code 1; replacing it"),
        ({"GENERATION": 0}, "boot", "ERROR", "worker 2 (pid 77) exited with code 1 before it was ready"),
    ],
)
def test_deaths_are_counted_and_said(
    caplog: pytest.LogCaptureFixture, cells: dict[str, int], reason: str, level: str, said: str
) -> None:
    shared = Shared()
    with caplog.at_level(logging.INFO, "devhost_server.processes.master"):
        Replacements(shared.board).died(death(shared, **cells), 8.0)
    assert shared.board[Board.RESTARTS + RESTART_REASONS.index(reason)] == 1
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [(level, said)]


def test_a_worker_that_was_told_to_leave_says_what_it_has_done(caplog: pytest.LogCaptureFixture) -> None:
    shared = Shared()
    with caplog.at_level(logging.INFO, "devhost_server.processes.master"):
        Replacements(shared.board).died(death(shared, CLEAN, retiring=True, DRAIN_FINISHED=3), 8.0)
    assert caplog.messages == ["worker 2 (pid 77) has left: drained: finished 3, closed 0 websockets, cut 0"]


@pytest.mark.parametrize("was_ready", [False, True])
def test_three_that_never_boot_are_the_end_unless_one_has_been_ready(*, was_ready: bool) -> None:
    shared = Shared()
    replacements = Replacements(shared.board)
    if was_ready:
        replacements.was_ready()
    hopeless = []
    for _ in range(3):
        replacements.died(death(shared, GENERATION=0), 8.0)
        hopeless.append(replacements.hopeless)
    assert hopeless == [False, False, not was_ready]
