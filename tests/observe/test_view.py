from typing import Any

import orjson
import pytest

from devhost_server.observe.view import Served
from devhost_server.shared.board import Board, RouteCell, Slot, TargetCell, WorkerState
from devhost_server.shared.publication import Document
from tests.shared.boards import Shared

TARGET = ("api", "http://127.0.0.1:8000")


@pytest.fixture
def shared() -> Shared:
    made = Shared()
    made.publish()
    return made


def test_before_the_first_snapshot_there_is_nothing() -> None:
    view = Shared().view()
    assert view.served == Served()
    assert view.rows == {}
    assert view.served.listeners == []
    assert not view.is_serving()


def test_names_and_blocks_come_from_the_document(shared: Shared) -> None:
    served = shared.view().served
    assert (served.generation, served.env, served.instance) == (1, "dev", "1a2b3c4d")
    assert served.routes == {"-": 0, "api": 1, "web": 2, "ping": 3}
    assert served.targets == {TARGET: 0, ("api", "http://127.0.0.1:8001"): 1, ("web", "unix:/run/web.sock"): 2}
    assert served.listeners == ["127.0.0.1:7777"]


def test_the_document_is_parsed_once_for_each_generation(shared: Shared) -> None:
    first = shared.view().served
    assert shared.view().served is first
    shared.publish(2)
    assert shared.view().served.generation == 2


def test_a_document_that_is_being_written_leaves_the_last_one(shared: Shared) -> None:
    first = shared.view().served
    right = shared.board[Board.SNAPSHOT_SUM]
    shared.publish(2)
    new = shared.board[Board.SNAPSHOT_SUM]
    shared.board[Board.SNAPSHOT_SUM] = right
    assert shared.view().served is first
    shared.board[Board.SNAPSHOT_SUM] = new
    assert shared.view().served.generation == 2


def test_the_report_of_the_last_reload(shared: Shared) -> None:
    assert shared.reader.report() is None
    report: dict[str, Any] = {"result": "ok", "generation": 2, "errors": []}
    shared.publication.write(Document.REPORT, orjson.dumps(report))
    assert shared.reader.report() == report


def test_totals_add_up_the_rows_that_a_worker_has_held(shared: Shared) -> None:
    for slot in (0, 2):
        worker = shared.worker(slot)
        worker.row[worker.route("api") + RouteCell.REQUEST_BYTES] = 10 + slot
        worker.row[worker.route("api") + RouteCell.RESPONSE_BYTES] = 100 + slot
    view = shared.view()
    at = dict(view.routes())[("api",)]
    assert list(view.rows) == [0, 2]
    assert view.total(at + RouteCell.REQUEST_BYTES) == 22
    assert view.totals(at + RouteCell.REQUEST_BYTES, 2) == [22, 202]


def test_totals_without_rows_are_zero(shared: Shared) -> None:
    assert shared.view().totals(0, 3) == [0, 0, 0]


def test_a_target_fails_as_long_as_the_last_try_of_any_worker_failed(shared: Shared) -> None:
    one, two = shared.worker(0), shared.worker(1)
    at = one.target(*TARGET)
    assert (shared.view().was_tried(at), shared.view().failing_since(at)) == (False, None)
    one.exchange(*TARGET)
    assert (shared.view().was_tried(at), shared.view().failing_since(at)) == (True, None)
    one.row[at + TargetCell.FAILING_SINCE], two.row[at + TargetCell.FAILING_SINCE] = 2_000_000, 1_000_000
    assert shared.view().failing_since(at) == 1_000_000
    two.row[at + TargetCell.FAILING_SINCE] = 0
    assert shared.view().failing_since(at) == 2_000_000
    one.row[at + TargetCell.FAILING_SINCE] = 0
    assert shared.view().failing_since(at) is None


def test_a_dead_workers_experience_is_forgotten(shared: Shared) -> None:
    worker = shared.worker(0)
    at = worker.target(*TARGET)
    worker.row[at + TargetCell.FAILING_SINCE] = 1
    shared.bury(0)
    assert shared.view().failing_since(at) is None


@pytest.mark.parametrize(
    ("state", "generation", "serving"),
    [
        (WorkerState.READY, 1, True),
        (WorkerState.READY, 0, False),
        (WorkerState.BOOTING, 1, False),
        (WorkerState.DRAINING, 1, False),
        (WorkerState.EMPTY, 1, False),
    ],
)
def test_serving_takes_a_ready_worker_with_a_generation(
    shared: Shared, state: WorkerState, generation: int, serving: bool
) -> None:
    shared.worker(1, state=state, generation=generation)
    assert shared.view().is_serving() is serving


def test_workers_that_live_are_those_with_a_state(shared: Shared) -> None:
    shared.worker(0)
    shared.worker(3, state=WorkerState.BOOTING)
    shared.worker(1)
    shared.bury(1)
    view = shared.view()
    assert list(view.workers()) == [0, 3]
    assert list(view.rows) == [0, 1, 3]
    assert view.rows[1][Slot.PID]
