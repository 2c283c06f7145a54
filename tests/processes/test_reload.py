"""What the master says of a reload that it cannot carry out, decided without a process or a clock."""

from collections.abc import Callable
from pathlib import Path

import pytest

from devhost_server.config import Sources, load
from devhost_server.processes.reload import Reloader, Report
from devhost_server.shared.board import Board, Capacity, Scoreboard, Slot, WorkerState
from devhost_server.shared.publication import Publication

ROUTES = "routes: {{ping: {{host: '*', respond: {{status: 200, body: {body}}}}}}}\n"


class Workers:
    """A reloader with the rows of two workers, which serve generation 1."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.file.write_text(ROUTES.format(body="one"))
        sources = Sources.from_options("dev", None, (str(file),), ())
        self.scoreboard = Scoreboard(Capacity(4, 16, 16, 16))
        self.reloader = Reloader(sources, load(sources), "instance", self.scoreboard, Publication(self.scoreboard))
        for slot in (0, 1):
            row = self.scoreboard.row(slot)
            row[Slot.STATE], row[Slot.PID], row[Slot.RESTARTS] = WorkerState.READY, 100 + slot, 1
            row[Slot.GENERATION] = 1

    def begin(self) -> None:
        """Begin a reload at second 0, onto generation 2."""
        self.file.write_text(ROUTES.format(body="two"))
        self.reloader.begin(0.0, "signal")
        assert self.reloader.pending

    def ended(self, now: float) -> Report:
        """Give how the pending reload ended."""
        report = self.reloader.poll(now)
        assert report is not None
        assert not self.reloader.pending
        return report


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path / "gateway.yaml")


def test_it_is_done_when_both_have_confirmed(workers: Workers) -> None:
    workers.begin()
    for slot in (0, 1):
        assert workers.reloader.poll(1.0) is None
        workers.scoreboard.row(slot)[Slot.GENERATION] = 2
    report = workers.ended(1.5)
    assert (report.result, report.generation, report.errors) == ("ok", 2, ())


def silent(workers: Workers) -> None:
    workers.scoreboard.row(0)[Slot.GENERATION] = 2


def nobody(workers: Workers) -> None:
    """Neither says anything."""


def refusing(workers: Workers) -> None:
    workers.scoreboard.row(1)[Slot.REJECTED] = 2


@pytest.mark.parametrize(
    ("what", "now", "said"),
    [
        (silent, 10.1, "worker 1 (pid 101) did not confirm generation 2 within 10 s"),
        (nobody, 10.1, "worker 0 (pid 100) and worker 1 (pid 101) did not confirm generation 2 within 10 s"),
        (refusing, 0.1, "worker 1 (pid 101) could not serve generation 2 (the log says why)"),
    ],
)
def test_who_was_in_the_way_is_told_and_the_old_one_is_published_again(
    workers: Workers, what: Callable[[Workers], None], now: float, said: str
) -> None:
    workers.begin()
    what(workers)
    report = workers.ended(now)
    assert report.errors == (f"{said}; the configuration before it is being served",)
    assert (report.result, report.generation) == ("failed", 3)
    assert workers.scoreboard.board[Board.GENERATION] == 3


def test_an_access_log_that_cannot_be_opened_is_a_mistake(workers: Workers) -> None:
    workers.file.write_text(ROUTES.format(body="two") + "log: {access: /nowhere/at/all.log}\n")
    workers.reloader.begin(0.0, "signal")
    report = workers.reloader.last
    assert report is not None
    assert report.errors == ("log.access: cannot write to /nowhere/at/all.log: No such file or directory",)
    assert workers.scoreboard.board[Board.GENERATION] == 1


def test_a_mistake_is_known_at_once(workers: Workers) -> None:
    workers.file.write_text("nonsense: true\n")
    workers.reloader.begin(0.0, "signal")
    assert not workers.reloader.pending
    report = workers.reloader.last
    assert report is not None
    assert (report.result, report.generation) == ("failed", 1)
    assert "nonsense" in report.errors[0]
