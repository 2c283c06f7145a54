"""An exchange always ends, is counted once and leaves nothing behind, wherever its life breaks."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any, Self, cast

import pytest

from devhost_server import gateway as gateway_module
from devhost_server.doors.http1 import ClientConnection
from devhost_server.exchange import Exchange
from devhost_server.failures import CLIENT_GONE
from devhost_server.shared.board import RouteCell, TargetCell
from devhost_server.upstream.caller import Event
from devhost_server.upstream.http1 import ServerConnection
from tests.benchmarks.inmemory import ROUTES, Loopback
from tests.benchmarks.messages import ANSWER, SMALL
from tests.support.compiled import needs_source, next_event

HOST = b"Host: app.localhost\r\n"
UPLOAD = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
REUPLOAD = b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
SOCKET = (
    b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
CHUNKED = b" / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
FIXED: dict[str, Any] = ROUTES | {
    "upstreams": {"app": ROUTES["upstreams"]["app"] | {"buffer_body": 100}},
    "routes": ROUTES["routes"]
    | {"fixed": {"name": "fixed", "hosts": ["fixed.localhost"], "respond": {"status": 200, "body": "hello"}}},
}


class House:
    """A gateway of memory whose connections are lost once they have been closed, as on a socket."""

    def __init__(self) -> None:
        self.loopback = Loopback(FIXED, log=None)
        self.gateway = self.loopback.gateway
        self.lost: set[object] = set()
        self.clients: list[ClientConnection] = []
        self.errors: list[dict[str, Any]] = []
        self.loopback.loop.set_exception_handler(lambda _, context: self.errors.append(context))

    @property
    def servers(self) -> list[ServerConnection]:
        return [server for server in self.loopback.loop.made if server not in self.lost]

    def turn(self, turns: int = 4) -> None:
        """Run turns of the loop, and let what has been closed be lost."""
        for _ in range(turns):
            self.loopback.loop.call_soon(self.loopback.loop.stop)
            self.loopback.loop.run_forever()
            for connection in (*self.clients, *self.loopback.loop.made):
                if connection not in self.lost and connection.transport.is_closing():
                    self.lost.add(connection)
                    connection.connection_lost(None)

    def ask(self, request: bytes) -> ClientConnection:
        client, _ = self.loopback.connect()
        self.clients.append(client)
        self.inside(lambda: client.data_received(request))
        return client

    def inside(self, work: Callable[[], None]) -> None:
        """Do something in a turn of the loop."""

        async def turn() -> None:
            work()

        self.loopback.loop.run_until_complete(turn())

    def answer(self, answer: bytes) -> None:
        """Let the target answer whatever it was asked."""
        for server in self.servers:
            if server.caller is not None:
                self.inside(lambda server=server: server.data_received(answer))  # type: ignore[misc]

    def counted(self) -> int:
        """How many exchanges were counted."""
        board, codes = self.loopback.board, 0
        self.gateway.accounts.settle()
        for block in range(len(FIXED["routes"]) + 1):
            at = board.route_at(block)
            codes += sum(board.row(0)[at + RouteCell.DURATION : at + RouteCell.CODES - 1])
        return codes

    def leftovers(self) -> dict[str, object]:
        """What is held although nothing is under way; empty if all is as it should be."""
        accounts, target = self.gateway.accounts, self.loopback.target
        row = accounts.row
        in_flight = [row[self.loopback.board.route_at(block)] for block in range(3)]
        tunnels = [row[self.loopback.board.route_at(block) + RouteCell.WEBSOCKETS] for block in range(3)]
        target.write_gauges()
        held = {
            "exchanges in flight": accounts.in_flight,
            "in flight by route": sum(map(abs, in_flight)),
            "tunnels": sum(map(abs, tunnels)) + len(self.gateway.clients.tunnels),
            "bytes of bodies": self.gateway.bodies.held,
            "connections that carry": target.pool.active + row[target.cell + TargetCell.ACTIVE],
            "connections too many": len(target.pool._connections) - len(self.servers),
            "waiters": sum(waiter.caller is not None for waiter in target.pool._waiting),
            "exchanges of clients": [c for c in self.clients if c.exchange is not None and c not in self.lost],
            "exchanges of servers": [server for server in self.servers if server.caller is not None],
        }
        return {what: value for what, value in held.items() if value}


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    house = House()
    yield house
    house.loopback.close()


class InjectedError(Exception):
    """What no code of ours expects."""


class Injector:
    """Makes the call number `at` that the gateway makes fail before it has done anything."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0
        self.begun: list[FrameType] = []
        self.what = ""

    def __enter__(self) -> Self:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self.begun.clear()

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        caller = frame if event == "c_call" else frame.f_back
        if caller is None or event not in ("call", "c_call") or caller.f_code.co_filename != gateway_module.__file__:
            return
        if event == "call":
            if frame in self.begun:
                return  # a coroutine goes on where it waited: that is no call
            self.begun.append(frame)
        name = argument.__name__ if event == "c_call" else frame.f_code.co_name
        # What cannot fail: it looks at a type, or adds to a set or number.
        if name in ("isinstance", "add", "discard", "count_tunnels") or (
            caller.f_code.co_name in ("broke", "_abandon", "<lambda>")
        ):
            return
        self.seen += 1
        if self.seen == self.at:
            self.what = f"{caller.f_code.co_name} calls {name}"
            raise InjectedError(self.what)


def scenario_answer(house: House) -> None:
    house.ask(SMALL)
    house.turn()
    house.answer(ANSWER)


def scenario_streamed(house: House) -> None:
    house.ask(UPLOAD)
    house.turn()
    house.answer(CHUNKS)
    house.answer(b"0\r\n\r\n")


def scenario_fixed(house: House) -> None:
    house.ask(b"GET / HTTP/1.1\r\nHost: fixed.localhost\r\n\r\n")


def scenario_no_route(house: House) -> None:
    house.ask(b"GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n")


def scenario_bad_head(house: House) -> None:
    house.ask(b"GET / HTTP/9.9\r\nHost: app.localhost\r\n\r\n")


def scenario_retried(house: House) -> None:
    house.ask(REUPLOAD)
    house.turn()
    for server in house.servers:
        if server.caller is not None:
            server.transport.abort()
    house.turn()
    house.answer(ANSWER)


def scenario_buffered(house: House) -> None:
    client = house.ask(b"POST" + CHUNKED)
    for piece in (b"5\r\nhello\r\n", b"0\r\n\r\n"):
        house.inside(lambda piece=piece: client.data_received(piece))  # type: ignore[misc]
    house.turn()
    house.answer(ANSWER)


def scenario_buffered_and_retried(house: House) -> None:
    client = house.ask(b"PUT" + CHUNKED)
    house.inside(lambda: client.data_received(b"5\r\nhello\r\n0\r\n\r\n"))
    house.turn()
    for server in house.servers:
        if server.caller is not None:
            server.transport.abort()
    house.turn()
    house.answer(ANSWER)


def scenario_too_large_for_the_buffer(house: House) -> None:
    client = house.ask(b"PUT" + CHUNKED)
    for piece in (b"5\r\nhello\r\n", b"8000\r\n" + b"x" * 0x8000 + b"\r\n", b"0\r\n\r\n"):
        house.inside(lambda piece=piece: client.data_received(piece))  # type: ignore[misc]
        house.turn()
    house.answer(ANSWER)


def scenario_client_gone_while_buffering(house: House) -> None:
    client = house.ask(b"POST" + CHUNKED)
    house.inside(lambda: client.data_received(b"5\r\nhello\r\n"))
    client.transport.abort()


def scenario_cut(house: House) -> None:
    house.ask(SMALL)
    house.turn()
    house.answer(CHUNKS)
    house.answer(b"no chunk\r\n")


def scenario_client_gone(house: House) -> None:
    client = house.ask(SMALL)
    house.turn()
    client.transport.abort()


def scenario_tunnel(house: House) -> None:
    client = house.ask(SOCKET)
    house.turn()
    house.answer(SWITCHING)
    for tunnel in tuple(house.gateway.clients.tunnels):
        tunnel.cut()
    client.transport.abort()


SCENARIOS = [value for name, value in globals().items() if name.startswith("scenario_")]


@needs_source
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_wherever_a_life_breaks_the_exchange_ends_and_is_counted_once(
    house: House, scenario: Callable[[House], None]
) -> None:
    at = 0
    while True:
        at += 1
        before, lost = house.counted(), len(house.lost)
        with Injector(at) as injector:
            scenario(house)
        house.turn()
        surrendered = [server for server in house.loopback.loop.made if server._state == 4]
        house.lost.update(surrendered)  # their tunnel has them
        assert house.leftovers() == {}, f"{injector.what} (call {at}; {len(house.lost) - lost} were lost)"
        assert house.counted() - before == 1, f"{injector.what} (call {at})"
        if not injector.what:
            break
    assert at > 5, "something was tried"
    assert not house.errors, house.errors


def test_counted_twice_is_counted_once(house: House) -> None:
    client = house.ask(SMALL)
    house.turn()
    exchange = client.exchange
    assert exchange is not None
    house.answer(ANSWER)
    before = house.counted()
    assert not house.gateway.accounts.end(exchange)
    house.gateway.broke(exchange)
    assert house.counted() == before
    assert house.leftovers() == {} or not house.turn()
    house.turn()
    assert house.leftovers() == {}


# -- waiting -----------------------------------------------------------------------------------------------------------


class Broken:
    """Stands in for a client: notes which exchanges broke, and why."""

    def __init__(self) -> None:
        self.heard: list[tuple[Exchange, BaseException]] = []


def blank(client: Broken) -> Exchange:
    return Exchange(cast("Any", client), b"GET", b"/", None, 0.0)


class Foreign:
    """Yields whatever it was given, as a future or a sleep does."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __await__(self) -> Iterator[Any]:
        yield self.value


@pytest.mark.parametrize("kind", ["nothing", "future", "sleep", "another exchange's event", "a value"])
def test_waiting_for_anything_but_its_own_events_fails_the_exchange_at_once(kind: str) -> None:
    client, loop, cleaned = Broken(), asyncio.new_event_loop(), []
    other = blank(client)
    awaited: dict[str, Callable[[], Awaitable[object]]] = {
        "nothing": lambda: Foreign(None),
        "future": loop.create_future,
        "sleep": lambda: asyncio.sleep(0),
        "another exchange's event": lambda: next_event(other),
        "a value": lambda: Foreign("response"),
    }

    async def life() -> None:
        try:
            await awaited[kind]()
        except RuntimeError as error:
            client.heard.append((x, error))
        finally:
            cleaned.append(kind)

    x = blank(client)
    x.run(life())
    loop.close()
    ((broken, why),) = client.heard
    assert broken is x
    assert "own events only" in str(why)
    assert cleaned == [kind]
    assert x.over
    x.post(Event.RESPONSE)
    assert len(client.heard) == 1


def test_its_own_events_are_waited_for() -> None:
    client, told = Broken(), []

    async def life(x: Exchange) -> None:
        told.append(await next_event(x))
        told.append(await next_event(x))

    x = blank(client)
    x.run(life(x))
    fault = CLIENT_GONE("")
    x.post(Event.RESPONSE)
    assert not x.over
    x.post(fault)
    assert x.over
    assert told == [Event.RESPONSE, fault]
    assert client.heard == []
