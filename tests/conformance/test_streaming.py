"""Everything streams: nothing waits for a size, a second byte, or an end."""

import threading
import time

import pytest

from tests.support import Received, ScriptedUpstream, UpstreamConnection, wait_until
from tests.support.door import WireUnderTest
from tests.support.messages import chunk
from tests.support.waiting import patient, seconds_since

EVENTS = b"HTTP/1.1 200 Fine\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.case("ST-01")
def test_each_event_comes_when_it_is_sent(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    written: list[float] = []
    read: list[float] = []

    def events(connection: UpstreamConnection, received: Received) -> None:
        connection.send(EVENTS)
        for number in range(5):
            wait_until(lambda: len(read) == len(written), 3)
            written.append(time.monotonic())
            connection.send(chunk(b"data: %d\n\n" % number))
        connection.send(b"0\r\n\r\n")

    upstream.serve(events)
    incoming = wire.send(headers={"Accept": "text/event-stream"}).start_response()
    for number in range(5):
        assert incoming.piece() == b"data: %d\n\n" % number
        read.append(time.monotonic())
    assert incoming.finish().complete
    assert max(r - w for r, w in zip(read, written, strict=True)) < 0.05


@pytest.mark.case("ST-02")
@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 5", "X-Neither: 1"])
def test_the_head_does_not_wait_for_the_body(wire: WireUnderTest, upstream: ScriptedUpstream, framing: str) -> None:
    go = threading.Event()

    def head_first(connection: UpstreamConnection, received: Received) -> None:
        connection.send(f"HTTP/1.1 200 Fine\r\n{framing}\r\n\r\n".encode())
        connection.pause(go)
        connection.send(chunk(b"hello") + b"0\r\n\r\n" if "chunked" in framing else b"hello")
        connection.finish()

    upstream.serve(head_first)
    incoming = wire.send().start_response(timeout=0.5)
    assert incoming.status == 200
    go.set()
    assert incoming.finish().body == b"hello"


@pytest.mark.case("ST-03")
def test_a_body_with_a_length_is_not_held_back(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    go = threading.Event()

    def halves(connection: UpstreamConnection, received: Received) -> None:
        connection.send(b"HTTP/1.1 200 Fine\r\nContent-Length: 6\r\n\r\nabc")
        connection.pause(go)
        connection.send(b"def")

    upstream.serve(halves)
    incoming = wire.send().start_response()
    assert incoming.piece(timeout=0.5) == b"abc"
    go.set()
    assert incoming.finish().body == b"abcdef"


@pytest.mark.case("ST-04")
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upload_reaches_the_upstream_as_it_is_sent(
    wire: WireUnderTest, upstream: ScriptedUpstream, framing: str
) -> None:
    first, second = b"a" * 20_000, b"b" * 20_000  # less would be waited for: it is not worth a connection yet
    length = {"Content-Length": "40000"} if framing == "length" else {"Transfer-Encoding": "chunked"}
    client = wire.send("POST", "/", length)
    client.send(first if framing == "length" else chunk(first))
    wait_until(lambda: upstream.requests and bytes(upstream.requests[0].body) == first, 0.9, "the first half upstream")
    assert not upstream.requests[0].complete
    client.send(second if framing == "length" else chunk(second) + b"0\r\n\r\n")
    assert client.read_response().status == 200
    assert bytes(upstream.only.body) == first + second


@pytest.mark.case("ST-05")
def test_a_stream_ends_with_its_reader(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def for_ever(connection: UpstreamConnection, received: Received) -> None:
        connection.send(EVENTS)
        while not connection.left:
            connection.send(chunk(b"data: x\n\n"))
            time.sleep(0.02)

    upstream.serve(for_ever)
    client = wire.send()
    assert client.start_response().piece()
    client.close()
    start = time.monotonic()
    wait_until(lambda: upstream.connections[0].end, 1.5, "the upstream connection being closed")
    assert seconds_since(start) < patient(1)


@pytest.mark.case("ST-07")
def test_a_stream_with_heartbeats_outlives_the_idle_timeout(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def heartbeats(connection: UpstreamConnection, received: Received) -> None:
        connection.send(EVENTS)
        for _ in range(5):
            time.sleep(0.5)  # the heartbeat's period, half the idle timeout
            connection.send(chunk(b":\n\n"))
        connection.send(b"0\r\n\r\n")

    upstream.serve(heartbeats)
    start = time.monotonic()
    answer = wire.ask()
    assert answer.complete
    assert answer.body == b":\n\n" * 5
    assert seconds_since(start) > 2


@pytest.mark.case("ST-08")
def test_a_slow_reader_slows_the_upstream_down(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    taken: list[int] = []

    def plenty(connection: UpstreamConnection, received: Received) -> None:
        connection.send(b"HTTP/1.1 200 Fine\r\nContent-Length: 67108864\r\n\r\n")
        taken.append(connection.send_what_fits(b"x" * 67108864, 0.4))

    upstream.serve(plenty)
    client = wire.connect(receive_buffer=8192)
    client.send(wire.request())
    wait_until(lambda: taken, 4)
    assert taken[0] < 32 << 20
