"""The receipt of a drain adds up what its workers did, and what was lost."""

import logging

import pytest

from devhost_server.processes.deaths import Death
from devhost_server.processes.receipt import Receipt


def death(*, failed: bool = False, cut: int = 0, in_flight: int = 0) -> Death:
    how = "exited with code 1" if failed else "exited with code 0"
    return Death("worker 0 (pid 7)", how, failed, "exited", 1.0, 3, 2, cut, in_flight)


def test_workers_are_added_up() -> None:
    receipt = Receipt()
    receipt.count(death())
    receipt.count(death())
    assert str(receipt) == "drained: finished 6, closed 4 websockets, cut 0"
    assert receipt.clean


def test_what_was_cut_is_not_clean() -> None:
    receipt = Receipt()
    receipt.count(death(cut=1))
    assert str(receipt).endswith("cut 1")
    assert not receipt.clean


@pytest.mark.parametrize(("in_flight", "cut"), [(5, 5), (0, 1)])
def test_a_worker_that_fails_has_lost_what_it_had(caplog: pytest.LogCaptureFixture, in_flight: int, cut: int) -> None:
    receipt = Receipt()
    with caplog.at_level(logging.ERROR, "devhost_server.processes.master"):
        receipt.count(death(failed=True, in_flight=in_flight))
    assert str(receipt).endswith(f"cut {cut}")
    assert caplog.messages == ["worker 0 (pid 7) exited with code 1 during the drain"]


def test_a_drain_that_was_hurried_is_not_clean() -> None:
    receipt = Receipt()
    receipt.hurry()
    assert str(receipt).endswith("cut 0")
    assert not receipt.clean
