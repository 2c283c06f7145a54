"""Bodies that move, but too slowly; and clients that want too much at once."""

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support import Gateway, RawClient, Received, ScriptedUpstream, UpstreamConnection, wait_until
from tests.support.door import WireUnderTest, opened
from tests.support.waiting import patient, seconds_since


@pytest.fixture(scope="module")
def paced_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """Idle times so long that only the rate can end anything."""
    config = {
        "server": {
            "workers": 1,
            "timeouts": {"body_idle": "20s", "write_idle": "6s", "body_rate": "2400B/s", "body": "7s"},
            "limits": {"connections_per_client": 5, "in_flight_per_client": 3},
            "trusted_proxies": ["127.0.0.2/32"],
        },
        "defaults": {"timeouts": {"response": "30s", "read_idle": "30s"}},
        "routes": {"app": {"host": "wire.test", "to": upstream_listener.url}},
    }
    with Gateway(config) as gateway:
        yield gateway


@pytest.fixture
def paced(paced_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    with opened(paced_gateway) as door:
        yield door


def drip(client: RawClient, pieces: Iterator[bytes], pause: float) -> float:
    """Send piece after piece until there is an answer; how long that took."""
    start = time.monotonic()
    for piece in pieces:
        client.send(piece)
        if not client.silent(pause):
            break
    return seconds_since(start)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_drips_is_cut(paced: WireUnderTest, upstream: ScriptedUpstream, framing: str) -> None:
    length = {"Content-Length": "10000"} if framing == "length" else {"Transfer-Encoding": "chunked"}
    client = paced.send("POST", "/drip", length)
    piece = b"x" if framing == "length" else b"1\r\nx\r\n"
    took = drip(client, (piece for _ in range(100)), 0.2)
    assert 4 < took < patient(8)
    answer = paced.expect_refused(client, 408, "RT")
    assert answer
    assert b"slower than 2400 bytes a second" in answer.body


def test_a_body_at_that_rate_is_not(paced: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = paced.send("POST", "/steady", {"Content-Length": "30000"})
    for _ in range(30):
        client.send(b"x" * 1000)
        time.sleep(0.2)  # 5,000 bytes a second, for six seconds: longer than what is too slow is given
    assert client.read_response().status == 200


def test_the_whole_body_has_its_time_too(paced: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = paced.send("POST", "/long", {"Content-Length": "1000000"})
    took = drip(client, (b"x" * 2000 for _ in range(100)), 0.2)
    assert 6.5 < took < patient(9)
    answer = paced.expect_refused(client, 408, "RT")
    assert answer
    assert b"not complete within 7 s" in answer.body


def test_a_client_that_takes_a_byte_now_and_then_is_cut(paced: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def endless(connection: UpstreamConnection, received: Received) -> None:
        connection.send(b"HTTP/1.1 200 Fine\r\nContent-Length: 104857600\r\n\r\n")
        for _ in range(1600):
            connection.send(b"x" * 65536, timeout=60)

    upstream.serve(endless)
    client = paced.connect(receive_buffer=2048)
    client.send(paced.request())
    upstream.wait_requests()
    (connection,) = upstream.connections
    start = time.monotonic()

    client.sock.setblocking(False)

    def released() -> bool:
        with suppress(OSError):
            client.sock.recv(20)  # at most 400 bytes a second: the window opens often enough that it has not stalled
        return connection.left or connection.sock.fileno() < 0

    wait_until(released, 40, "the upstream connection being released")
    assert seconds_since(start) > 3
    assert paced.gateway
    assert paced.gateway.access_entry(flag="DC")


def test_a_client_has_so_many_connections_and_no_more(paced: WireUnderTest, upstream: ScriptedUpstream) -> None:
    first = [paced.connect() for _ in range(5)]
    for client in first:
        client.send(paced.request())
        assert client.read_response().status == 200
    late = paced.connect()
    answer = late.read_response()
    paced.expect_own(answer, 503, "UO")
    assert answer.headers["Retry-After"] == "1"
    assert late.wait_end()
    first[0].close()
    wait_until(lambda: paced.ask().status == 200, 5, "room for one more")


def test_a_client_has_so_many_requests_at_once(paced: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(
        lambda connection, received: connection.hold() if received.target == "/held" else connection.respond()
    )
    held = [paced.send(target="/held") for _ in range(3)]
    upstream.wait_requests(3)
    answer = paced.ask()
    paced.expect_own(answer, 503, "UO")
    held[0].close()
    wait_until(lambda: paced.ask().status == 200, 5, "room for one more")
