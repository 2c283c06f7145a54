"""Many slow uploads and many event streams, and an ordinary request beside them."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import Gateway, RawClient, Received, ScriptedUpstream, UpstreamConnection, wait_until
from tests.support.door import WireUnderTest, opened
from tests.support.waiting import patient, seconds_since

_EVENTS = b"HTTP/1.1 200 Fine\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def small_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """A pool of four; bodies may stop for long, event streams too, other answers not."""
    config = {
        "server": {"workers": 1, "timeouts": {"body_idle": "20s"}},
        "defaults": {
            "pool": {"max_connections": 4, "wait": "500ms"},
            "timeouts": {"response": "20s", "read_idle": "1s", "tunnel_idle": "3s"},
        },
        "routes": {"app": {"host": "wire.test", "to": upstream_listener.url}},
    }
    with Gateway(config) as gateway:
        yield gateway


@pytest.fixture
def small(small_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    with opened(small_gateway) as door:
        yield door


@pytest.mark.parametrize("sent", [b"", b"x" * 20, b"x" * 20_000], ids=["nothing", "a little", "much"])
@pytest.mark.parametrize("expecting", [False, True], ids=["", "100-continue"])
def test_idle_uploads_leave_room_for_everybody_else(
    small: WireUnderTest, upstream: ScriptedUpstream, sent: bytes, expecting: bool
) -> None:
    fields = {"Content-Length": "100000"} | ({"Expect": "100-continue"} if expecting else {})
    idle = [small.send("POST", "/slow", fields) for _ in range(12)]
    for client in idle:
        client.send(sent)
    wait_until(lambda: len(upstream.requests) >= 2, 3, "those uploads being sent that may")
    for _ in range(5):
        start = time.monotonic()
        assert small.ask().status == 200
        assert small.ask("POST", "/whole", body=b"x" * 1000).status == 200
        assert seconds_since(start) < patient(1)
    assert len([received for received in upstream.requests if received.target == "/slow"]) <= 2
    for client in idle:
        client.close()
    wait_until(lambda: small.ask("POST", "/after", body=b"x" * 20_000).status == 200, 5)


def test_an_upload_that_waits_for_a_place_gets_the_first_that_is_free(
    small: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    body = b"x" * 30_000
    clients = [small.send("POST", f"/{number}", {"Content-Length": "30000"}) for number in range(4)]
    for client in clients:
        client.send(body[:20_000])
    upstream.wait_requests(2)
    assert all(client.silent(0.05) for client in clients)
    for client in clients[:2]:
        client.send(body[20_000:])
        assert client.read_response().status == 200
    for client in clients[2:]:
        client.send(body[20_000:])
        assert client.read_response().status == 200
    assert sorted(received.target for received in upstream.complete_requests) == ["/0", "/1", "/2", "/3"]
    assert {bytes(received.body) for received in upstream.complete_requests} == {body}


def test_one_that_is_whole_needs_no_place(small: WireUnderTest, upstream: ScriptedUpstream) -> None:
    holding = [small.send("POST", "/slow", {"Content-Length": "100000"}) for _ in range(2)]
    for client in holding:
        client.send(b"x" * 20_000)
    upstream.wait_requests(2)
    late = small.send("POST", "/late", {"Content-Length": "30000"})
    late.send(b"x" * 20_000)
    assert late.silent(0.7), "longer than pool.wait: the body is still coming"
    late.send(b"x" * 10_000)
    assert late.read_response().status == 200


def test_one_that_can_do_nothing_more_is_told_why(small: WireUnderTest, upstream: ScriptedUpstream) -> None:
    holding = [small.send("POST", "/slow", {"Content-Length": "100000"}) for _ in range(2)]
    for client in holding:
        client.send(b"x" * 20_000)
    upstream.wait_requests(2)
    late = small.send("POST", "/late", {"Content-Length": "1000000"})
    with suppress(OSError):
        late.send_what_fits(b"x" * 1_000_000, timeout=0.3)
    answer = late.read_response()
    small.expect_own(answer, 503, "UO")
    assert b"uploads that are not complete" in answer.body


def test_a_pipelined_request_behind_a_body_is_answered_too(small: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = small.send("POST", "/first", {"Content-Length": "10"})
    assert client.silent(0.1)
    client.send(b"0123456789" + small.request(target="/second"))
    assert [client.read_response().status for _ in range(2)] == [200, 200]


# --- event streams ---------------------------------------------------------------------------------------------------


def streaming(connection: UpstreamConnection, received: Received) -> None:
    if received.target == "/events":
        connection.send(_EVENTS + b"9\r\ndata: 1\n\n\r\n")
        connection.hold()
    else:
        connection.read_body(received)
        connection.respond()


def test_event_streams_take_up_no_room(small: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(streaming)
    streams = [small.send(target="/events") for _ in range(12)]
    for stream in streams:
        assert stream.start_response().status == 200
    for _ in range(5):
        assert small.ask().status == 200
    assert len(upstream.connections) >= 13


def test_an_event_stream_may_be_silent_for_as_long_as_a_tunnel(
    small: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    go = threading.Event()

    def thinking(connection: UpstreamConnection, received: Received) -> None:
        connection.send(_EVENTS)
        connection.pause(go)
        connection.send(b"9\r\ndata: 1\n\n\r\n0\r\n\r\n")

    upstream.serve(thinking)
    incoming = small.send(target="/events").start_response()
    time.sleep(1.5)  # longer than read_idle: that nothing happens is what is looked at
    go.set()
    answer = incoming.finish()
    assert (answer.complete, answer.body) == (True, b"data: 1\n\n")


@pytest.mark.long_over_tls
def test_an_event_stream_is_cut_after_tunnel_idle(small: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(streaming)
    start = time.monotonic()
    answer = small.send(target="/events").read_response(timeout=6)
    assert not answer.complete
    assert 2.5 < seconds_since(start) < patient(5)


def test_a_stream_that_ends_gives_its_connection_back(small: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def short(connection: UpstreamConnection, received: Received) -> None:
        connection.send(_EVENTS)
        connection.send(b"9\r\ndata: 1\n\n\r\n0\r\n\r\n")

    upstream.serve(short)
    client: RawClient = small.connect()
    for _ in range(20):
        client.send(small.request(target="/events"))
        assert client.read_response().complete
    upstream.serve(lambda connection, received: connection.respond())
    for _ in range(5):
        assert small.ask().status == 200
    assert len(upstream.connections) <= 4


def test_a_full_pool_says_of_what(small: WireUnderTest, upstream: ScriptedUpstream) -> None:
    go = threading.Event()

    def slow(connection: UpstreamConnection, received: Received) -> None:
        if received.target == "/events":
            connection.send(_EVENTS)
        if received.target == "/body":
            connection.send(b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\n\r\n")
        if received.target != "/upload":
            connection.pause(go)

    upstream.serve(slow)
    streams = [small.send(target="/events") for _ in range(2)]
    assert [stream.start_response().status for stream in streams] == [200, 200]
    body = small.send(target="/body")
    assert body.start_response().status == 200
    upload = small.send("POST", "/upload", {"Content-Length": "100000"})
    upload.send(b"x" * 20_000)
    waiting = [small.send() for _ in range(2)]
    upstream.wait_requests(6)
    answer = small.ask()
    small.expect_own(answer, 503, "UO")
    assert b"2 wait for an answer, 1 carry an upload, 1 an answer" in answer.body
    assert b"2 event streams run beside them, and 1 more requests are waiting." in answer.body
    go.set()
    assert waiting


def test_tunnels_and_streams_notice_that_a_peer_is_gone(small: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(streaming)
    stream = small.send(target="/events")
    assert stream.start_response().status == 200
    assert upstream.connections
    assert small.gateway
    ends = {stream.sock.getsockname()[1], upstream.connections[-1].sock.getsockname()[1]}
    wait_until(lambda: ends <= _watched(small.gateway.worker_pids()[0]) if small.gateway else True, 3)


def _watched(pid: int) -> set[int]:
    """Give the remote ports of the established connections on which the kernel's keep-alive timer runs."""
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "01" and words[5].startswith("02:"):  # an established connection, and its keep-alive timer
            found.add(int(words[2].rpartition(":")[2], 16))
    return found
