"""Whatever clients invent, a worker remembers only so much of it, and the next request is as quick as before."""

import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.integration.helpers import PATIENT, EchoGateway, pss_kib
from tests.support import request, wait_until

LIMIT_KIB: Final = 10 * 1024
BATCH: Final = 50
HOST: Final = "fixed.test"

Make = Callable[[int], bytes]


def field(name: str, value: str) -> Make:
    """Requests with a header whose name or value has a number in it."""
    return lambda number: request("GET", "/", [(name.format(number), value.format(number))], host=HOST)


FLOODS: Final[dict[str, Make]] = {
    "methods": lambda number: request(f"M{number}", "/", host=HOST),
    "methods as long as they may be": lambda number: request(f"M{number}".ljust(32, "X"), "/", host=HOST),
    "hosts": lambda number: request("GET", "/", host=f"h{number}.{HOST}"),
    "long hosts": lambda number: request("GET", "/", host=f"h{number}.".ljust(250, "h")),
    "ports": lambda number: request("GET", "/", host=f"{HOST}:{number % 65536}"),
    "absolute targets": lambda number: request("GET", f"http://a{number}.test/", host=f"a{number}.test"),
    "paths": lambda number: request("GET", f"/{number}", host=HOST),
    "long paths": lambda number: request("GET", f"/{number}".ljust(2000, "p"), host=HOST),
    "query names": lambda number: request("GET", f"/?q{number}=1&token{number}=x", host=HOST),
    "header names": field("X-Name-{}", "1"),
    "header values": field("X-Value", "v{}"),
    "long header values": field("X-Value", "{}" + "v" * 230),
    "cookies": field("Cookie", "session={}; theme=dark"),
    "authorizations": field("Authorization", "Bearer {}"),
    "agents": field("User-Agent", "agent/{} \u00e9"),
    "long agents": field("User-Agent", "agent/{}" + '"' * 230),
    "referers": field("Referer", "http://a.test/{}?token=x"),
    "traceparents": field("Traceparent", "00-{:032x}-00f067aa0ba902b7-01"),
    "request ids": field("X-Request-ID", "id-{}"),
    "client addresses": lambda number: request(
        "GET", "/", [("X-Forwarded-For", f"203.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")], host=HOST
    ),
    "forwarded hosts": field("X-Forwarded-Host", "h{}.test"),
    "vias": field("Via", "1.1 proxy{}"),
    "connection options": field("Connection", "x-{}, x-a"),
    "many connection options": field("Connection", "{}," + "x,y," * 60),
    "upgrades": lambda number: request(
        "GET", "/", [("Connection", "upgrade"), ("Upgrade", f"proto{number}")], host=HOST
    ),
    "expectations and TE": field("TE", "trailers, x{}"),
    "refused with an Accept": lambda number: request(
        "GET", "/", [("Accept", f"text/html;q=0.{number % 999}, x/{number}")], host="nobody.test"
    ),
    "trailers": lambda number: (
        request("POST", "/", [("Transfer-Encoding", "chunked")], host=HOST)
        + b"0\r\nX-T%d: %d\r\n\r\n" % (number, number)
    ),
    "chunk extensions": lambda number: (
        request("POST", "/", [("Transfer-Encoding", "chunked")], host=HOST) + b"1;e%d\r\na\r\n0\r\n\r\n" % number
    ),
}


class Pipeline:
    """A connection that asks many things at once and counts the answers."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)

    def ask(self, requests: list[bytes]) -> None:
        """Send requests, and wait until each is answered."""
        self.sock.sendall(b"".join(requests))
        left, buffer = len(requests), b""
        while left:
            piece = self.sock.recv(1 << 18)
            assert piece, "the connection was closed"
            buffer += piece
            left -= buffer.count(b"HTTP/1.1 ")
            buffer = buffer[-8:] if not buffer.endswith(b"HTTP/1.1 ") else b""


def quickness(gateway: EchoGateway) -> float:
    """How long an ordinary request takes, in the middle."""
    times = []
    for _ in range(30):
        began = time.monotonic()
        assert gateway.get(host=HOST).status == 200
        times.append(time.monotonic() - began)
    return statistics.median(times)


@pytest.fixture
def gateway() -> Iterator[EchoGateway]:
    routes = {
        "fixed": {"host": HOST, "respond": {"body": "hello"}},
        "under": {"host": f"*.{HOST}", "respond": {"body": "hello"}},
        "nobody": {"host": "nobody.test", "path": "/other", "respond": {"body": "hello"}},
        "echo": {"host": "echo.test", "respond": {"body": "hello"}},
    }
    server = {**PATIENT["server"], "trusted_proxies": ["127.0.0.0/8"]}
    with EchoGateway(routes=routes, server=server) as gateway:
        yield gateway


@pytest.mark.parametrize(
    "count",
    [1500, pytest.param(100_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])],
)
def test_what_clients_invent_is_forgotten(gateway: EchoGateway, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    (worker,) = gateway.worker_pids()
    (control,) = gateway.titled("control")
    quick = quickness(gateway)
    before = {pid: pss_kib(pid) for pid in (worker, control)}
    grown = {}
    for name, make in FLOODS.items():
        pipeline = Pipeline(gateway.port)
        for begin in range(0, count, BATCH):
            pipeline.ask([make(number) for number in range(begin, begin + BATCH)])
        pipeline.sock.close()
        grown[name] = pss_kib(worker) - before[worker]
    wait_until(lambda: all(pss_kib(pid) - size < LIMIT_KIB for pid, size in before.items()), 10, str(grown))
    after = quickness(gateway)
    with capsys.disabled():
        print(f"\n{count} of each: {grown} KiB; a request took {quick * 1e3:.2f} ms, then {after * 1e3:.2f} ms")
    assert after < 3 * quick + 0.005
