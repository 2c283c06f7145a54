"""Clients that leave: their upstream exchange ends with them, and nothing is left of it."""

import threading
import time

import pytest

from tests.support import RawClient, Received, ScriptedUpstream, UpstreamConnection, wait_until
from tests.support.door import WireUnderTest, settled
from tests.support.gateway import descriptors, rss_kib
from tests.support.messages import chunk
from tests.support.waiting import patient, seconds_since


def leave(client: RawClient, how: str) -> None:
    {"close": client.close, "reset": client.reset, "half close": client.half_close}[how]()


def holding(connection: UpstreamConnection, received: Received) -> None:
    connection.hold()


@pytest.mark.case("CD-01")
@pytest.mark.parametrize("how", ["close", "reset", "half close"])
def test_a_client_that_leaves_takes_its_exchange_along(
    gateway: WireUnderTest, upstream: ScriptedUpstream, how: str
) -> None:
    assert gateway.gateway
    before = gateway.gateway.metrics()
    upstream.serve(holding)
    client = gateway.send(target=f"/left-by-{how.replace(' ', '-')}")
    upstream.wait_requests()
    left = time.monotonic()
    leave(client, how)
    (connection,) = upstream.connections
    wait_until(lambda: connection.end, 1, "the upstream connection being closed")
    assert (connection.ended_at or 0) - left < 0.3
    line = gateway.gateway.access_entry(target=f"/left-by-{how.replace(' ', '-')}")
    assert (line["status"], line["flag"]) == (499, "DC")
    settled(gateway.gateway)
    after = gateway.gateway.metrics()
    name = "devhost_requests_total"
    assert after.value(name, code="499") == before.value(name, code="499") + 1
    assert after.value("devhost_failures_total", flag="DC") == before.value("devhost_failures_total", flag="DC") + 1
    for code in {label for label in after.labels(name, "code") if label.startswith("5")}:
        assert after.value(name, code=code) == before.value(name, code=code)


@pytest.mark.case("CD-01")
@pytest.mark.parametrize("how", ["close", "reset"])
def test_every_proxy_ends_the_exchange_of_a_client_that_left(
    wire: WireUnderTest, upstream: ScriptedUpstream, how: str
) -> None:
    upstream.serve(holding)
    client = wire.send()
    upstream.wait_requests()
    leave(client, how)
    wait_until(lambda: upstream.connections[0].end, 0.9, "the upstream connection being closed before its timeout")


@pytest.mark.case("CD-02")
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_inside_the_response(wire: WireUnderTest, upstream: ScriptedUpstream, how: str) -> None:
    def streaming(connection: UpstreamConnection, received: Received) -> None:
        connection.send(b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"first"))
        connection.hold()

    upstream.serve(streaming)
    client = wire.send(target="/left-inside")
    incoming = client.start_response()
    assert incoming.piece() == b"first"
    leave(client, how)
    wait_until(lambda: upstream.connections[0].end, 0.9, "the upstream connection being closed before its timeout")
    if wire.gateway:
        line = wire.gateway.access_entry(target="/left-inside")
        assert line["flag"] == "DC"


@pytest.mark.case("CD-03")
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_upload_cut_short_is_never_a_shorter_request(
    wire: WireUnderTest, upstream: ScriptedUpstream, framing: str, how: str
) -> None:
    client = wire.connect()
    length = {"Content-Length": "40000"} if framing == "length" else {"Transfer-Encoding": "chunked"}
    half = b"x" * 20_000  # enough for the gateway to send it on at once
    client.send(wire.request("POST", "/cut", length) + (half if framing == "length" else chunk(half)))
    if wire.gateway:
        wait_until(lambda: upstream.requests and len(upstream.requests[0].body) >= 20_000, 2, "the first half upstream")
    leave(client, how)
    wait_until(lambda: all(received.state == "cut" for received in upstream.requests), 2, "a cut request upstream")
    assert upstream.complete_requests == []
    if wire.gateway:
        line = wire.gateway.access_entry(target="/cut")
        assert (line["status"], line["flag"]) in {(499, "DC"), (400, "BR")}


@pytest.mark.case("CD-04")
def test_the_answer_to_a_client_that_left_is_nobody_elses(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    go = threading.Event()

    def late(connection: UpstreamConnection, received: Received) -> None:
        if received.target == "/left":
            connection.pause(go)
        connection.respond(200, received.target.encode())

    upstream.serve(late)
    client = wire.send(target="/left")
    upstream.wait_requests()
    client.reset()
    go.set()
    for number in range(10):
        assert wire.ask(target=f"/{number}").body == b"/%d" % number


def abort_many(gateway: WireUnderTest, upstream: ScriptedUpstream, count: int) -> None:
    """Requests that are left at every stage: connected, half a head, whole head, half a body."""
    stages = [b"", b"GET / HT", gateway.request(), gateway.request("POST", "/", {"Content-Length": "10"}) + b"x"]
    for number in range(count):
        client = RawClient(gateway.port)
        client.send(stages[number % len(stages)])
        leave(client, "reset" if number % 2 else "close")
        if number % 500 == 499:
            upstream.prune()  # thousands of threads would leave it no time to answer
    wait_until(lambda: gateway.ask().status == 200, 10, "an ordinary answer")


def held(gateway: WireUnderTest, worker: int) -> int:
    """Descriptors of the worker but for those of idle connections to targets, of which more or fewer may be kept."""
    assert gateway.gateway
    return descriptors(worker) - int(gateway.gateway.metrics().value("devhost_upstream_connections", state="idle"))


@pytest.mark.case("CD-05")
@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_aborted_requests_leave_nothing_behind(gateway: WireUnderTest, upstream: ScriptedUpstream, count: int) -> None:
    assert gateway.gateway
    (worker,) = gateway.gateway.worker_pids()
    # Until the allocator has the memory in which so many connections come and go: a leak would go on growing.
    abort_many(gateway, upstream, max(count // 2, 200))
    settled(gateway.gateway, 5)
    files, memory = held(gateway, worker), rss_kib(worker)
    abort_many(gateway, upstream, count)
    settled(gateway.gateway, 5)
    wait_until(lambda: held(gateway, worker) <= files + 2, 5, "no descriptor being leaked")
    assert rss_kib(worker) - memory < 4 * 1024


@pytest.mark.case("CD-06")
def test_an_exchange_that_was_left_frees_its_place_in_the_pool(
    gateway: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    upstream.serve(holding)
    for _ in range(3):
        clients = [gateway.send() for _ in range(60)]
        upstream.wait_requests(60)
        for client in clients:
            client.close()
        wait_until(lambda: all(connection.end for connection in upstream.connections), 3)
        upstream.forget()
    upstream.serve(lambda connection, received: connection.respond())
    start = time.monotonic()
    assert gateway.ask().status == 200
    assert seconds_since(start) < patient(0.4), "nobody waits for a place"
