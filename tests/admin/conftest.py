"""One admin listener for the tests that only read from it."""

from collections.abc import Iterator

import pytest

from devhost_server.shared.board import Board
from tests.admin.harness import Served, served
from tests.shared.boards import Shared


@pytest.fixture(scope="module")
def reading() -> Iterator[Served]:
    """A gateway with two workers, without a token."""
    shared = Shared()
    shared.publish()
    with served(shared) as made:
        yield made


@pytest.fixture
def shared(reading: Served) -> Iterator[Shared]:
    """Its memory, as if the gateway had just started."""
    shared = reading.master.shared
    yield shared
    for slot in range(shared.capacity.slots):
        row = shared.scoreboard.row(slot)
        row[:] = memoryview(bytes(8 * len(row))).cast("q")
    control = reading.master.control_pid
    shared.board[:] = memoryview(bytes(8 * len(shared.board))).cast("q")
    shared.board[Board.CONTROL_PID] = control
    shared.publish()
