"""Writing an answer to a real socket: what the system calls cost beside all the Python."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, Final, cast

import pytest
import uvloop

from devhost_server.doors.http1 import ClientConnection
from devhost_server.exchange import Exchange
from tests.benchmarks.inmemory import Loopback
from tests.benchmarks.messages import ANSWER

CLIENTS: Final = 50
HEAD, BODY = ANSWER.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", ANSWER.partition(b"\r\n\r\n")[2]


def same(client: ClientConnection) -> ClientConnection:
    return client


class Crowd:
    """Clients on socket pairs, all answered in one turn of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, loopback: Loopback, stack: ExitStack) -> None:
        self.loop = loop
        self.peers: list[socket.socket] = []
        self.clients: list[ClientConnection] = []
        for _ in range(CLIENTS):
            ours, theirs = socket.socketpair()
            self.peers.append(stack.enter_context(theirs))
            client = ClientConnection(cast("Any", loopback), cast("Any", None), {}, loop)
            loop.run_until_complete(loop.connect_accepted_socket(partial(same, client), ours))
            self.clients.append(client)
        self.exchange = Exchange(self.clients[0], b"GET", b"/", None, 0.0)

    def answer(self, write: Callable[[ClientConnection, Exchange], None]) -> set[bytes]:
        """Answer everybody by `write`; give what they got."""
        self.loop.run_until_complete(self._write(write))
        return {peer.recv(4096, socket.MSG_DONTWAIT) for peer in self.peers}

    async def _write(self, write: Callable[[ClientConnection, Exchange], None]) -> None:
        for client in self.clients:
            write(client, self.exchange)
        await asyncio.sleep(0)  # uvloop writes at the end of a turn

    def close(self) -> None:
        for client in self.clients:
            client.transport.abort()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


def together(client: ClientConnection, _: Exchange) -> None:
    client.transport.write(HEAD + BODY)


def apart(client: ClientConnection, _: Exchange) -> None:
    client.transport.write(HEAD)
    client.transport.write(BODY)


@pytest.mark.benchmark(group=f"small answers to {CLIENTS} clients")
@pytest.mark.parametrize("write", [together, apart])
@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_small_answer_is_one_write(
    benchmark: Any, make_loop: Callable[[], asyncio.AbstractEventLoop], write: Callable[..., None]
) -> None:
    """Head and body in one write save a system call for each answer, or where the event loop gathers writes itself, as
    uvloop does, the gathering.
    """
    with ExitStack() as stack:
        loopback = stack.enter_context(closing(Loopback(log=None)))
        crowd = stack.enter_context(closing(Crowd(make_loop(), loopback, stack)))
        assert benchmark(crowd.answer, write) == {ANSWER}
