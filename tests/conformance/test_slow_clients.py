"""Clients that take their time: silent, dripping, not reading, reading slowly, flooding."""

import threading
import time

import pytest

from tests.support import RawClient, Received, ScriptedUpstream, UpstreamConnection, response, wait_until
from tests.support.door import WireUnderTest
from tests.support.gateway import rss_kib
from tests.support.waiting import patient, seconds_since

MIB = 1 << 20


def endless(connection: UpstreamConnection, received: Received) -> None:
    """100 MB, or as much of it as the gateway takes."""
    connection.send(b"HTTP/1.1 200 Fine\r\nContent-Length: 104857600\r\n\r\n")
    for _ in range(1600):
        connection.send(b"x" * 65536, timeout=20)


@pytest.mark.case("SL-01")
def test_a_silent_connection_is_closed(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.connect()
    start = time.monotonic()
    rest = client.read_to_end(timeout=7)
    assert 0.5 < seconds_since(start) < patient(7)
    assert not rest or b" 408 " in rest[:20]


@pytest.mark.case("SL-04")
def test_an_idle_connection_is_closed_at_the_keep_alive_timeout(
    wire: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    client = wire.send()
    assert client.read_response().status == 200
    assert client.wait_end(timeout=7) == "fin"
    assert not client.buffer


@pytest.mark.case("SL-02")
def test_a_dripping_head_is_cut_at_an_absolute_deadline(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.connect()
    head, start = wire.request(headers={"X-Drip": "d" * 1000}), time.monotonic()
    for byte in head:
        try:
            client.send(bytes([byte]))
        except OSError:
            break
        if not client.silent(0.05):
            break
    assert 0.7 < seconds_since(start) < patient(2.5)
    answer = wire.expect_refused(client, 408, "RT", or_closed=not wire.gateway)
    assert answer or not wire.gateway
    wire.expect_flag("RT", status=408)
    assert upstream.requests == []


@pytest.mark.case("SL-02")
def test_a_dripping_second_head_is_cut_too(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.send()
    assert client.read_response().status == 200
    client.send(b"GET / HT")
    start = time.monotonic()
    wire.expect_refused(client, 408, "RT", or_closed=True)
    assert seconds_since(start) < patient(6.5)
    assert len(upstream.requests) == 1


@pytest.mark.case("SL-03")
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_stops_is_cut(wire: WireUnderTest, upstream: ScriptedUpstream, framing: str) -> None:
    client = wire.connect()
    length = {"Content-Length": "100"} if framing == "length" else {"Transfer-Encoding": "chunked"}
    client.send(wire.request("POST", "/a", length) + (b"x" * 50 if framing == "length" else b"64\r\nxxxx"))
    start = time.monotonic()
    answer = wire.expect_refused(
        client, {408} if wire.gateway else {408, 400, 504, 502}, "RT", or_closed=not wire.gateway
    )
    assert 0.7 < seconds_since(start) < patient(3)
    if answer and wire.gateway:
        wire.expect_flag("RT", status=408)
    wait_until(
        lambda: all(received.state == "cut" for received in upstream.requests), 2, "an end of the request upstream"
    )
    assert upstream.complete_requests == []


@pytest.mark.case("SL-03")
def test_a_body_that_keeps_coming_is_not_cut(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.connect()
    client.send(wire.request("POST", "/a", {"Content-Length": "8"}))
    for _ in range(8):
        assert client.silent(0.25)
        client.send(b"x")
    assert client.read_response().status == 200
    assert bytes(upstream.only.body) == b"x" * 8


@pytest.mark.case("SL-05")
def test_a_client_that_never_reads_is_cut_at_the_write_deadline(
    wire: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    upstream.serve(endless)
    start = time.monotonic()
    client = wire.connect(receive_buffer=4096)
    client.send(wire.request())
    upstream.wait_requests()
    (connection,) = upstream.connections
    wait_until(lambda: connection.left or connection.sock.fileno() < 0, 6, "the upstream connection being released")
    assert seconds_since(start) > 0.7
    assert client.wait_end(timeout=5)


@pytest.mark.case("SL-06")
def test_a_slow_but_steady_reader_gets_everything(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    size = 8 * MIB
    upstream.serve(response(200, (), b"x" * size))
    client = wire.connect(receive_buffer=32768, remember=False)
    client.send(wire.request())
    incoming = client.start_response()
    start, got = time.monotonic(), 0
    while got < size and (piece := incoming.read(256 * 1024)):
        got += len(piece)
        wait_until(lambda: seconds_since(start) * 2.5 * MIB >= got, 3)  # noqa: B023 - called at once
    assert got == size
    assert seconds_since(start) > 2.5, "slower than the write timeout"


def test_a_stalled_reader_has_its_time_from_the_last_byte_that_it_took(
    gateway: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    def without_end(connection: UpstreamConnection, received: Received) -> None:
        connection.send(b"HTTP/1.1 200 Fine\r\nContent-Length: 1099511627776\r\n\r\n")
        while True:
            connection.send(b"x" * 65536, timeout=20)

    upstream.serve(without_end)
    client = gateway.connect(receive_buffer=32768, remember=False)
    began = time.monotonic()
    client.send(gateway.request("GET", "/stalled"))
    incoming = client.start_response()
    earliest, latest = began, time.monotonic()  # between them the gateway began to count
    got = 0
    while seconds_since(began) < 0.3 or got < 8 * MIB:  # more than all buffers hold: it has been held back before
        got += len(incoming.read(256 * 1024))
        assert not incoming.response.end
        incoming.response.chunks.clear()
    last = time.monotonic()
    assert gateway.gateway
    entry = gateway.gateway.access_entry(timeout=5, target="/stalled")
    assert entry["flag"] == "DC"
    seconds = entry["duration_ms"] / 1000
    assert latest + seconds - last > 0.9
    assert earliest + seconds - last < patient(1.6), "a second, and not up to two"


@pytest.mark.case("SL-07")
def test_500_slow_heads_do_not_disturb_50_users(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    slow = [wire.connect() for _ in range(500)]
    for client in slow:
        client.send(b"GET / HTTP/1.1\r\nHost: w")
    times: list[float] = []

    def user() -> None:
        with RawClient(wire.port) as client:
            for _ in range(4):
                start = time.monotonic()
                client.send(wire.request())
                if client.read_response().status == 200:
                    times.append(seconds_since(start))

    threads = [threading.Thread(target=user) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(times) == 200, "no refusals"
    assert sorted(times)[197] < 1.0


@pytest.mark.case("SL-09")
def test_a_flood_of_pipelined_requests_is_bounded(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(200, (), b"x" * 20_000))
    client = wire.connect(receive_buffer=4096)
    before = rss_kib(wire.gateway.worker_pids()[0]) if wire.gateway else 0
    sent = client.send_what_fits_or_until_cut(wire.request() * 200_000, timeout=0.7)
    assert sent < len(wire.request()) * 200_000, "reading stopped, or the connection was cut"
    assert len(upstream.requests) < 20_000
    if wire.gateway:
        assert rss_kib(wire.gateway.worker_pids()[0]) - before < 8 * 1024


@pytest.mark.case("SL-10")
def test_an_upload_waits_for_a_slow_upstream(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    go = threading.Event()

    def slow(connection: UpstreamConnection, received: Received) -> None:
        connection.pause(go)
        connection.read_body(received)
        connection.respond()

    upstream.serve(slow)
    size = 32 * MIB
    client = wire.send("POST", "/a", {"Content-Length": str(size)})
    before = rss_kib(wire.gateway.worker_pids()[0]) if wire.gateway else 0
    went = client.send_what_fits(b"x" * size, timeout=0.3)
    assert went < size, "the sender is throttled"
    if wire.gateway:
        assert rss_kib(wire.gateway.worker_pids()[0]) - before < 8 * 1024
    go.set()
    client.send(b"x" * (size - went), timeout=10)
    assert client.read_response(timeout=10).status == 200
    assert len(upstream.only.body) == size
