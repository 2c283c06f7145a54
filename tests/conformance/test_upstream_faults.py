"""Upstreams that refuse, die, lie about lengths, talk garbage or never answer."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import (
    Gateway,
    Received,
    Response,
    ScriptedUpstream,
    UpstreamConnection,
    blackhole,
    response,
    wait_until,
)
from tests.support.door import WireUnderTest, opened
from tests.support.gateway import rss_kib
from tests.support.messages import chunk, chunked
from tests.support.upstream import RequestScript
from tests.support.waiting import patient, seconds_since

OK = "HTTP/1.1 200 Fine\r\n"


def send_and(data: bytes, then: str) -> RequestScript:
    """A script that sends these bytes, then closes, resets or holds the connection."""

    def script(connection: UpstreamConnection, received: Received) -> None:
        connection.read_body(received)
        if data:
            connection.send(data)
        if then == "reset":
            time.sleep(0.02)  # an RST overtakes what the other side has not read yet: give it the time to read
        getattr(connection, then)()

    return script


def next_is_clean(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    """Assert that the next answers, to this client and to others, are their own."""
    upstream.serve(lambda connection, received: connection.respond(200, received.target.encode()))
    for number in range(4):
        assert wire.ask(target=f"/next{number}").body == b"/next%d" % number


def expect_cut(wire: WireUnderTest, answer: Response, body: bytes, flag: str = "UC") -> None:
    """Assert a response that began, and visibly did not end."""
    assert answer.status == 200
    assert not answer.complete, f"a cut body looks whole: {answer}"
    assert body.startswith(answer.body)
    if wire.gateway:
        assert wire.entry(answer)["flag"] == flag


@pytest.mark.case("UF-01")
def test_a_refused_connection_is_a_502_and_the_client_stays(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.refuse()
    client = wire.connect()
    for method in ("GET", "POST"):
        client.send(wire.request(method, "/refused", body=b"x" if method == "POST" else None))
        start = time.monotonic()
        wire.expect_own(client.read_response(), {502} if wire.gateway else {502, 503}, "UF")
        assert seconds_since(start) < patient(1)
    upstream.listen()
    client.send(wire.request())
    assert client.read_response().status == 200
    wire.expect_flag("UF", status=502, target="/refused")


@pytest.mark.case("UF-02")
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_end_before_the_head_is_a_502(
    wire: WireUnderTest, upstream: ScriptedUpstream, how: str, method: str
) -> None:
    upstream.serve(send_and(b"", how))
    client = wire.send(method, "/ended", body=b"x" if method == "POST" else None)
    wire.expect_own(client.read_response(), 502, "UC")
    wire.expect_flag("UC", status=502, target="/ended")
    assert len(upstream.requests) <= (1 if method == "POST" else 3)
    upstream.serve(response())
    client.send(wire.request())
    assert client.read_response().status == 200, "the client connection stays usable"


@pytest.mark.case("UF-03")
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("part", ["HTTP/1.1", OK, f"{OK}Content-Length: 5\r\n", f"{OK}Content-Length: 5\r\n\r"])
def test_an_end_inside_the_head_is_a_502(wire: WireUnderTest, upstream: ScriptedUpstream, how: str, part: str) -> None:
    upstream.serve(send_and(part.encode(), how))
    wire.expect_own(wire.ask("POST", "/ended", body=b"x"), 502)
    assert len(upstream.requests) == 1


@pytest.mark.case("UF-04")
def test_a_reset_inside_the_body_cuts_the_client(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(send_and(f"{OK}Content-Length: 100\r\n\r\n".encode() + b"x" * 50, "reset"))
    client = wire.send()
    expect_cut(wire, client.read_response(), b"x" * 50)
    assert len(upstream.requests) == 1


@pytest.mark.case("UF-05")
@pytest.mark.parametrize("end", [b"", b"5", b"5\r\nwor", b"5\r\nworld", b"0\r\n"])
def test_a_chunked_body_without_its_end_is_cut(wire: WireUnderTest, upstream: ScriptedUpstream, end: bytes) -> None:
    upstream.serve(send_and(f"{OK}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk(b"hello") + end, "finish"))
    expect_cut(wire, wire.ask(), b"helloworld")


@pytest.mark.case("UF-06")
def test_a_body_shorter_than_its_length_is_cut(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(send_and(f"{OK}Content-Length: 100\r\n\r\n".encode() + b"x" * 50, "finish"))
    client = wire.send()
    answer = client.read_response()
    assert len(answer.body) == 50
    expect_cut(wire, answer, b"x" * 50)
    assert client.end, "never kept alive"


EVIL = response(200, {"X-Evil": "1"}, b"evil")


@pytest.mark.case("UF-07")
@pytest.mark.parametrize("extra", [b"x" * 20, EVIL], ids=["junk", "a response"])
@pytest.mark.parametrize("glued", [True, False], ids=["one packet", "two packets"])
def test_bytes_behind_the_length_are_never_an_answer(
    wire: WireUnderTest, upstream: ScriptedUpstream, extra: bytes, glued: bool
) -> None:
    sent = threading.Event()

    def more(connection: UpstreamConnection, received: Received) -> None:
        whole = response(200, (), b"8 bytes.")
        if glued:
            connection.send(whole + extra)
        else:
            connection.send(whole)
            connection.send(extra)
        sent.set()

    upstream.serve(more)
    client = wire.send(target="/first")
    answer = client.read_response()
    assert (answer.status, answer.body) == (200, b"8 bytes.")
    assert sent.wait(2)
    upstream.serve(lambda connection, received: connection.respond(200, received.target.encode()))
    client.send(wire.request(target="/second"))
    assert client.read_response().body == b"/second"
    assert upstream.requests[-1].connection > 1, "the upstream connection is discarded"
    next_is_clean(wire, upstream)


@pytest.mark.case("UF-08")
@pytest.mark.parametrize("extra", [b"x" * 20, b"\r\n", EVIL], ids=["junk", "an empty line", "a response"])
def test_bytes_behind_the_last_chunk_are_never_an_answer(
    wire: WireUnderTest, upstream: ScriptedUpstream, extra: bytes
) -> None:
    upstream.serve(response(chunks=[b"hello"]) + extra)
    client = wire.send(target="/first")
    assert client.read_response().body == b"hello"
    upstream.serve(lambda connection, received: connection.respond(200, received.target.encode()))
    client.send(wire.request(target="/second"))
    assert client.read_response().body == b"/second"
    next_is_clean(wire, upstream)


@pytest.mark.case("UF-09")
def test_a_body_that_ends_with_the_connection(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def three_writes(connection: UpstreamConnection, received: Received) -> None:
        connection.send(f"{OK}X-A: 1\r\n\r\n".encode())
        for piece in (b"one ", b"two ", b"three"):
            connection.send(piece)
            time.sleep(0.02)
        connection.finish()

    upstream.serve(three_writes)
    client = wire.connect()
    for _ in range(2):
        client.send(wire.request())
        answer = client.read_response()
        assert (answer.body, answer.complete, answer.framing) == (b"one two three", True, "chunked")
    assert len(upstream.connections) == 2


@pytest.mark.case("UF-92")
@pytest.mark.parametrize("how", ["finish", "reset"])
def test_a_cut_answer_for_an_http_1_0_client_does_not_end_as_a_whole_one(
    gateway: WireUnderTest, upstream: ScriptedUpstream, how: str
) -> None:
    """Its only sign of the end is that of the connection, so that has to be a reset."""
    upstream.serve(send_and(f"{OK}Transfer-Encoding: chunked\r\n\r\n".encode() + b"4\r\nhalf\r\n", how))
    client = gateway.send(version="HTTP/1.0")
    answer = client.read_response()
    assert (answer.status, answer.complete, answer.end) == (200, False, "rst")


@pytest.mark.case("UF-09")
def test_such_a_body_for_an_http_1_0_client(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(send_and(f"{OK}\r\n".encode() + b"to the end", "finish"))
    answer = wire.ask(version="HTTP/1.0")
    assert (answer.body, answer.framing) == (b"to the end", "close")


@pytest.mark.case("UF-10")
def test_a_body_that_was_to_end_with_the_connection_but_was_reset(
    wire: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    upstream.serve(send_and(f"{OK}\r\n".encode() + b"to the e", "reset"))
    expect_cut(wire, wire.ask(), b"to the e")


@pytest.mark.case("UF-11")
@pytest.mark.parametrize(
    "lines", ["Content-Length: foo", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: +5",
              "Content-Length: -5",
              "Content-Length: 5 5", "Content-Length: 5, 6", "Content-Length: ", "Content-Length: 18446744073709551621"]
)  # fmt: skip
def test_an_upstreams_bad_length_is_a_502(wire: WireUnderTest, upstream: ScriptedUpstream, lines: str) -> None:
    upstream.serve(f"{OK}{lines}\r\n\r\nhello".encode())
    wire.expect_own(wire.ask("POST", "/", body=b""), 502, "UP")


@pytest.mark.case("UF-12")
@pytest.mark.parametrize("order", ["length first", "coding first"])
def test_an_upstreams_length_beside_chunked_never_reaches_the_client(
    wire: WireUnderTest, upstream: ScriptedUpstream, order: str
) -> None:
    lines = ["Content-Length: 3", "Transfer-Encoding: chunked"]
    head = OK + "\r\n".join(lines if order == "length first" else reversed(lines)) + "\r\n\r\n"
    upstream.serve(head.encode() + chunked(b"hello"))
    answer = wire.ask("POST", "/", body=b"")
    if answer.status == 200:
        assert (answer.body, answer.complete, answer.framing) == (b"hello", True, "chunked")
    else:
        wire.expect_own(answer, 502, "UP")
    upstream.serve(response())
    assert wire.ask("POST", "/", body=b"").status == 200
    assert upstream.requests[-1].connection == 2, "the upstream connection is closed"


@pytest.mark.case("UF-13")
@pytest.mark.parametrize(
    "lines", ["Transfer-Encoding: foo", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: gzip",
              "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked, gzip"]
)  # fmt: skip
def test_an_upstreams_unknown_coding_is_a_502(wire: WireUnderTest, upstream: ScriptedUpstream, lines: str) -> None:
    upstream.serve(send_and(f"{OK}{lines}\r\n\r\n".encode() + chunked(b"hello"), "finish"))
    wire.expect_own(wire.ask("POST", "/", body=b""), 502, "UP")


@pytest.mark.case("UF-14")
@pytest.mark.parametrize(
    "line",
    [
        "bad protocol data!",
        "HTTP/1.1 OK",
        "HTTP/1.1 " + "2" * 65,
        "ICY 200",
        "HTTP/1.1 20 x",
        "200 OK",
    ],
)
def test_garbage_instead_of_a_status_line_is_a_502(wire: WireUnderTest, upstream: ScriptedUpstream, line: str) -> None:
    upstream.serve(send_and(f"{line}\r\nContent-Length: 2\r\n\r\nok".encode(), "finish"))
    wire.expect_own(wire.ask("POST", "/", body=b""), 502, "UP")


@pytest.mark.case("UF-15")
@pytest.mark.parametrize("status", ["600", "999", "000", "099"])
def test_a_status_that_is_none_is_a_502(wire: WireUnderTest, upstream: ScriptedUpstream, status: str) -> None:
    upstream.serve(send_and(response(status), "finish"))
    wire.expect_own(wire.ask("POST", "/", body=b""), 502, "UP")


@pytest.mark.case("UF-15")
@pytest.mark.parametrize("status", [299, 418, 451, 599])
def test_a_status_nobody_knows_is_passed(wire: WireUnderTest, upstream: ScriptedUpstream, status: int) -> None:
    upstream.serve(response(status, reason="Own Words", body=b"x"))
    answer = wire.ask()
    assert (answer.status, answer.body) == (status, b"x")
    if wire.gateway:
        assert answer.reason == "Own Words"


@pytest.mark.case("UF-16")
@pytest.mark.parametrize("kind", ["one megabyte", "10,000 lines", "endless"])
def test_an_upstreams_oversized_head_is_a_502(wire: WireUnderTest, upstream: ScriptedUpstream, kind: str) -> None:
    def talkative(connection: UpstreamConnection, received: Received) -> None:
        connection.send(OK.encode())
        if kind == "one megabyte":
            connection.send(b"X-Big: " + b"a" * (1 << 20) + b"\r\n\r\n")
        elif kind == "10,000 lines":
            connection.send(b"X-A: b\r\n" * 10_000 + b"Content-Length: 0\r\n\r\n")
        else:
            for _ in range(100_000):
                connection.send(b"X-A: bcdefghijklmnop\r\n" * 100)

    upstream.serve(talkative)
    before = rss_kib(wire.gateway.worker_pids()[0]) if wire.gateway else 0
    wire.expect_own(wire.ask("POST", "/", body=b""), 502, "UP")
    if wire.gateway:
        assert rss_kib(wire.gateway.worker_pids()[0]) - before < 8 * 1024


@pytest.mark.case("UF-17")
@pytest.mark.parametrize(
    "line", [b"X-A: a\0b", b"X-A: a\rb", b"X-A : b", b"no colon here", b": no name", b"X(A: b", b"X-A: a\r\n folded"],
    ids=["NUL", "bare CR", "blank before the colon", "no colon", "no name", "no token", "folded"],
)  # fmt: skip
def test_bad_bytes_in_the_upstreams_head_are_never_forwarded(
    wire: WireUnderTest, upstream: ScriptedUpstream, line: bytes
) -> None:
    upstream.serve(OK.encode() + line + b"\r\nContent-Length: 2\r\n\r\nok")
    client = wire.send("POST", "/", body=b"")
    answer = client.read_response()  # raises if a bad byte came through
    assert answer.status in {200, 502}, answer
    assert b"\0" not in client.received
    assert b"\r\n " not in client.received


@pytest.mark.case("UF-18")
def test_an_upstream_that_never_answers_is_a_504_in_time(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve_connection(lambda connection: (connection.read_head(), connection.hold()))
    client = wire.send("POST", "/silent", body=b"")
    start = time.monotonic()
    wire.expect_own(client.read_response(), 504, "UT")
    assert 0.9 < seconds_since(start) < patient(1.25)
    wait_until(lambda: upstream.connections[0].end, 0.5, "the upstream socket being closed")
    wire.expect_flag("UT", status=504, target="/silent")
    upstream.serve_connection(lambda connection: (connection.read_request(), connection.respond()))
    client.send(wire.request())
    assert client.read_response().status == 200, "the client connection stays usable"


@pytest.mark.case("UF-19")
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_response_that_falls_silent_is_cut(wire: WireUnderTest, upstream: ScriptedUpstream, framing: str) -> None:
    line = {"length": "Content-Length: 50\r\n", "chunked": "Transfer-Encoding: chunked\r\n", "close": ""}[framing]
    body = chunk(b"hello") if framing == "chunked" else b"hello"

    def silent(connection: UpstreamConnection, received: Received) -> None:
        connection.send(f"{OK}{line}\r\n".encode() + body)
        connection.hold()

    upstream.serve(silent)
    client = wire.send()
    start = time.monotonic()
    expect_cut(wire, client.read_response(), b"hello", flag="UT")
    assert 0.8 < seconds_since(start) < patient(2.5)
    wait_until(lambda: upstream.connections[0].end, 0.5, "the upstream socket being closed")


@pytest.fixture(scope="module")
def unreachable_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """A gateway some of whose upstreams cannot be reached."""
    six = socket.has_ipv6
    with blackhole() as port:
        routes = {
            "fine": {"host": "*", "to": upstream_listener.url},
            "dropped": {
                "host": "dropped.test",
                "to": upstream_listener.url.replace(str(upstream_listener.port), str(port)),
                "owner": "team-x",
                "timeouts": {"connect": "500ms"},  # whatever the other targets have for their handshakes
            },
            "nameless": {"host": "nameless.test", "to": "http://does-not-exist.invalid:80"},
            "named": {"host": "named.test", "to": upstream_listener.url.replace("127.0.0.1", "localhost")},
        }
        assert six
        with Gateway({"routes": routes, "defaults": {"timeouts": {"response": "5s"}}}) as gateway:
            yield gateway


@pytest.fixture
def unreachable(unreachable_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    with opened(unreachable_gateway) as door:
        yield door


@pytest.mark.case("UF-20")
def test_a_connection_that_is_never_answered_ends_at_the_connect_timeout(unreachable: WireUnderTest) -> None:
    client = unreachable.send(host="dropped.test")
    start = time.monotonic()
    answer = client.read_response()
    unreachable.expect_own(answer, 504, "UT")
    assert 0.4 < seconds_since(start) < patient(1.2), "the connect timeout, once: there is one target to try"
    assert b"connect" in answer.body, "the body says which timeout it was"


@pytest.mark.case("UF-30")
def test_a_name_that_does_not_resolve_is_a_quick_502_and_blocks_nobody(unreachable: WireUnderTest) -> None:
    start = time.monotonic()
    lost = [unreachable.send(host="nameless.test") for _ in range(5)]
    quick = time.monotonic()
    assert unreachable.ask().status == 200
    assert seconds_since(quick) < patient(0.3), "no blocking resolver on the event loop"
    for client in lost:
        unreachable.expect_own(client.read_response(), {502, 503})
    assert seconds_since(start) < patient(3)


@pytest.mark.case("UF-30")
def test_a_name_that_resolves_is_reached(unreachable: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert unreachable.ask(host="named.test").status == 200
    assert upstream.only.headers["Host"] == "named.test"


@pytest.mark.case("UF-22")
def test_a_kept_connection_closed_in_the_race_is_replayed_for_a_get(
    wire: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    """The second request on the first connection is answered with a FIN, as if the close had crossed it on the wire."""

    def once(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.respond(200, b"first")
        connection.read_head()
        connection.close()

    def normal(connection: UpstreamConnection) -> None:
        while True:
            connection.read_request()
            connection.respond(200, b"again")

    upstream.serve_connection(once, normal)
    client = wire.connect()
    client.send(wire.request(target="/1"))
    assert client.read_response().body == b"first"
    client.send(wire.request(target="/2"))
    answer = client.read_response()
    assert (answer.status, answer.body) == (200, b"again")
    assert [(r.target, r.connection) for r in upstream.requests] == [("/1", 1), ("/2", 1), ("/2", 2)]


@pytest.mark.case("UF-21")
def test_a_connection_closed_while_idle_is_not_used(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def once(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.respond(200, b"only")
        connection.finish()

    upstream.serve_connection(once)
    for _ in range(5):
        answer = wire.ask("POST", "/", body=b"x")
        assert (answer.status, answer.body) == (200, b"only")
        wait_until(lambda: all(connection.end for connection in upstream.connections), 1)
    assert len(upstream.requests) == 5


@pytest.mark.case("UF-23")
def test_a_post_on_a_kept_connection_is_never_executed_twice(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def once(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.respond(200, b"first")
        connection.read_request()
        connection.close()

    upstream.serve_connection(once)
    client = wire.connect()
    client.send(wire.request("POST", "/1", body=b"x"))
    assert client.read_response().status == 200
    client.send(wire.request("POST", "/2", body=b"x"))
    wire.expect_own(client.read_response(), 502, "UC")
    assert [received.target for received in upstream.requests] == ["/1", "/2"]


@pytest.mark.case("UF-24")
@pytest.mark.parametrize("kind", ["204", "304", "HEAD"])
@pytest.mark.parametrize("extra", [b"surprise", EVIL], ids=["junk", "a response"])
def test_a_body_where_none_can_be_is_dropped_with_its_connection(
    wire: WireUnderTest, upstream: ScriptedUpstream, kind: str, extra: bytes
) -> None:
    method = "HEAD" if kind == "HEAD" else "GET"
    head = f"HTTP/1.1 {'200' if kind == 'HEAD' else kind} Fine\r\n"
    length = f"Content-Length: {len(extra)}\r\n" if kind == "HEAD" else ""
    upstream.serve(f"{head}{length}\r\n".encode() + extra)
    client = wire.send(method)
    answer = client.read_response(method)
    assert (answer.status, answer.body) == (200 if kind == "HEAD" else int(kind), b"")
    upstream.serve(lambda connection, received: connection.respond(200, received.target.encode()))
    client.send(wire.request(target="/second"))
    assert client.read_response().body == b"/second"
    assert upstream.requests[-1].connection > 1
    next_is_clean(wire, upstream)


@pytest.mark.case("UF-25")
def test_both_directions_flow_at_the_same_time(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def duplex(connection: UpstreamConnection, received: Received) -> None:
        connection.send(f"{OK}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(5):
            piece = connection.read_exactly(4)
            connection.send(chunk(piece.upper()))
        connection.send(b"0\r\n\r\n")
        received.state = "complete"

    upstream.serve(duplex)
    client = wire.send("POST", "/", {"Content-Length": "20"})
    incoming = client.start_response()
    for piece in (b"abcd", b"efgh", b"ijkl", b"mnop", b"qrst"):
        client.send(piece)
        assert incoming.piece(timeout=1) == piece.upper()
    assert incoming.finish().complete


@pytest.mark.case("UF-26")
@pytest.mark.parametrize("ending", ["closes", "keeps reading"])
def test_an_early_413_reaches_a_client_that_still_sends(
    wire: WireUnderTest, upstream: ScriptedUpstream, ending: str
) -> None:
    def refusing(connection: UpstreamConnection, received: Received) -> None:
        connection.send(response(413, {"Connection": "close"}, b"too much"))
        if ending == "closes":
            connection.close()
        else:
            connection.finish()

    upstream.serve(refusing)
    size = 20 << 20
    client = wire.send("POST", "/", {"Content-Length": str(size)})
    sender = threading.Thread(target=client.send_what_fits_or_until_cut, args=(b"x" * size,))
    sender.start()
    try:
        answer = client.read_response(timeout=4)
    finally:
        client.wake()
        sender.join(5)
    assert (answer.status, answer.body) == (413, b"too much")


@pytest.mark.case("UF-27")
def test_a_response_in_single_bytes_is_the_same_response(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    data = response(200, {"X-A": "b"}, chunks=[b"hello", b"world" * 5])

    def dribbling(connection: UpstreamConnection, received: Received) -> None:
        for byte in data:
            connection.send(bytes([byte]))

    upstream.serve(dribbling)
    answer = wire.ask()
    assert (answer.status, answer.headers["X-A"], answer.body) == (200, "b", b"hello" + b"world" * 5)
    assert answer.complete


@pytest.mark.case("UF-28")
def test_empty_lines_before_the_status_line_are_harmless(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(b"\r\n" + response(200, (), b"hello"))
    answer = wire.ask("POST", "/", body=b"")
    assert answer.status in {200, 502}
    next_is_clean(wire, upstream)


@pytest.mark.case("UF-29")
def test_an_http_1_0_answer_without_length_ends_with_the_connection(
    wire: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    upstream.serve(send_and(b"HTTP/1.0 200 Fine\r\n\r\nold body", "finish"))
    client = wire.connect()
    for _ in range(2):
        client.send(wire.request())
        answer = client.read_response()
        assert (answer.status, answer.body) == (200, b"old body")
        assert answer.version == "HTTP/1.1" or not wire.gateway
    assert len(upstream.connections) == 2


@pytest.mark.case("UF-29")
def test_an_http_1_0_answer_with_chunks_is_never_reused(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(send_and(b"HTTP/1.0 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hi"), "finish"))
    answer = wire.ask("POST", "/", body=b"")
    assert answer.status in {200, 502}
    upstream.serve(response())
    assert wire.ask("POST", "/", body=b"").status == 200
    assert upstream.requests[-1].connection == 2


@pytest.mark.case("UF-29")
def test_an_http_1_0_answer_with_a_length_closes_unless_it_says_otherwise(
    wire: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    upstream.serve(response(200, (), b"hi", version="HTTP/1.0"))
    for _ in range(2):
        assert wire.ask("POST", "/", body=b"").body == b"hi"
    assert [received.connection for received in upstream.requests] == [1, 2]


@pytest.mark.case("UF-31")
@pytest.mark.parametrize("extra", [b"x", EVIL], ids=["a byte", "a response"])
def test_bytes_that_come_while_idle_are_never_an_answer(
    wire: WireUnderTest, upstream: ScriptedUpstream, extra: bytes
) -> None:
    said = threading.Event()

    def muttering(connection: UpstreamConnection, received: Received) -> None:
        connection.respond(200, received.target.encode())
        if received.target == "/first":
            time.sleep(0.05)  # long enough for the answer to be through and the connection to be idle
            connection.send(extra)
            said.set()

    upstream.serve(muttering)
    client = wire.send(target="/first")
    assert client.read_response().body == b"/first"
    wait_until(said.is_set, 2)
    client.send(wire.request(target="/second"))
    assert client.read_response().body == b"/second"
    assert upstream.requests[-1].connection == 2
    next_is_clean(wire, upstream)


@pytest.mark.case("UF-32")
def test_one_clients_glued_answer_is_not_anothers(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    before = wire.gateway.metrics() if wire.gateway else None
    upstream.serve(response(200, (), b"for A...") + EVIL)
    first, second = wire.connect(), wire.connect()
    first.send(wire.request(target="/a"))
    assert first.read_response().body == b"for A..."
    upstream.serve(lambda connection, received: connection.respond(200, received.target.encode()))
    second.send(wire.request(target="/b"))
    answer = second.read_response()
    assert (answer.body, "X-Evil" in answer.headers) == (b"/b", False)
    assert upstream.requests[-1].connection == 2
    if wire.gateway and before:
        counted = wire.gateway.metrics().value("devhost_failures_total", flag="UP")
        assert counted == before.value("devhost_failures_total", flag="UP") + 1
