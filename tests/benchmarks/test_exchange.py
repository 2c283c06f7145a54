"""The whole exchange, and the coroutine that tells its life."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from itertools import cycle
from typing import Any, cast

import pytest
import uvloop

from devhost_server.exchange import Exchange
from devhost_server.shared.board import code_key
from tests.benchmarks.inmemory import Loopback
from tests.benchmarks.messages import ANSWER, BROWSER, SMALL
from tests.benchmarks.steps import steps
from tests.support.compiled import COMPILED, next_event

REQUEST_ID = re.compile(rb"\r\nX-Request-ID: [0-9a-f]{32}")
LIVES = 100
TURN = 16


# The same but for one line: as two clients send it behind one proxy, as one client asks for two things, and as a target
# answers in another second.
OTHER_ACCEPT = (b"\r\nAccept: ", b"\r\nAccept: application/json, ")
OTHER_PATH = (b" HTTP/1.1", b"&more HTTP/1.1")
OTHER_DATE = (b"09:00:00", b"09:00:01")


@pytest.mark.benchmark(group="a whole exchange")
@pytest.mark.parametrize(
    ("request_", "change", "log", "idle"),
    [
        pytest.param(SMALL, None, "/dev/null", 1, id="small head, all the same again"),
        pytest.param(SMALL, OTHER_PATH, "/dev/null", 1, id="small head, another path every time"),
        pytest.param(SMALL, OTHER_ACCEPT, "/dev/null", 1, id="small head, other fields every time"),
        pytest.param(SMALL, OTHER_DATE, "/dev/null", 1, id="small head, another answer every time"),
        pytest.param(SMALL, None, None, 1, id="small head, no log"),
        pytest.param(SMALL, None, "/dev/null", 500, id="small head, 500 idle connections"),
        pytest.param(BROWSER, None, "/dev/null", 1, id="browser's head, all the same again"),
        pytest.param(BROWSER, OTHER_PATH, "/dev/null", 1, id="browser's head, another path every time"),
        pytest.param(BROWSER, OTHER_ACCEPT, "/dev/null", 1, id="browser's head, other fields every time"),
    ],
)
def test_a_whole_exchange(
    benchmark: Any, request_: bytes, change: tuple[bytes, bytes] | None, log: str | None, idle: int
) -> None:
    """A connection remembers its last request line and field block, and a target its last answer's head: the same again
    saves analysing it, laying out what is passed on and the parts of the log line that depend on it. Against the row
    without a log is what the line costs; that of many idle connections saves nothing, and must cost nothing either.
    """
    pairs = [(request_, ANSWER)]
    if change is not None:
        pairs.append((request_.replace(*change, 1), ANSWER.replace(*change, 1)))
        assert pairs[0] != pairs[1]
    with closing(Loopback(log=log, idle=idle)) as loopback:
        coming = cycle(pairs)
        assert REQUEST_ID.search(benchmark(lambda: loopback.exchange(*next(coming))))
        for request, answer in pairs:
            got = REQUEST_ID.sub(b"", loopback.exchange(request, answer))
            head, _, body = answer.replace(b"\r\nConnection: keep-alive", b"").partition(b"\r\n\r\n")
            assert got == head + b"\r\nVia: 1.1 devhost\r\n\r\n" + body
            kept = b"\r\n".join(line for line in request.split(b"\r\n") if not line.startswith(b"Connection:"))
            assert loopback.server_transport.sent.startswith(kept.removesuffix(b"\r\n\r\n") + b"\r\nX-Forwarded-For: ")


@pytest.mark.benchmark(group="the exchanges of a turn")
@pytest.mark.parametrize("together", [False, True], ids=["entered one by one", "entered together"])
def test_the_books_of_a_turn_are_closed_together(benchmark: Any, together: bool) -> None:
    """Counting and logging in one loop at the end of a turn finds its own code in the caches. The kernel's work between
    two exchanges, which is not in this figure, makes the difference larger.
    """
    with closing(Loopback()) as loopback:
        accounts = loopback.gateway.accounts

        def turn() -> int:
            for _ in range(TURN):
                loopback.client.data_received(SMALL)
                loopback.server.data_received(ANSWER)
                if not together:
                    accounts.settle()
            accounts.settle()
            return accounts.row[route.code_cells[code_key(b"GET", 200)]]

        loopback.client.data_received(SMALL)
        exchange = loopback.client.exchange
        assert exchange is not None
        route = exchange.route
        assert route is not None
        loopback.server.data_received(ANSWER)
        before = benchmark(turn)
        assert turn() == before + TURN


def least_steps(loopback: Loopback) -> int:
    """Give the steps of an exchange that meets neither a new second for the log nor an empty stock of request ids."""
    return min(steps(lambda: loopback.exchange(SMALL, ANSWER)) for _ in range(10))


def test_idle_connections_are_not_looked_at() -> None:
    """Taking a connection out of many and giving it back takes no more steps than with a single one."""
    with closing(Loopback()) as one, closing(Loopback(idle=500)) as many:
        assert least_steps(many) <= least_steps(one)


# --- who drives it ---------------------------------------------------------------------------------------------------

Wait = Callable[[], Awaitable[Any]]


async def life(wait: Wait, told: list[object]) -> None:
    """A life of two waits, as most exchanges have one or two."""
    told.append(await wait())
    told.append(await wait())


def blank() -> Exchange:
    return Exchange(cast("Any", None), b"GET", b"/", None, 0.0)


def posted() -> list[object]:
    """Exchanges: each event runs the coroutine to its next wait."""
    told: list[object] = []
    exchanges = [blank() for _ in range(LIVES)]
    for x in exchanges:
        x.run(life(x.event if not COMPILED else partial(next_event, x), told))
    for event in ("response", "finished"):
        for x in exchanges:
            x.post(event)
    assert all(x.over for x in exchanges)
    return told


class Waiting:
    """What a task waits with: a future for each event."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.exchange = blank()
        self.loop = loop
        self.future = loop.create_future()

    async def event(self) -> object:
        event = await self.future
        self.future = self.loop.create_future()
        return event


def tasks(loop: asyncio.AbstractEventLoop) -> list[object]:
    """Tasks: each event sets a future, and the event loop runs the coroutine in its next turn."""
    told: list[object] = []

    async def main() -> None:
        waits = [Waiting(loop) for _ in range(LIVES)]
        running = [loop.create_task(life(wait.event, told)) for wait in waits]
        await asyncio.sleep(0)
        for event in ("response", "finished"):
            for wait in waits:
                wait.future.set_result(event)
            await asyncio.sleep(0)
        await asyncio.gather(*running)

    loop.run_until_complete(main())
    return told


@pytest.mark.benchmark(group=f"{LIVES} lives of two waits")
@pytest.mark.parametrize(
    "make_loop",
    [
        pytest.param(None, id="post"),
        pytest.param(asyncio.new_event_loop, id="task and futures, asyncio"),
        pytest.param(uvloop.new_event_loop, id="task and futures, uvloop"),
    ],
)
def test_a_coroutine_without_a_task(benchmark: Any, make_loop: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
    """Posting an event runs the coroutine there and then: that saves a task for each exchange, a future for each wait,
    and a turn of the event loop between an event and what follows from it.
    """
    expected = ["response"] * LIVES + ["finished"] * LIVES
    if make_loop is None:
        assert benchmark(posted) == expected
        return
    with closing(make_loop()) as loop:
        assert benchmark(tasks, loop) == expected


# --- who is asking ---------------------------------------------------------------------------------------------------


@pytest.mark.benchmark(group="a client connects and leaves")
@pytest.mark.parametrize("peers", [1, 10_000], ids=["a peer that comes back", "a new peer every time"])
def test_peers_are_remembered(benchmark: Any, peers: int) -> None:
    """A peer that comes back saves parsing its address, looking it up among the trusted ones and writing the lines that
    tell the target about it.
    """
    with closing(Loopback()) as loopback:
        coming = cycle([(f"10.1.{number >> 8}.{number & 255}", 50_000) for number in range(peers)])

        def connect() -> tuple[bytes, bytes]:
            peer = next(coming)
            client, _ = loopback.connect(peer)
            client.connection_lost(None)
            return peer[0].encode(), client.peer.address

        expected, address = benchmark(connect)
        assert address == expected
