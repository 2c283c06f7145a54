"""Chunked coding and trailers, where more than one packet or the upstream's answer matters."""

import pytest

from tests.support import ScriptedUpstream, response
from tests.support.door import WireUnderTest
from tests.support.messages import chunked
from tests.support.upstream import echo

HEAD = "POST /c HTTP/1.1\r\nHost: wire.test\r\nTransfer-Encoding: chunked\r\n"


def with_trailers(*trailers: tuple[str, str]) -> bytes:
    names = ", ".join(name for name, _ in trailers)
    return f"{HEAD}Trailer: {names}\r\n\r\n".encode() + chunked(b"hello", trailers=trailers)


@pytest.mark.case("CH-13")
def test_a_body_in_single_bytes_arrives_whole(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(echo)
    client = wire.connect()
    client.dribble(f"{HEAD}\r\n".encode() + chunked(b"abc", b"d" * 17, b"\r\n0\r\n\r\n"))
    assert client.read_response().body == b"abc" + b"d" * 17 + b"\r\n0\r\n\r\n"


@pytest.mark.case("CH-15", "CH-21")
@pytest.mark.parametrize("packets", ["one packet", "three packets"])
def test_request_trailers_never_become_headers(wire: WireUnderTest, upstream: ScriptedUpstream, packets: str) -> None:
    client = wire.connect()
    data = with_trailers(("X-Role", "admin"), ("X-Checksum", "abc"))
    if packets == "one packet":
        client.send(data)
    else:
        head = data.index(b"\r\n\r\n") + 4
        for piece in (data[:head], data[head : head + 10], data[head + 10 :]):
            client.send(piece)
    assert client.read_response().status == 200
    received = upstream.only
    assert bytes(received.body) == b"hello"
    assert "X-Role" not in received.headers
    if wire.gateway:  # the contract: trailers pass only where the route says so
        assert received.trailers.lines == []
        assert "Trailer" not in received.headers


@pytest.mark.case("CH-21")
def test_trailers_do_not_leak_into_the_next_request(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.connect()
    client.send(with_trailers(("X-Role", "admin")) + wire.request(target="/next"))
    assert [client.read_response().status for _ in range(2)] == [200, 200]
    first, second = upstream.requests
    assert "X-Role" not in first.headers
    assert "X-Role" not in second.headers


FORBIDDEN = {
    "Content-Length": "3",
    "Transfer-Encoding": "gzip",
    "Host": "evil.test",
    "Authorization": "Basic eDp5",
    "X-Forwarded-For": "6.6.6.6",
    "Connection": "close",
}


@pytest.mark.case("CH-16")
@pytest.mark.parametrize("name", FORBIDDEN)
def test_fields_of_routing_and_auth_are_refused_or_dropped_as_trailers(
    wire: WireUnderTest, upstream: ScriptedUpstream, name: str
) -> None:
    client = wire.connect()
    client.send(with_trailers((name, FORBIDDEN[name])))
    answer = client.read_response()
    assert answer.status in {200, 400}, answer
    for received in upstream.requests:
        assert FORBIDDEN[name] not in [value for key, value in received.headers if key.lower() == name.lower()]
        assert name not in received.trailers
        assert received.headers["Host"] == "wire.test"


@pytest.mark.case("CH-18", should=True)
def test_response_trailers_come_after_the_body_or_not_at_all(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    trailers = {"X-Checksum": "abc", "X-Unannounced": "def"}
    head = b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n"
    upstream.serve(head + chunked(b"hello", trailers=trailers))
    answer = wire.ask(headers={"TE": "trailers", "Connection": "TE"})
    assert (answer.status, answer.body, answer.complete) == (200, b"hello", True)
    assert "X-Checksum" not in answer.headers
    if wire.gateway or answer.trailers.lines:
        assert dict(answer.trailers) == trailers
    else:
        assert "Trailer" not in answer.headers


@pytest.mark.case("CH-19")
@pytest.mark.parametrize("keep_alive", [False, True], ids=["plain", "asking for keep-alive"])
def test_an_http_1_0_client_is_never_sent_chunks(
    wire: WireUnderTest, upstream: ScriptedUpstream, keep_alive: bool
) -> None:
    upstream.serve(response(chunks=[b"hello ", b"world"]))
    answer = wire.ask(version="HTTP/1.0", headers={"Connection": "keep-alive"} if keep_alive else {})
    assert (answer.status, answer.body) == (200, b"hello world")
    assert "Transfer-Encoding" not in answer.headers
    if answer.framing == "close":
        assert "keep-alive" not in answer.headers.tokens("connection")
        assert answer.end == "fin"


@pytest.mark.case("CH-20")
def test_the_upstreams_oddly_written_chunks_give_the_same_body(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    body = b'000A\r\n0123456789\r\n1;name=value\r\nx\r\n0C;a="b;c"\r\nABCDEFGHIJKL\r\n00\r\n\r\n'
    upstream.serve(b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    answer = wire.ask()
    assert (answer.body, answer.complete) == (b"0123456789xABCDEFGHIJKL", True)


@pytest.mark.case("CH-85")
def test_large_chunked_bodies_both_ways(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(echo)
    pieces = [bytes([n % 251]) * (n * 37 % 5000 + 1) for n in range(200)]
    answer = wire.ask("POST", chunks=pieces)
    assert answer.body == b"".join(pieces)
    received = upstream.only
    assert received.headers.tokens("transfer-encoding") == ["chunked"] or "Content-Length" in received.headers


@pytest.mark.case("CH-86")
@pytest.mark.parametrize("size", [b"5 ", b"5 \t ", b"5 ;a=b", b"00005;a"])
def test_padded_sizes_of_answers_are_read(gateway: WireUnderTest, upstream: ScriptedUpstream, size: bytes) -> None:
    upstream.serve(b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n")
    answer = gateway.ask()
    assert (answer.status, answer.body, answer.complete) == (200, b"hello", True)
