"""How many requests begin in one turn of the event loop, and when those that end in it are counted."""

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from devhost_server.doors.http1 import ClientConnection
from devhost_server.exchange import Exchange
from devhost_server.shared.board import code_key
from devhost_server.timing.admission import PER_TURN
from devhost_server.timing.deadlines import NEVER
from tests.benchmarks.inmemory import ROUTES, Loopback, MemoryTransport
from tests.support.compiled import needs_source

GET = b"GET /%d HTTP/1.1\r\nHost: fixed.localhost\r\n\r\n"
# Answered by the configuration, so that an answer is there as soon as a request has begun.
FIXED: dict[str, Any] = ROUTES | {
    "routes": ROUTES["routes"]
    | {"fixed": {"name": "fixed", "hosts": ["fixed.localhost"], "respond": {"status": 200, "body": "hello"}}},
}
REFUSED = b"GET /%d HTTP/1.1\r\nHost: elsewhere.localhost\r\n\r\n"


class House:
    """A gateway of memory, and its clients."""

    def __init__(self) -> None:
        self.loopback = Loopback(FIXED, log=None)
        self.admission = self.loopback.gateway.admission
        self.admission.room = PER_TURN

    def clients(self, count: int) -> list[tuple[ClientConnection, MemoryTransport]]:
        return [self.loopback.connect() for _ in range(count)]

    def all_ask(self, clients: list[tuple[ClientConnection, MemoryTransport]]) -> None:
        """Let what the clients have sent be readable in one turn."""
        for number, (client, _) in enumerate(clients):
            self.loopback.loop.call_soon(client.data_received, GET % number)
        self.turn()

    def turn(self) -> None:
        """Run one turn of the loop."""
        self.loopback.loop.stop()
        self.loopback.loop.run_forever()


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.loopback.close()


def answered(clients: list[tuple[ClientConnection, MemoryTransport]]) -> list[bool]:
    return [transport.sent.startswith(b"HTTP/1.1 200 OK\r\n") for _, transport in clients]


def test_a_turn_begins_so_many_and_the_next_turns_the_rest_in_the_order_they_came(house: House) -> None:
    clients = house.clients(2 * PER_TURN + 5)
    house.all_ask(clients)
    turns = [sum(answered(clients))]
    while not all(answered(clients)):
        assert answered(clients) == sorted(answered(clients), reverse=True)
        house.turn()
        turns.append(sum(answered(clients)))
        assert len(turns) < 20
    assert turns[0] == PER_TURN
    assert max(after - before for before, after in pairwise(turns)) == PER_TURN


def test_who_comes_while_others_stand_in_line_does_not_overtake_them(house: House) -> None:
    clients = house.clients(2 * PER_TURN)
    house.all_ask(clients)
    latecomer = house.clients(1)
    house.all_ask(latecomer)
    assert answered(clients + latecomer) == [True] * len(clients) + [False]
    house.turn()
    assert answered(latecomer) == [True]


def test_there_is_room_again_in_the_next_turn(house: House) -> None:
    clients = house.clients(PER_TURN)
    for _ in range(5):
        house.all_ask(clients)
        while not all(answered(clients)):
            house.turn()
        for _, transport in clients:
            transport.sent = b""


def test_whoever_leaves_while_in_line_is_forgotten(house: House) -> None:
    clients = house.clients(PER_TURN + 3)
    house.all_ask(clients)
    gone, transport = clients[-2]
    gone.eof_received()
    gone.connection_lost(None)
    for _ in range(3):
        house.turn()
    assert not transport.sent
    assert answered(clients) == [True] * (PER_TURN + 1) + [False, True]
    assert not house.admission._line


def test_the_time_in_line_counts(house: House) -> None:
    clients = house.clients(PER_TURN + 1)
    house.all_ask(clients)
    accounts = house.loopback.gateway.accounts
    accounts.settle()
    time.sleep(0.05)
    house.turn()
    (last,) = accounts._over
    assert last.seconds >= 0.05
    before = time.monotonic()
    house.all_ask(clients[-1:])
    (again,) = accounts._over
    assert again.started >= before


def test_no_deadline_passes_in_line(house: House) -> None:
    """It is not the client who is late."""
    clients = house.clients(PER_TURN + 1)
    house.all_ask(clients)
    last, _ = clients[-1]
    assert last.deadline == NEVER
    house.turn()
    assert last.deadline < NEVER


def test_what_follows_on_a_connection_in_line_is_read_in_its_order(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = house.clients(PER_TURN + 1)
    house.all_ask(clients)
    client, transport = clients[-1]
    client.data_received(REFUSED % 2)
    client.data_received(GET % 3)
    sent: list[bytes] = []
    monkeypatch.setattr(transport, "write", sent.append)
    house.turn()
    assert [head.partition(b"\r\n")[0] for head in sent] == [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 404 Not Found",
        b"HTTP/1.1 200 OK",
    ]


def test_a_drain_answers_those_in_line(house: House) -> None:
    clients = house.clients(PER_TURN + 1)
    house.all_ask(clients)
    house.loopback.gateway.clients.begin_drain()
    _, transport = clients[-1]
    house.loopback.gateway.wheel.turn()
    house.turn()
    house.turn()
    assert transport.sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in transport.sent


@needs_source
def test_an_error_of_ours_does_not_strand_the_line(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = house.clients(PER_TURN + 3)
    house.all_ask(clients)
    broken, _ = clients[PER_TURN]
    real = ClientConnection.take_turn

    def take_turn(client: ClientConnection) -> None:
        if client is broken:
            raise ValueError(client)
        real(client)

    monkeypatch.setattr(ClientConnection, "take_turn", take_turn)
    heard: list[object] = []
    house.loopback.loop.set_exception_handler(lambda _, context: heard.append(context["exception"]))
    for _ in range(4):
        house.turn()
    assert answered(clients)[PER_TURN:] == [False, True, True]
    assert len(heard) == 1


# -- the books ---------------------------------------------------------------------------------------------------------


def counted(house: House) -> int:
    accounts, routes = house.loopback.gateway.accounts, house.loopback.gateway.snapshot.routes
    levels = routes.levels(b"fixed.localhost")
    assert levels
    route = routes.find(levels, b"/", b"GET", {}.get)
    assert route is not None
    cell = route.code_cells.get(code_key(b"GET", 200))
    return 0 if cell is None else accounts.row[cell]


def test_what_ends_in_a_turn_is_counted_at_its_end(house: House) -> None:
    clients = house.clients(PER_TURN)
    house.all_ask(clients)
    assert all(answered(clients))
    assert counted(house) == 0
    house.turn()
    assert counted(house) == PER_TURN
    assert house.loopback.gateway.accounts.in_flight == 0
    house.turn()
    assert counted(house) == PER_TURN


@needs_source
def test_an_error_in_the_books_costs_one_entry(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = house.clients(5)
    house.all_ask(clients)
    accounts = house.loopback.gateway.accounts
    real, entered = accounts._enter, 0

    def enter(x: Exchange) -> None:
        nonlocal entered
        entered += 1
        if entered == 2:
            raise ValueError(x)
        real(x)

    monkeypatch.setattr(accounts, "_enter", enter)
    heard: list[object] = []
    house.loopback.loop.set_exception_handler(lambda _, context: heard.append(context["exception"]))
    house.turn()
    house.turn()
    assert counted(house) == 4
    assert len(heard) == 1


def test_a_large_answer_is_counted_at_once_with_those_before_it(house: House) -> None:
    gateway = house.loopback.gateway
    ((client, _),) = house.clients(1)
    client.data_received(GET % 1)
    assert counted(house) == 0
    large = Exchange(client, b"GET", b"/", None, time.monotonic())
    large.status, large.bytes_out = 200, 1_000_000
    gateway.accounts.end(large)
    assert counted(house) == 1
    assert not gateway.accounts._over
