"""Accepting in turns, on real listeners."""

import asyncio
import errno
import resource
import socket
from collections.abc import Awaitable, Callable

import pytest

from devhost_server.options import Bind
from devhost_server.processes.accepting import Acceptor
from devhost_server.sockets.listeners import listen


class Taken(asyncio.Protocol):
    """Counts the connections that one acceptor has handed over."""

    def __init__(self, taken: list[asyncio.BaseTransport]) -> None:
        self._taken = taken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._taken.append(transport)


def run(test: Callable[[socket.socket], Awaitable[None]]) -> None:
    async def main() -> None:
        listener = listen(Bind("127.0.0.1", 0))
        async with asyncio.timeout(10):
            await test(listener)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def connect(listener: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listener.getsockname()) for _ in range(count)]


def close(clients: list[socket.socket], taken: list[asyncio.BaseTransport]) -> None:
    for client in clients:
        client.close()
    for transport in taken:
        transport.abort()  # type: ignore[attr-defined] # a socket's transport


def test_a_burst_is_shared_by_two_that_accept_on_one_listener() -> None:
    async def test(listener: socket.socket) -> None:
        shares: list[list[asyncio.BaseTransport]] = [[], []]
        acceptors = [
            Acceptor(
                listener.dup(),
                lambda share=share: Taken(share),
                lambda share=share: (len(share), min(map(len, shares))),
            )
            for share in shares
        ]
        for acceptor in acceptors:
            acceptor.start()
        clients = connect(listener, 100)
        await until(lambda: sum(map(len, shares)) == 100)
        assert min(map(len, shares)) >= 40, list(map(len, shares))
        for acceptor in acceptors:
            await acceptor.stop()
        close(clients, [*shares[0], *shares[1]])
        listener.close()

    run(test)


def test_one_that_has_more_yields_but_never_lets_anybody_wait_for_good() -> None:
    async def test(listener: socket.socket) -> None:
        taken: list[asyncio.BaseTransport] = []
        acceptor = Acceptor(listener, lambda: Taken(taken), lambda: (100, 0))
        acceptor.start()
        clients = connect(listener, 30)
        await until(lambda: len(taken) == 30)
        await acceptor.stop()
        close(clients, taken)

    run(test)


def test_what_the_kernel_has_accepted_is_taken_before_the_listener_closes() -> None:
    async def test(listener: socket.socket) -> None:
        taken: list[asyncio.BaseTransport] = []
        acceptor = Acceptor(listener, lambda: Taken(taken), lambda: (0, 0))
        clients = connect(listener, 20)
        acceptor.start()
        await acceptor.stop()
        assert len(taken) == 20
        close(clients, taken)

    run(test)


def test_without_descriptors_it_pauses_says_so_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def test(listener: socket.socket) -> None:
        taken: list[asyncio.BaseTransport] = []
        clients = connect(listener, 3)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        acceptor = Acceptor(listener, lambda: Taken(taken), lambda: (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (clients[0].fileno(), hard))
        try:
            acceptor.start()
            await asyncio.sleep(0.35)  # three pauses
            assert not taken
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await until(lambda: len(taken) == 3)
        complaints = [record for record in caplog.records if "cannot accept" in record.message]
        assert len(complaints) == 1
        await acceptor.stop()
        close(clients, taken)

    run(test)


def test_a_listener_that_is_broken_is_not_spun_on() -> None:
    class Broken(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            raise OSError(errno.EINVAL, "not listening")

    async def test(listener: socket.socket) -> None:
        broken = Broken(fileno=listener.detach())
        acceptor = Acceptor(broken, lambda: Taken([]), lambda: (0, 0))
        acceptor.start()
        await acceptor.stop()

    run(test)
