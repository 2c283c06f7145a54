"""Two workers on uvloop that only accept and answer: on one shared listening socket, or one each (SO_REUSEPORT).

`python -m loadtests.comparing.acceptors PORT shared|reuseport` serves until SIGTERM. It shows how the kernel hands out
connections to workers such as the gateway's, without the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from typing import cast

import setproctitle
import uvloop

WORKERS = 2
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_BACKLOG = 2048


class Answer(asyncio.Protocol):
    """Answers whatever comes, and stays open."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to answer on."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take the bytes for one request."""
        self._transport.write(_ANSWER)


def listening(port: int, *, reuse: bool) -> socket.socket:
    """A listening socket of the loopback address."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


async def _serve(listener: socket.socket) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(Answer, sock=listener, backlog=_BACKLOG)
    await stop.wait()
    server.close()


def _work(listener: socket.socket, number: int) -> None:
    setproctitle.setproctitle(f"acceptor worker {number}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(listener))
    os._exit(0)


def _stop(children: list[int]) -> None:
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)


def main(port: int, *, reuse: bool) -> None:
    """Start the workers, and end with them."""
    listeners = [listening(port, reuse=True) for _ in range(WORKERS)] if reuse else [listening(port, reuse=False)]
    children: list[int] = []
    for number in range(WORKERS):
        child = os.fork()
        if child == 0:
            for other in listeners:
                if other is not listeners[number % len(listeners)]:
                    other.close()
            _work(listeners[number % len(listeners)], number)
        children.append(child)
    for listener in listeners:
        listener.close()  # or the kernel would hand connections to a socket on which nobody accepts
    signal.signal(signal.SIGTERM, lambda *_: _stop(children))
    for child in children:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), reuse=sys.argv[2] == "reuseport")
