"""Sizes: what is supported, what is refused, and that neither side of a limit costs much."""

import hashlib
import json
import time
from collections.abc import Iterator

import pytest

from tests.support import Gateway, Received, ScriptedUpstream, UpstreamConnection, response, wait_until
from tests.support.door import WireUnderTest, opened
from tests.support.gateway import rss_kib
from tests.support.messages import chunk, chunked
from tests.support.waiting import patient, seconds_since

MIB = 1 << 20


@pytest.fixture(scope="module")
def small_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """A gateway with every limit near enough to touch."""
    limits = {"head": "4KiB", "headers": 10, "target": "1KiB", "body": "64KiB", "connections": 4}
    with Gateway(
        {"server": {"limits": limits}, "routes": {"wire": {"host": "*", "to": upstream_listener.url}}}
    ) as gateway:
        yield gateway


@pytest.fixture
def small(small_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    with opened(small_gateway) as door:
        yield door


@pytest.mark.case("LI-01")
def test_a_request_line_of_2_mib_is_refused(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.connect()
    sent = client.send_what_fits_or_until_cut(b"GET /" + b"a" * 2 * MIB + b" HTTP/1.1\r\nHost: wire.test\r\n\r\n")
    assert sent > 1000
    wire.expect_refused(client, {414} if wire.gateway else {414, 400, 431}, flag="TL", or_closed=not wire.gateway)
    assert upstream.requests == []


@pytest.mark.case("LI-02")
def test_a_request_line_of_8000_bytes_is_supported(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    target = "/" + "a" * (8000 - len("GET / HTTP/1.1"))
    assert wire.ask(target=target).status == 200
    assert upstream.only.target == target


@pytest.mark.case("LI-01")
@pytest.mark.parametrize(("size", "status"), [(16 * 1024, 200), (16 * 1024 + 1, 414)])
def test_both_sides_of_the_targets_limit(
    gateway: WireUnderTest, upstream: ScriptedUpstream, size: int, status: int
) -> None:
    client = gateway.send(target="/" + "a" * (size - 1))
    if status == 200:
        assert client.read_response().status == 200
    else:
        gateway.expect_refused(client, 414, "TL")
        gateway.expect_flag("TL", status=414)
    assert len(upstream.requests) == (status == 200)


@pytest.mark.case("LI-05", should=True)
def test_a_16_kb_cookie_among_48_kb_is_supported(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    headers = [("Cookie", "c" * 16_000), *((f"X-{n}", "v" * 8000) for n in range(4))]
    assert wire.ask(headers=headers).status == 200
    assert len(upstream.only.headers["Cookie"]) == 16_000


@pytest.mark.case("LI-05", should=True)
@pytest.mark.parametrize(("size", "status"), [(64 * 1024 - 64, 200), (64 * 1024 + 64, 431)])
def test_both_sides_of_the_heads_limit(
    gateway: WireUnderTest, upstream: ScriptedUpstream, size: int, status: int
) -> None:
    base = gateway.request(headers={"X-Fill": ""})
    client = gateway.connect()
    client.send(base.replace(b"X-Fill: ", b"X-Fill: " + b"v" * (size - len(base))))
    if status == 200:
        assert client.read_response().status == 200
    else:
        gateway.expect_refused(client, 431, "TL")
        gateway.expect_flag("TL", status=431)
    assert len(upstream.requests) == (status == 200)


@pytest.mark.case("LI-03")
@pytest.mark.parametrize(("count", "status"), [(128, 200), (129, 431)])
def test_both_sides_of_the_number_of_headers(
    gateway: WireUnderTest, upstream: ScriptedUpstream, count: int, status: int
) -> None:
    client = gateway.send(headers=[(f"X-{n}", "v") for n in range(count - 1)])
    if status == 200:
        assert client.read_response().status == 200
    else:
        gateway.expect_refused(client, 431, "TL")
    assert len(upstream.requests) == (status == 200)


@pytest.mark.case("LI-04")
def test_a_header_of_4_mib_is_refused(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.connect()
    client.send_what_fits_or_until_cut(wire.request()[:-2] + b"X-Big: " + b"a" * 4 * MIB + b"\r\n\r\n")
    wire.expect_refused(client, {431, 400}, flag="TL", or_closed=not wire.gateway)
    assert upstream.requests == []


@pytest.mark.case("LI-06")
def test_an_endless_head_is_refused_in_bounded_memory(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert gateway.gateway
    (worker,) = gateway.gateway.worker_pids()
    before = rss_kib(worker)
    client = gateway.connect()
    sent = client.send_what_fits_or_until_cut(gateway.request()[:-2] + b"X-A: b\r\n" * (8 * MIB // 8))
    assert sent < 8 * MIB or client.fill()
    gateway.expect_refused(client, 431, "TL")
    assert rss_kib(worker) - before < 8 * 1024
    assert upstream.requests == []


@pytest.mark.case("LI-10")
@pytest.mark.parametrize("count", [1_000, 10_000])
def test_many_headers_are_refused_quickly(wire: WireUnderTest, upstream: ScriptedUpstream, count: int) -> None:
    client = wire.connect()
    start = time.monotonic()
    client.send_what_fits_or_until_cut(wire.request(headers=[(f"X-{n}", "v") for n in range(count)]))
    wire.expect_refused(client, {431, 400}, flag="TL", or_closed=not wire.gateway)
    assert seconds_since(start) < patient(0.5)
    assert upstream.requests == []


@pytest.mark.case("LI-07")
@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize(("size", "status"), [(64 * 1024, 200), (64 * 1024 + 1, 413)])
def test_both_sides_of_the_bodys_limit(
    small: WireUnderTest, upstream: ScriptedUpstream, size: int, status: int, framing: str
) -> None:
    body = b"x" * size
    client = small.send("POST", **({"body": body} if framing == "length" else {"chunks": [body[:1000], body[1000:]]}))
    if status == 200:
        assert client.read_response().status == 200
        assert bytes(upstream.only.body) == body
    else:
        answer = small.expect_refused(client, 413, "TL")
        assert answer
        small.expect_flag("TL", status=413)
        wait_until(lambda: all(received.state != "reading" for received in upstream.requests))
        assert upstream.complete_requests == []


@pytest.mark.case("LI-07")
def test_a_length_over_the_limit_is_refused_before_the_body(small: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = small.send("POST", headers={"Content-Length": str(1 << 40), "Expect": "100-continue"})
    answer = small.expect_refused(client, 413, "TL")
    assert answer
    assert answer.informational == []
    assert upstream.requests == []


@pytest.mark.case("LI-08")
def test_connections_beyond_the_limit_do_not_stop_those_within(
    small: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    within = [small.connect() for _ in range(4)]
    for client in within:
        client.send(small.request())
        assert client.read_response().status == 200
    beyond = small.connect()
    beyond.send(small.request(target="/beyond"))
    for client in within:
        client.send(small.request())
        assert client.read_response().status == 200
    try:
        answer = beyond.read_response(timeout=0.3)
    except (ConnectionError, TimeoutError):
        pass  # closed, or waiting for its turn
    else:
        assert answer.status == 503
    for client in within:
        client.close()
    wait_until(lambda: small.connect().silent(0.05) and small.ask(target="/again").status == 200, 3)


def hashed(connection: UpstreamConnection, received: Received) -> None:
    connection.read_body(received)
    digest = hashlib.sha256(received.body).hexdigest()
    size = int(received.headers["X-Piece"])
    body = bytes(received.body)
    received.body.clear()
    received.raw_body.clear()
    connection.received.clear()
    connection.send(f"HTTP/1.1 200 Fine\r\nX-Digest: {digest}\r\n{received.headers['X-Framing']}\r\n\r\n".encode())
    for at in range(0, len(body), size):
        piece = body[at : at + size]
        connection.send(chunk(piece) if "chunked" in received.headers["X-Framing"] else piece)
    if "chunked" in received.headers["X-Framing"]:
        connection.send(b"0\r\n\r\n")


@pytest.mark.case("LI-09")
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("piece", [1024, 128 * 1024])
def test_ten_mib_up_and_down_are_exact_in_constant_memory(
    wire: WireUnderTest, upstream: ScriptedUpstream, framing: str, piece: int
) -> None:
    size = 10 * MIB
    content = hashlib.shake_256(f"{framing}{piece}".encode()).digest(size)
    upstream.serve(hashed)
    before = rss_kib(wire.gateway.worker_pids()[0]) if wire.gateway else 0
    down = f"Content-Length: {size}" if framing == "length" else "Transfer-Encoding: chunked"
    headers = {"X-Piece": str(piece), "X-Framing": down}
    client = wire.connect(remember=False)
    if framing == "length":
        client.send(wire.request("POST", "/", headers | {"Content-Length": str(size)}))
    else:
        client.send(wire.request("POST", "/", headers | {"Transfer-Encoding": "chunked"}))
    for at in range(0, size, piece):
        data = content[at : at + piece]
        client.send(data if framing == "length" else chunk(data), timeout=10)
    if framing == "chunked":
        client.send(b"0\r\n\r\n")
    incoming = client.start_response(timeout=10)
    answer = incoming.finish(timeout=10)
    assert (answer.status, answer.complete) == (200, True)
    assert answer.headers["X-Digest"] == hashlib.sha256(content).hexdigest(), "the way up"
    assert answer.body == content, "the way down"
    if wire.gateway:
        assert rss_kib(wire.gateway.worker_pids()[0]) - before < 8 * 1024


@pytest.mark.case("LI-11")
def test_the_connection_behind_a_long_body_still_serves(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(200, (), b"x" * MIB))
    client = wire.connect(remember=False)
    for _ in range(3):
        client.send(wire.request())
        assert len(client.read_response().body) == MIB


@pytest.mark.case("LI-81")
@pytest.mark.parametrize("size", [1500, 5000, 100_000])
def test_too_long_a_target_is_414_however_it_comes(small: WireUnderTest, upstream: ScriptedUpstream, size: int) -> None:
    client = small.connect()
    client.send_what_fits_or_until_cut(small.request(target="/" + "a" * size))
    small.expect_refused(client, 414, "TL")


@pytest.mark.case("LI-82")
def test_trailers_are_counted_as_headers_are(small: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = small.connect()
    body = chunked(b"x", trailers=[(f"X-{number}", "1") for number in range(50)])
    client.send(small.request("POST", "/", {"Transfer-Encoding": "chunked"}) + body)
    small.expect_refused(client, 400, "BR", method="POST")
    assert not upstream.complete_requests


@pytest.mark.case("LI-83")
def test_a_body_too_large_counts_for_its_route(small: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = small.connect()
    client.send(small.request("POST", "/up", {"Content-Length": "70000"}))
    answer = small.expect_refused(client, 413, "TL", method="POST")
    assert answer
    assert json.loads(answer.body)["route"] == small.entry(answer)["route"] == "wire"


@pytest.mark.case("LI-84")
def test_a_refused_head_is_logged_with_what_it_said(small: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = small.connect()
    client.send(small.request("PUT", "/many", [(f"X-{number}", "1") for number in range(50)]))
    answer = small.expect_refused(client, 431, "TL", method="PUT")
    assert answer
    entry, document = small.entry(answer), json.loads(answer.body)
    assert (entry["method"], entry["host"], entry["target"]) == ("PUT", "wire.test", "/many")
    assert (document["method"], document["host"], document["target"]) == ("PUT", "wire.test", "/many")
