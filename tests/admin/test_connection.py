"""What a stranger can make the admin listener hold: real sockets, a real control process, its real memory."""

import contextlib
import resource
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from devhost_server.admin.connection import Bounds, peer_group
from tests.admin.harness import Served, served
from tests.shared.boards import Shared
from tests.support import RawClient, Response, wait_until
from tests.support.gateway import descriptors, rss_kib

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
QUICK = replace(Bounds(), head_time=0.5, body_time=0.5, write_time=1.0, linger=0.5)


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Served]]:
    """Serve within bounds that are like the real ones, but for those that a test names."""
    with contextlib.ExitStack() as stack:

        def serve(**bounds: float) -> Served:
            monkeypatch.setattr("devhost_server.admin.server.BOUNDS", replace(QUICK, **bounds))  # the fork inherits it
            shared = Shared()
            shared.publish()
            return stack.enter_context(served(shared))

        yield serve


def port(gateway: Served) -> int:
    number: int = gateway.listener.getsockname()[1]
    return number


def ask(gateway: Served, data: bytes) -> Response:
    with RawClient(port(gateway)) as raw:
        raw.send(data)
        return raw.read_response()


def refused(gateway: Served, data: bytes, status: int) -> None:
    """Assert that a request is refused with a problem document, and that the listener goes on."""
    response = ask(gateway, data)
    assert (response.status, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.headers["connection"] == "close"
    assert gateway.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (HEAD + b"X: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (HEAD + b"X-" + b"a" * 20_000 + b": a\r\n\r\n", 431),
        (HEAD + b"X: " + b"a" * 50_000, 431),
        (HEAD + b"".join(b"X-%d: 1\r\n" % number for number in range(101)) + b"\r\n", 431),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /" + b"a" * 30_000, 414),
        (HEAD + b"Content-Length: 1048577\r\n\r\n", 413),
        (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / nonsense\r\n\r\n", 400),
        (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
    ],
)
def test_too_much_is_refused(listening: Callable[..., Served], data: bytes, status: int) -> None:
    refused(listening(), data, status)


def test_as_much_as_allowed_is_not(listening: Callable[..., Served]) -> None:
    gateway = listening()
    for data in (
        HEAD + b"X: " + b"a" * 15_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: 1\r\n" % number for number in range(99)) + b"\r\n",
        b"GET /healthz?" + b"a" * 8000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        HEAD + b"Content-Length: 1048576\r\n\r\n" + b"a" * 1048576,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: a\r\n\r\n",
        HEAD + b"Connection: Upgrade\r\nUpgrade: foo\r\n\r\n",
    ):
        assert ask(gateway, data).status == 200


def test_a_head_without_end_is_refused_and_holds_nothing(listening: Callable[..., Served]) -> None:
    """A client that sends a gigabyte gets its answer after 16 KiB of it; the memory is that of a short head."""
    gateway = listening(head_time=30.0)
    before = rss_kib(gateway.master.control_pid)
    sent = 0
    with socket.create_connection(("127.0.0.1", port(gateway))) as raw, contextlib.suppress(OSError):
        raw.sendall(HEAD + b"X: ")
        while sent < 1 << 30:
            sent += raw.send(b"a" * 65536)
    assert sent < 1 << 28, "it is read on for a moment only"
    assert rss_kib(gateway.master.control_pid) - before < 10 * 1024
    refused(gateway, HEAD + b"X: " + b"a" * 65536, 431)


@pytest.mark.parametrize(
    ("begin", "drip", "status"),
    [
        (b"", b"", None),
        (b"GET /", b"a", 408),
        (HEAD, b"x", 408),
        (HEAD + b"X: ", b"y", 408),
        (b"\r\n", b"\r\n", 408),
        (b"POST /api/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", b"z", 404),
        (HEAD + b"Content-Length: 1000\r\n\r\n", b"z", 200),
        (HEAD + b"\r\n" + HEAD, b"x", 200),
    ],
)
def test_slow_requests_are_ended(
    listening: Callable[..., Served], begin: bytes, drip: bytes, status: int | None
) -> None:
    gateway = listening()
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port(gateway)), timeout=0.1) as raw:
        received = b""
        with contextlib.suppress(ConnectionError):
            raw.sendall(begin)
            while time.monotonic() - began < 10:
                with contextlib.suppress(TimeoutError):
                    piece = raw.recv(65536)
                    received += piece
                    if not piece:
                        break
                if drip:
                    raw.sendall(drip)
        assert time.monotonic() - began < 8
    assert received[9:12].decode() == ("" if status is None else str(status))


def test_ten_thousand_slow_connections_keep_nobody_else_out(listening: Callable[..., Served]) -> None:
    gateway = listening(head_time=30.0)
    pid = gateway.master.control_pid
    before, opened = rss_kib(pid), descriptors(pid)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
    slow: list[socket.socket] = []
    try:
        for number in range(count):
            raw = socket.socket()
            raw.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                raw.connect(("127.0.0.1", port(gateway)))
            slow.append(raw)
            with contextlib.suppress(OSError):
                raw.send(HEAD)
            if number % 1000 == 999:
                assert gateway.client.get("/healthz").status_code == 200
                response = ask(gateway, HEAD + b"\r\n")
                assert response.status == 200
        assert gateway.client.get("/api/status").status_code == 200
        assert descriptors(pid) < opened + 600
        assert rss_kib(pid) - before < 20 * 1024
    finally:
        for raw in slow:
            raw.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_when_all_are_being_answered_the_next_is_told(listening: Callable[..., Served]) -> None:
    gateway = listening(connections_of_peer=4)
    gateway.client.close()
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(RawClient(port(gateway))) for _ in range(4)]
        for raw in busy:  # the reader of these has stopped reading, so their answers are never done
            for _ in range(3):
                raw.send(b"POST /api/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        statuses = []

        def status_of_the_next() -> int:
            statuses.append(ask(gateway, HEAD + b"\r\n").status)
            return statuses[-1]

        wait_until(lambda: status_of_the_next() in (200, 503), 5)
    assert set(statuses) <= {200, 503}


def test_many_requests_in_line_are_cut(listening: Callable[..., Served]) -> None:
    gateway = listening(pipelined=4)
    with RawClient(port(gateway)) as raw:
        raw.send((HEAD + b"\r\n") * 3)
        assert [raw.read_response().status for _ in range(3)] == [200] * 3
    plain = socket.create_connection(("127.0.0.1", port(gateway)), timeout=5)
    with plain, contextlib.suppress(ConnectionError):
        plain.sendall((HEAD + b"\r\n") * 10_000)
        while plain.recv(65536):
            pass
    assert gateway.client.get("/healthz").status_code == 200


def test_readers_that_do_not_read_hold_little_and_nobody_up(listening: Callable[..., Served]) -> None:
    gateway = listening(unsent=4 * 1024 * 1024)
    names = [f"{'r' * 50}-{number}" for number in range(1000)]
    routes = {name: {"name": name, "hosts": [f"r{at}.localhost"], "upstream": "api"} for at, name in enumerate(names)}
    gateway.master.shared.publish(2, routes=routes, upstreams={"api": {"targets": [8000]}})
    worker = gateway.master.shared.worker(0)
    for name in names:
        worker.request(name)
    size = len(gateway.client.get("/metrics").content)
    assert size > 500_000
    pid = gateway.master.control_pid
    before, opened = rss_kib(pid), descriptors(pid)
    with contextlib.ExitStack() as stack:
        lazy = [stack.enter_context(RawClient(port(gateway), receive_buffer=4096)) for _ in range(60)]
        for raw in lazy:
            raw.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert len(gateway.client.get("/metrics").content) > size // 2
        assert rss_kib(pid) - before < 60 * size // 1024 // 2
        # And each is cut when its time is over.
        wait_until(lambda: descriptors(pid) < opened + 5, 15)


@pytest.mark.parametrize(
    ("client", "group"),
    [
        (None, ""),
        (("10.0.0.7", 5), "10.0.0.7"),
        (("::ffff:10.0.0.7", 5), "10.0.0.7"),
        (("2001:db8:1:2:3:4:5:6", 5), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5), "fe80::/64"),
        (("somewhere", 5), "somewhere"),
    ],
)
def test_what_counts_as_one_peer(client: tuple[str, int] | None, group: str) -> None:
    assert peer_group(client) == group
