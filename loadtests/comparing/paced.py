"""Load at a fixed rate, whatever the proxy answers: requests arrive as in a Poisson process, on kept-alive connections.

Latency counts from when a request was due, not from when it could be sent, so a stall of the proxy is seen by every
request that was due during it (wrk waits for answers instead, and so asks a slow proxy less).
`python -m loadtests.comparing.paced PORT HOST RATE CONNECTIONS SECONDS SEED [PATH]` prints one JSON object.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import random
import re
import resource
import select
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field

from .percentiles import summary

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_STRAGGLERS_SECONDS = 2.0
_PR_SET_TIMERSLACK = 29


@dataclass
class Outcome:
    """What became of the requests; latencies in seconds."""

    served: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    """Answered with 503."""
    failed: int = 0
    """Answered with something else, cut, or never answered."""
    unsent: int = 0
    """Due, but all connections were busy to the end."""


def complete(data: bytes) -> bool:
    """Whether a response with Content-Length is there as a whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = _LENGTH.search(data, 0, end + 2)
    return len(data) >= end + 4 + (int(length[1]) if length else 0)


class Pacer:
    """A single loop over epoll; `asyncio` would cost as much as what is measured."""

    def __init__(self, port: int, host: str, connections: int, path: str = "/") -> None:
        self.outcome = Outcome()
        self._port = port
        self._request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._epoll = select.epoll()
        self._links: dict[int, socket.socket] = {}
        self._idle: list[socket.socket] = []
        self._due_at: dict[int, float] = {}  # by descriptor, of the request that is out
        self._partial: dict[int, bytes] = {}
        self._waiting: deque[float] = deque()
        for _ in range(connections):
            self._open()

    def _open(self) -> None:
        link = socket.socket()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setblocking(False)
        link.connect_ex(("127.0.0.1", self._port))
        self._links[link.fileno()] = link
        self._epoll.register(link, select.EPOLLOUT)  # idle once it is open

    def run(self, rate: float, seconds: float, dice: random.Random) -> None:
        """Offer `rate` requests a second for `seconds`, then wait a little for the last answers."""
        self._settle()
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            now = time.perf_counter()
            while due <= now and due < end:
                self._waiting.append(due)
                due += dice.expovariate(rate)
            self._send_waiting()
            self._receive(min(due, end) - time.perf_counter())
        self.outcome.unsent = len(self._waiting)
        self._waiting.clear()
        until = time.perf_counter() + _STRAGGLERS_SECONDS
        while self._due_at and time.perf_counter() < until:
            self._receive(0.01)
        self.outcome.failed += len(self._due_at)

    def close(self) -> None:
        """Close every connection."""
        for link in self._links.values():
            link.close()
        self._epoll.close()

    def _settle(self) -> None:
        until = time.perf_counter() + _STRAGGLERS_SECONDS
        while len(self._idle) < len(self._links) and time.perf_counter() < until:
            self._receive(0.01)
        if not self._idle:
            raise ConnectionError("no connection could be opened")

    def _send_waiting(self) -> None:
        waiting, idle = self._waiting, self._idle
        while waiting and idle:
            link = idle.pop()
            self._due_at[link.fileno()] = waiting.popleft()
            with contextlib.suppress(OSError):  # closed meanwhile: the event that tells so is on its way
                link.send(self._request)

    def _receive(self, patience: float) -> None:
        # epoll_wait counts in milliseconds, which is longer than an answer takes; select(2) waits to the microsecond.
        if patience > 0:
            select.select([self._epoll.fileno()], (), (), patience)
        for descriptor, event in self._epoll.poll(0):
            if event & select.EPOLLOUT:
                self._opened(descriptor)
            else:
                self._read(descriptor)

    def _opened(self, descriptor: int) -> None:
        link = self._links[descriptor]
        if link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._replace(descriptor)
            return
        self._epoll.modify(link, select.EPOLLIN)
        self._idle.append(link)

    def _read(self, descriptor: int) -> None:
        link = self._links[descriptor]
        try:
            data = link.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._replace(descriptor)
            return
        if descriptor in self._partial:
            data = self._partial.pop(descriptor) + data
        if not complete(data):
            self._partial[descriptor] = data
            return
        self._count(data, time.perf_counter() - self._due_at.pop(descriptor, time.perf_counter()))
        self._idle.append(link)

    def _count(self, data: bytes, latency: float) -> None:
        if data.startswith(b"HTTP/1.1 200"):
            self.outcome.served.append(latency)
        elif data.startswith(b"HTTP/1.1 503"):
            self.outcome.refused.append(latency)
        else:
            self.outcome.failed += 1

    def _replace(self, descriptor: int) -> None:
        link = self._links.pop(descriptor)
        self.outcome.failed += self._due_at.pop(descriptor, None) is not None
        self._partial.pop(descriptor, None)
        if link in self._idle:
            self._idle.remove(link)
        link.close()
        self._open()


def report(outcome: Outcome, seconds: float, busy: float = 0.0) -> dict[str, float]:
    """What is printed: the served requests as every load tells them, and what became of the others.

    `busy` is the share of the time in which this process was: near 1, it is this process that is measured.
    """
    refused = summary(outcome.refused)
    offered = len(outcome.served) + len(outcome.refused) + outcome.failed + outcome.unsent
    return {
        "requests": len(outcome.served),
        "seconds": seconds,
        "errors": outcome.failed,
        **summary(outcome.served),
        "offered": offered / seconds,
        "refused": len(outcome.refused),
        "refused_p99": refused["p99"],
        "unsent": outcome.unsent,
        "load_busy": busy,
    }


def main(arguments: list[str]) -> None:
    """Run as a process of its own."""
    port, host, rate, connections, seconds, seed, *path = arguments
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)  # the default of 50 µs is a whole request
    try:
        with contextlib.closing(Pacer(int(port), host, int(connections), *path)) as pacer:
            began, spent = time.perf_counter(), time.process_time()
            pacer.run(float(rate), float(seconds), random.Random(int(seed)))
            busy = (time.process_time() - spent) / (time.perf_counter() - began)
    except OSError as error:
        sys.exit(f"{error}")
    print(json.dumps(report(pacer.outcome, float(seconds), busy)))


if __name__ == "__main__":
    main(sys.argv[1:])
