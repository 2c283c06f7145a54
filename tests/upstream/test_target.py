"""A target's connections, against real servers on loopback."""

import asyncio
import os
import random
import re
import resource
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from devhost_server.exchange import Exchange
from devhost_server.failures import Fault, Retry
from devhost_server.messages.request_head import RequestFields
from devhost_server.messages.reuse import Reason
from devhost_server.shared.board import Capacity, Scoreboard, TargetCell
from devhost_server.timing.deadlines import Wheel
from devhost_server.upstream.caller import Event
from devhost_server.upstream.http1 import ServerConnection
from devhost_server.upstream.line import Waiter
from devhost_server.upstream.options import PoolOptions, TargetOptions, UpstreamOptions, UpstreamTimeouts
from devhost_server.upstream.pool import Pool
from devhost_server.upstream.private import PrivateConnections
from devhost_server.upstream.target import Target
from devhost_server.upstream.upstream import Upstream
from tests.support import blackhole, refusing_port
from tests.support.certificates import authority
from tests.support.compiled import needs_source, next_event

# --- the double of a server ------------------------------------------------------------------------------------------


class Server(asyncio.Protocol):
    """A connection of the server; it answers each head with its own number, unless it is told otherwise."""

    def __init__(self, house: "House") -> None:
        self.house = house
        self.number = 0
        self.seen = b""
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.house.count += 1
        self.number = self.house.count
        self.house.live[self.number] = self
        if self.house.slams:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.seen += data
        if self.house.answer:
            self.transport.write(self.house.answer)
        elif self.seen.endswith(b"\r\n\r\n"):
            body = b"%d" % self.number
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.house.live.pop(self.number, None)


class House:
    """A listening server; `live` are its connections by number."""

    def __init__(self) -> None:
        self.count = 0
        self.live: dict[int, Server] = {}
        self.slams = False  # closes connections as soon as they are there
        self.answer = b""  # what is said to anything
        self.port = 0
        self.url = ""


# The targets of the scene under way.
TARGETS: list[Target] = []
# How the scene under way reaches its servers: tcp, tls or unix.
TRANSPORT: ContextVar[str] = ContextVar("TRANSPORT", default="tcp")


@asynccontextmanager
async def serving(transport: str | None = None) -> AsyncIterator[House]:
    house = House()
    transport = transport or TRANSPORT.get()
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as directory:
        if transport == "unix":
            server = await loop.create_unix_server(lambda: Server(house), f"{directory}/s")
            house.url = f"unix:{directory}/s"
        else:
            context = authority().context() if transport == "tls" else None
            # A loop that is closed during a handshake or an end of TLS waits for it: not for a minute.
            bounds = {"ssl_handshake_timeout": 1.0, "ssl_shutdown_timeout": 1.0} if context else {}
            server = await loop.create_server(lambda: Server(house), "127.0.0.1", 0, ssl=context, **bounds)
            house.port = server.sockets[0].getsockname()[1]
            house.url = f"{'https' if context else 'http'}://127.0.0.1:{house.port}"
        async with closing_all(server, house):
            yield house


@asynccontextmanager
async def closing_all(server: asyncio.Server, house: House) -> AsyncIterator[None]:
    try:
        yield
    finally:
        server.close()
        # The other ends have to notice before the loop is closed: uvloop would wait for their TLS to end.
        await until(lambda: abort_all(house) and not any(state(target)[0] for target in TARGETS))


def abort_all(house: House) -> bool:
    """Abort the connections that are there, with one whose handshake has only just ended; True if there are none."""
    for connection in list(house.live.values()):
        connection.transport.abort()
    return not house.live


# --- the one who asks ------------------------------------------------------------------------------------------------


class Asker:
    """An exchange that notes what is posted to it."""

    def __init__(self) -> None:
        fields = RequestFields([])
        self.exchange = Exchange(cast("Any", None), b"GET", b"/", fields, 0.0)
        self.events: list[object] = []
        self.waiter: Waiter | None = None
        self.exchange.run(self._live())

    async def _live(self) -> None:
        while True:
            event = await next_event(self.exchange)
            self.events.append(event)
            if event is None:
                return

    def end(self) -> None:
        """Be over, as an exchange whose client has left."""
        self.exchange.post(None)
        if not self.exchange.over:
            self.exchange.post(None)

    @property
    def connection(self) -> ServerConnection:
        (event,) = self.events
        assert isinstance(event, ServerConnection), event
        return event

    @property
    def fault(self) -> Fault:
        (event,) = self.events
        assert isinstance(event, Fault), event
        return event


def ask(target: Target, *, fresh: bool = False) -> Asker:
    """Wait for a connection as the gateway does when there is no idle one."""
    asker = Asker()
    waiter = target.pool.wait_for(asker.exchange, fresh=fresh)
    if isinstance(waiter, Fault):
        asker.events.append(waiter)
    else:
        asker.waiter = waiter
    return asker


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def connected(target: Target, *, fresh: bool = False) -> ServerConnection:
    """Have a connection: an idle one, or whichever is posted."""
    idle = None if fresh else target.pool.take()
    if idle is not None:
        return idle
    asker = ask(target, fresh=fresh)
    await until(lambda: asker.events)
    return asker.connection


async def used(target: Target, connection: ServerConnection) -> int:
    """Carry one exchange over a connection, give it back, and tell the number the server knows it by."""
    asker = Asker()
    connection.begin(asker.exchange, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: asker.events)
    assert asker.events == [Event.RESPONSE]
    assert asker.exchange.finished_early
    target.pool.release(connection)
    return int(b"".join(asker.exchange.first_pieces))


async def carried(target: Target, connection: ServerConnection) -> None:
    """Carry one exchange over a connection, and give it back."""
    asker = Asker()
    connection.begin(asker.exchange, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: asker.events)
    target.pool.release(connection)


# --- the target ------------------------------------------------------------------------------------------------------

BOARD = Scoreboard(Capacity(1, 1, 1, 1))


def target_at(url: str, **pool: float) -> Target:
    timeouts = UpstreamTimeouts(connect=0.3)
    options = UpstreamOptions(
        targets=(TargetOptions(url=url),), pool=PoolOptions.model_validate(pool), timeouts=timeouts
    )
    wheel = Wheel(asyncio.get_running_loop().time)
    BOARD.erase_target(0)
    upstream = Upstream("app", options, wheel, BOARD.row(0), BOARD.upstream_at(0), [BOARD.target_at(0)], start=0)
    TARGETS.append(upstream.targets[0])
    return upstream.targets[0]


def target_for(house: House, **pool: float) -> Target:
    return target_at(house.url, **pool)


def state(target: Target) -> tuple[int, int, int]:
    """Give how many connections are open and idle, and who waits, as a person would read it in a log."""
    found = re.search(r"open=(\d+) idle=(\d+) waiting=(\d+)", repr(target))
    assert found is not None
    return int(found[1]), int(found[2]), int(found[3])


def gauge(target: Target, cell: TargetCell) -> int:
    target.write_gauges()
    return BOARD.row(0)[BOARD.target_at(0) + cell]


Scene = Callable[[], Awaitable[None]]
Play = Callable[[Scene], None]


@pytest.fixture(
    params=[
        (asyncio.new_event_loop, "tcp"),
        (uvloop.new_event_loop, "tcp"),
        (uvloop.new_event_loop, "tls"),
        (uvloop.new_event_loop, "unix"),
    ],
    ids=["asyncio", "uvloop", "uvloop-tls", "uvloop-unix"],
)
def play(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Play:
    loop_factory, transport = request.param
    monkeypatch.setenv("SSL_CERT_FILE", str(authority().file))

    def run(scene: Scene) -> None:
        async def bounded() -> None:
            TRANSPORT.set(transport)
            TARGETS.clear()
            async with asyncio.timeout(20):
                await scene()

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(bounded())

    return run


# --- taking and giving back ------------------------------------------------------------------------------------------


def test_the_last_one_in_is_the_first_one_out(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house)
            connections = [await connected(target) for _ in range(3)]
            numbers = [await used(target, connection) for connection in connections]
            assert numbers == [1, 2, 3]
            assert state(target) == (3, 3, 0)
            assert target.pool.take() is connections[2]
            assert target.pool.take() is connections[1]
            assert (gauge(target, TargetCell.ACTIVE), gauge(target, TargetCell.IDLE)) == (2, 1)
            target.pool.retire()

    play(scene)


def test_a_connection_that_the_server_has_closed_is_not_given(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house)
            one, other = await connected(target), await connected(target)
            await used(target, one)
            last = await used(target, other)
            house.live[last].transport.abort()
            await until(lambda: state(target) == (1, 1, 0))
            assert target.pool.take() is one
            assert target.pool.take() is None

    play(scene)


def send_unseen(server: Server, data: bytes) -> None:
    """Send bytes that no event loop has had a turn to notice."""
    os.write(server.transport.get_extra_info("socket").fileno(), data)


def test_a_connection_is_looked_at_before_it_is_given(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=2)
            one, other = await connected(target), await connected(target)
            await used(target, one)
            number = await used(target, other)
            send_unseen(house.live[number], b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            assert target.pool.take() is one
            await until(lambda: state(target) == (1, 0, 0))

    play(scene)


def test_a_connection_is_looked_at_before_the_next_in_line_gets_it(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=1, wait=5)
            connection = await connected(target)
            asker = Asker()
            connection.begin(asker.exchange, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: asker.events)
            waiting = ask(target)
            send_unseen(house.live[1], b"x")
            target.pool.release(connection)
            await until(lambda: waiting.events)
            assert waiting.connection is not connection
            await until(lambda: house.count == 2)

    play(scene)


BARE = b"HTTP/1.1 204 None\r\n\r\n"


async def rested(target: Target, connection: ServerConnection) -> None:
    """Wait until a connection has rested, and take it."""
    await until(lambda: target.pool.take() is connection)


def test_after_an_answer_without_a_body_a_connection_rests(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            house.answer = BARE
            target = target_for(house)
            one = await connected(target)
            await carried(target, one)
            assert state(target) == (1, 1, 0)
            assert target.pool.take() is None
            await rested(target, one)
            await carried(target, one)
            house.answer = b""
            other = await connected(target)
            assert other is not one
            await used(target, other)
            assert target.pool.take() is other, "one that need not rest goes first"

    play(scene)


def test_what_comes_while_a_connection_rests_destroys_it(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            house.answer = BARE
            target = target_for(house)
            await carried(target, await connected(target))
            house.live[1].transport.write(b"evil")
            await until(lambda: state(target) == (0, 0, 0))

    play(scene)


@pytest.mark.parametrize("wait", [0, 5])
def test_a_resting_connection_makes_room(play: Play, wait: float) -> None:
    async def scene() -> None:
        async with serving() as house:
            house.answer = BARE
            target = target_for(house, max_connections=1, wait=wait)
            await carried(target, await connected(target))
            late = ask(target)
            await until(lambda: late.events)
            if wait:
                patient = ask(target)
                await carried(target, late.connection)
                await until(lambda: patient.events)
                assert isinstance(patient.connection, ServerConnection)
            await until(lambda: house.count == (3 if wait else 2))
            await until(lambda: len(house.live) == 1)

    play(scene)


def test_retiring_closes_what_rests_and_what_is_private(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            house.answer = BARE
            target = target_for(house)
            one, other = await connected(target), await connected(target)
            await carried(target, one)
            other.owner = PrivateConnections[Pool, ServerConnection]()
            other.reasons |= Reason.CHALLENGE
            await carried(target, other)
            assert (state(target), len(other.owner)) == ((2, 2, 0), 1)
            target.pool.retire()
            await until(lambda: state(target) == (0, 0, 0) and not house.live)
            assert len(other.owner) == 0

    play(scene)


def test_a_private_connection_goes_to_its_owner_alone(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=2)
            connection = await connected(target)
            mine = connection.owner = PrivateConnections[Pool, ServerConnection]()
            connection.reasons |= Reason.CHALLENGE
            await used(target, connection)
            assert target.pool.take() is None
            assert target.pool in mine
            assert target.pool.take_private(mine) is connection
            assert target.pool.active == 1
            await used(target, connection)
            send_unseen(house.live[1], b"x")
            assert target.pool.take_private(mine) is None
            await until(lambda: state(target) == (0, 0, 0))

    play(scene)


def test_a_private_connection_ends_with_its_client(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house)
            one, other = await connected(target), await connected(target)
            mine = one.owner = other.owner = PrivateConnections[Pool, ServerConnection]()
            one.reasons |= Reason.CHALLENGE
            other.reasons |= Reason.CHALLENGE
            await used(target, one)
            mine.close()
            await until(lambda: state(target) == (1, 0, 0))
            await used(target, other)
            await until(lambda: state(target) == (0, 0, 0))

    play(scene)


@pytest.mark.parametrize("surplus", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"])
def test_a_connection_that_says_something_unasked_is_destroyed(play: Play, surplus: bytes) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house)
            number = await used(target, await connected(target))
            house.live[number].transport.write(surplus)
            await until(lambda: not house.live)
            await until(lambda: state(target) == (0, 0, 0))
            assert target.pool.take() is None

    play(scene)


def test_a_connection_that_may_not_be_used_again_is_closed(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house)
            connection = await connected(target)
            target.pool.release(connection)  # nothing was asked on it: its answer is not complete
            await until(lambda: state(target) == (0, 0, 0))
            await until(lambda: not house.live)

    play(scene)


def test_no_more_connections_than_allowed_and_the_next_in_line_is_first(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=2, wait=5)
            first = [await connected(target), await connected(target)]
            line = [ask(target) for _ in range(3)]
            assert state(target) == (2, 0, 3)
            await used(target, first[1])
            assert [bool(asker.events) for asker in line] == [True, False, False]
            assert line[0].connection is first[1]
            await used(target, first[0])
            assert line[1].connection is first[0]
            await until(lambda: house.count == 2)
            first[0].reasons |= Reason.UNFINISHED
            target.pool.release(first[0])  # room for a new connection, which is for the one who waits
            await until(lambda: line[2].events)
            assert line[2].connection is not first[0]
            await until(lambda: house.count == 3)  # over TLS, the server is the last to know

    play(scene)


def test_a_new_connection_goes_to_whoever_has_waited_longest(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house)
            line = [ask(target) for _ in range(4)]
            assert gauge(target, TargetCell.CONNECTING) == 4
            await until(lambda: all(asker.events for asker in line))
            numbers = [await used(target, asker.connection) for asker in line]
            assert sorted(numbers) == [1, 2, 3, 4]
            assert gauge(target, TargetCell.CONNECTING) == 0

    play(scene)


def test_waiting_has_an_end(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=1, wait=0.05)
            connection = await connected(target)
            late = ask(target)
            await until(lambda: late.events)
            assert late.fault.failure.flag == "UO"
            assert "All 1 connections" in late.fault.detail
            assert state(target)[2] == 0
            await used(target, connection)
            assert state(target) == (1, 1, 0)

    play(scene)


@pytest.mark.parametrize(("does", "advice"), [("wait", "waiting"), ("upload", "uploads"), ("answer", "answers")])
def test_a_full_pool_is_told_by_what_fills_it(play: Play, does: str, advice: str) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=1, wait=0.05)
            connection, asker = await connected(target), Asker()
            asker.exchange.request_complete = does != "upload"
            connection.begin(asker.exchange, b"GET / HTTP/1.1\r\n")  # which the server goes on waiting for
            if does == "answer":
                connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            assert connection.doing == does
            late = ask(target)
            await until(lambda: late.events)
            assert late.fault.advice == advice
            asker.end()

    play(scene)


def test_each_waits_its_own_time(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            clock = asyncio.get_running_loop().time
            target = target_for(house, max_connections=1, wait=0.2)
            connection = await connected(target)
            line, asked = [], []
            for _ in range(4):
                line.append(ask(target))
                asked.append(clock())
                await asyncio.sleep(0.03)
            await used(target, connection)
            assert line[0].connection is connection
            seen: dict[int, float] = {}

            def all_refused() -> bool:
                seen.update({at: clock() for at in (1, 2, 3) if line[at].events and at not in seen})
                return len(seen) == 3

            await until(all_refused)
            for at, when in seen.items():
                assert line[at].fault.failure.flag == "UO"
                assert when - asked[at] >= 0.199
            assert sorted(seen, key=seen.__getitem__) == [1, 2, 3]
            assert state(target) == (1, 0, 0)
            assert not target.pool._line._impatient

    play(scene)


def test_whoever_leaves_the_line_is_not_refused_later(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=1, wait=0.05)
            await connected(target)
            line = [ask(target) for _ in range(3)]
            for asker in line[:2]:
                assert asker.waiter is not None
                asker.waiter.leave()
            await until(lambda: line[2].events)
            assert line[2].fault.failure.flag == "UO"
            assert not line[0].events
            assert not line[1].events
            assert state(target)[2] == 0
            assert not target.pool._line._impatient

    play(scene)


def test_no_waiting_is_a_refusal_at_once(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=1, wait=0)
            await connected(target)
            assert ask(target).fault.failure.flag == "UO"
            assert state(target)[2] == 0

    play(scene)


@pytest.mark.parametrize("how", ["leaves", "ends"])
def test_who_no_longer_waits_is_passed_over(play: Play, how: str) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=1, wait=5)
            connection = await connected(target)
            gone, next_one = ask(target), ask(target)
            if how == "leaves":
                assert gone.waiter is not None
                gone.waiter.leave()
            else:
                gone.end()
            await used(target, connection)
            assert next_one.connection is connection
            assert connection not in gone.events

    play(scene)


def test_a_connection_nobody_waits_for_any_more_is_kept(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house)
            gone = ask(target)
            assert gone.waiter is not None
            gone.waiter.leave()
            await until(lambda: state(target) == (1, 1, 0))
            assert not gone.events
            assert await used(target, await connected(target)) == 1

    play(scene)


def test_a_fresh_connection_is_made_at_the_cost_of_an_idle_one(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=2)
            one, other = await connected(target), await connected(target)
            await used(target, one)
            await used(target, other)
            fresh = await connected(target, fresh=True)
            assert fresh not in (one, other)
            await until(lambda: state(target) == (2, 1, 0))
            await until(lambda: len(house.live) == 2)

    play(scene)


def test_a_tunnel_leaves_the_pool(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=1, wait=5)
            connection = await connected(target)
            waiting = ask(target)
            connection.become_tunnel()
            target.pool.surrender(connection)
            await until(lambda: waiting.events)
            assert waiting.connection is not connection
            assert state(target) == (1, 0, 0)
            await until(lambda: len(house.live) == 2)
            connection.transport.set_protocol(asyncio.Protocol())
            connection.transport.abort()
            await until(lambda: len(house.live) == 1)
            assert state(target) == (1, 0, 0)

    play(scene)


def test_idle_connections_expire_and_are_trimmed_the_longest_unused_first(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_idle=2, idle_expiry=30)
            connections = [await connected(target) for _ in range(4)]
            numbers = [await used(target, connection) for connection in connections]
            target.pool.trim()
            await until(lambda: state(target) == (2, 2, 0))
            await until(lambda: set(house.live) == set(numbers[2:]))
            for connection in connections[2:]:
                connection.expire(connection.deadline)
            await until(lambda: state(target) == (0, 0, 0))

    play(scene)


def test_running_out_of_descriptors_is_no_failure_of_the_target(play: Play) -> None:
    async def scene() -> None:
        target = target_at("http://127.0.0.1:9")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # what is open stays open
        try:
            asker = ask(target)
            await until(lambda: asker.events)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        (fault,) = asker.events
        assert isinstance(fault, Fault)
        assert (fault.failure.flag, fault.failure.status, fault.failure.retry_after) == ("UO", 503, 1)
        assert gauge(target, TargetCell.FAILING_SINCE) == 0
        assert state(target) == (0, 0, 0)

    play(scene)


def test_a_socket_that_is_not_there_is_a_refusal(play: Play, tmp_path: Path) -> None:
    async def scene() -> None:
        asker = ask(target_at(f"unix:{tmp_path}/none.sock"))
        await until(lambda: asker.events)
        (fault,) = asker.events
        assert isinstance(fault, Fault)
        assert fault.failure.error == "connection_refused"
        assert "is not there" in fault.detail

    play(scene)


def test_a_retired_target_keeps_nothing(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house)
            busy, idle = await connected(target), await connected(target)
            await used(target, idle)
            target.pool.retire()
            await until(lambda: state(target) == (1, 0, 0))
            assert house.live
            await used(target, busy)
            await until(lambda: state(target) == (0, 0, 0))
            await until(lambda: not house.live)

    play(scene)


# --- what can go wrong -----------------------------------------------------------------------------------------------


def test_refused(play: Play) -> None:
    async def scene() -> None:
        with refusing_port() as port:
            target = target_at(f"http://127.0.0.1:{port}")
            line = [ask(target), ask(target)]
            await until(lambda: all(asker.events for asker in line))
            for asker in line:
                assert (asker.fault.failure.flag, asker.fault.failure.error) == ("UF", "connection_refused")
                assert f"127.0.0.1:{port}" in asker.fault.detail
            assert state(target) == (0, 0, 0)
            assert gauge(target, TargetCell.FAILING_SINCE) > 0

    play(scene)


def test_who_waits_behind_a_refusal_is_tried_for_too(play: Play) -> None:
    async def scene() -> None:
        with refusing_port() as port:
            target = target_at(f"http://127.0.0.1:{port}", max_connections=1, wait=5)
            line = [ask(target) for _ in range(3)]
            await until(lambda: all(asker.events for asker in line), 2.0)
            assert {asker.fault.failure.flag for asker in line} == {"UF"}
            assert state(target) == (0, 0, 0)

    play(scene)


def test_slow_to_accept(play: Play) -> None:
    async def scene() -> None:
        with blackhole() as port:
            target = target_at(f"http://127.0.0.1:{port}")
            asker = ask(target)
            await until(lambda: asker.events)
            assert (asker.fault.failure.flag, asker.fault.failure.status) == ("UT", 504)
            assert "within 0.3 s" in asker.fault.detail
            assert state(target) == (0, 0, 0)

    play(scene)


def test_no_such_name(play: Play) -> None:
    async def scene() -> None:
        target = target_at("http://nowhere.invalid:80")
        asker = ask(target)
        await until(lambda: asker.events)
        assert (asker.fault.failure.flag, asker.fault.failure.error) == ("UF", "dns_error")
        assert "nowhere.invalid" in asker.fault.detail

    play(scene)


def test_no_such_socket(play: Play, tmp_path: Path) -> None:
    async def scene() -> None:
        target = target_at(f"unix:{tmp_path}/nothing")
        asker = ask(target)
        await until(lambda: asker.events)
        assert asker.fault.failure.flag == "UF"
        assert f"unix:{tmp_path}/nothing" in asker.fault.detail

    play(scene)


def test_a_unix_socket(play: Play, tmp_path: Path) -> None:
    async def scene() -> None:
        house = House()
        server = await asyncio.get_running_loop().create_unix_server(lambda: Server(house), f"{tmp_path}/s")
        target = target_at(f"unix:{tmp_path}/s")
        assert target.authority == b"localhost"
        assert await used(target, await connected(target)) == 1
        target.pool.retire()
        server.close()
        await until(lambda: not house.live)

    play(scene)


def test_no_tls_where_it_was_expected(play: Play) -> None:
    async def scene() -> None:
        async with serving("tcp") as house:
            house.answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
            target = target_at(f"https://127.0.0.1:{house.port}")
            asker = ask(target)
            await until(lambda: asker.events)
            assert (asker.fault.failure.flag, asker.fault.failure.error) == ("UF", "tls_protocol_error")
            assert state(target) == (0, 0, 0)

    play(scene)


def test_closed_in_the_middle_of_the_handshake(play: Play) -> None:
    async def scene() -> None:
        async with serving("tcp") as house:
            house.slams = True
            target = target_at(f"https://127.0.0.1:{house.port}")
            asker = ask(target)
            await until(lambda: asker.events)
            assert asker.fault.failure.flag == "UF"
            assert asker.fault.detail
            assert state(target) == (0, 0, 0)

    play(scene)


def test_closed_as_soon_as_accepted_leaves_nobody_waiting(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            house.slams = True
            target = target_for(house, max_connections=2, wait=5)
            line = [ask(target) for _ in range(4)]
            for asker in line:
                await until(lambda asker=asker: asker.events, 2.0)  # type: ignore[misc]
                (event,) = asker.events
                if isinstance(event, ServerConnection):  # it was quicker than the news
                    target.pool.release(event)
                else:
                    assert isinstance(event, Fault)
                    assert event.failure.retry is Retry.SAFE, "nothing was sent"
            await until(lambda: state(target) == (0, 0, 0))

    play(scene)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_what_is_reset_while_it_is_used_takes_up_no_room(play: Play, begun: bytes) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=2)
            for number in range(1, 6):
                connection = await connected(target)
                asker = Asker()
                connection.begin(asker.exchange, b"GET /")  # no end of a head: it waits
                connection.send_body(b"")
                await until(lambda number=number: house.live.get(number) and house.live[number].seen)  # type: ignore[misc]
                if begun:
                    house.live[number].transport.write(begun)
                    await until(lambda connection=connection: connection.heard)  # type: ignore[misc]
                reset(house.live[number].transport)
                await until(lambda asker=asker: asker.events)  # type: ignore[misc]
                assert asker.fault.failure.flag == "UC"
                target.pool.release(connection)
                await until(lambda: state(target) == (0, 0, 0))

    play(scene)


def reset(transport: asyncio.Transport) -> None:
    """End with an RST where there is one."""
    sock = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


@needs_source
def test_an_error_while_the_end_is_told_leaves_no_room_taken(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("on purpose")

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with serving() as house:
            target = target_for(house, max_connections=1)
            connection = await connected(target)
            connection.begin(Asker().exchange, b"GET /")
            await until(lambda: house.live.get(1) and house.live[1].seen)
            monkeypatch.setattr(ServerConnection, "_lost", failing)
            house.live[1].transport.abort()
            await until(lambda: state(target) == (0, 0, 0))

    play(scene)


def test_working_again_is_noted(play: Play) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house)
            since = BOARD.target_at(0) + TargetCell.FAILING_SINCE
            BOARD.row(0)[since] = 1
            await connected(target)
            assert BOARD.row(0)[since] == 0

    play(scene)


# --- a thousand things, at random ------------------------------------------------------------------------------------


class Commotion:
    """Does at random whatever may be done to a target."""

    def __init__(self, house: House, target: Target, seed: int) -> None:
        self.house = house
        self.target = target
        self.dice = random.Random(seed)
        self.asking: list[Asker] = []
        self.held: list[ServerConnection] = []
        self.tunnels: list[asyncio.Transport] = []

    async def step(self) -> None:
        actions = [
            self.ask,
            self.ask,
            self.give_up,
            self.give_back,
            self.give_back,
            self.spoil,
            self.tunnel,
            self.kill,
            self.trim,
        ]
        await self.dice.choice(actions)()
        if self.dice.random() < 0.5:
            await asyncio.sleep(0)
        self.collect()

    def collect(self) -> None:
        for asker in [asker for asker in self.asking if asker.events]:
            self.asking.remove(asker)
            self.held += [event for event in asker.events if isinstance(event, ServerConnection)]

    async def ask(self) -> None:
        fresh = self.dice.random() < 0.2
        idle = None if fresh else self.target.pool.take()
        if idle is not None:
            self.held.append(idle)
        elif len(self.asking) < 20:
            self.asking.append(ask(self.target, fresh=fresh))

    async def give_up(self) -> None:
        if self.asking:
            asker = self.asking.pop(self.dice.randrange(len(self.asking)))
            if asker.waiter is not None:
                asker.waiter.leave()

    def _taken(self) -> ServerConnection | None:
        return self.held.pop(self.dice.randrange(len(self.held))) if self.held else None

    async def give_back(self) -> None:
        connection = self._taken()
        if connection is None:
            return
        if connection.transport.is_closing():
            self.target.pool.release(connection)
            return
        asker = Asker()
        connection.begin(asker.exchange, b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: asker.events or connection.transport.is_closing())
        self.target.pool.release(connection)

    async def spoil(self) -> None:
        connection = self._taken()
        if connection is not None:
            connection.reasons |= Reason.UNFINISHED
            self.target.pool.release(connection)

    async def tunnel(self) -> None:
        connection = self._taken()
        if connection is None:
            return
        if connection.transport.is_closing():
            self.target.pool.release(connection)
            return
        connection.become_tunnel()
        connection.transport.set_protocol(asyncio.Protocol())
        self.target.pool.surrender(connection)
        self.tunnels.append(connection.transport)

    async def kill(self) -> None:
        if self.house.live:
            self.dice.choice(list(self.house.live.values())).transport.abort()

    async def trim(self) -> None:
        self.target.pool.trim()

    async def settle(self) -> None:
        """Give everything back, and wait until all that was asked for has come."""
        while self.asking or self.held:
            await asyncio.sleep(0)
            self.collect()
            if self.held:
                await self.give_back()


@pytest.mark.parametrize("seed", range(2))
def test_a_thousand_operations_lose_no_connection(play: Play, seed: int) -> None:
    async def scene() -> None:
        async with serving() as house:
            target = target_for(house, max_connections=5, max_idle=3, wait=60)
            commotion = Commotion(house, target, seed)
            for _ in range(1000):
                await commotion.step()
                opened, idle, waiting = state(target)
                assert 0 <= idle <= opened
                assert waiting >= 0
                assert target.pool.active == len(commotion.held)
            await commotion.settle()
            await until(lambda: state(target)[0] == state(target)[1])
            assert target.pool.active == 0
            assert gauge(target, TargetCell.CONNECTING) == 0
            for transport in commotion.tunnels:
                transport.abort()
            await until(lambda: len(house.live) == state(target)[0])
            target.pool.retire()
            await until(lambda: state(target) == (0, 0, 0))
            await until(lambda: not house.live)

    play(scene)
