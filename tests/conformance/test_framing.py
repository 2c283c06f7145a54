"""Request framing and smuggling, as far as it is more than bytes in and a verdict out (those are in `corpus/`)."""

import threading

import pytest

from tests.support import Received, ScriptedUpstream, UpstreamConnection, response
from tests.support.door import WireUnderTest
from tests.support.messages import chunk

HEAD = b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.case("FR-31")
@pytest.mark.parametrize(
    "bad", [b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"]
)
def test_a_bad_request_never_splices_into_the_running_response(
    wire: WireUnderTest, upstream: ScriptedUpstream, bad: bytes
) -> None:
    go = threading.Event()

    def slowly(connection: UpstreamConnection, received: Received) -> None:
        connection.send(HEAD + chunk(b"first"))
        connection.pause(go)
        connection.send(chunk(b"second") + b"0\r\n\r\n")

    upstream.serve(slowly)
    client = wire.connect()
    client.send(wire.request(target="/good") + bad)
    incoming = client.start_response()
    assert incoming.piece() == b"first"
    go.set()
    answer = incoming.finish()
    assert (answer.body, answer.complete) == (b"firstsecond", True)
    wire.expect_refused(client, 400)
    assert [received.target for received in upstream.requests] == ["/good"]


@pytest.mark.case("FR-45")
@pytest.mark.parametrize("status", [401, 404])
def test_the_tail_of_an_unread_body_is_never_the_next_request(
    wire: WireUnderTest, upstream: ScriptedUpstream, status: int
) -> None:
    hidden = b"GET /hidden HTTP/1.1\r\nHost: wire.test\r\n\r\n"
    body = hidden * 2000

    def early(connection: UpstreamConnection, received: Received) -> None:
        connection.respond(status if received.method == "POST" else 200, received.target.encode())
        connection.read_body(received)

    upstream.serve(early)
    client = wire.connect()
    head, tail = wire.request("POST", "/first", body=body), wire.request(target="/second")
    client.send(head[: len(head) // 2])
    answer = client.read_response()
    assert (answer.status, answer.body) == (status, b"/first")
    try:
        client.send(head[len(head) // 2 :] + tail)
        second = client.read_response()
    except ConnectionError:
        pass  # both connections were closed: right too
    else:
        assert (second.status, second.body) == (200, b"/second")
    assert not [received for received in upstream.requests if received.target == "/hidden"]
    for received in upstream.requests:
        assert received.method == "GET" or bytes(received.body) == body[: len(received.body)]


@pytest.mark.case("FR-45")
def test_a_half_used_upstream_connection_is_not_reused(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def early(connection: UpstreamConnection) -> None:
        connection.read_head()
        connection.respond(401)
        connection.hold()

    def normal(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.respond(200)

    upstream.serve_connection(early, normal)
    client = wire.connect()
    client.send(wire.request("POST", "/first", {"Content-Length": "100000"}) + b"x" * 1000)
    assert client.read_response().status == 401
    assert wire.ask(target="/second").status == 200
    assert [received.connection for received in upstream.requests] == [1, 2]


@pytest.mark.case("FR-48", should=True)
def test_a_refused_client_can_read_the_answer_though_it_is_still_sending(
    wire: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    client = wire.connect()
    client.send(wire.request("POST", "/", {"Content-Length": "5x"}))
    client.send(b"x" * 200_000)
    answer = client.read_response()
    assert answer.status == 400
    assert "close" in answer.headers.tokens("connection")
    assert len(client.received) < 8192, "one short answer"
    assert client.expect_end() == "fin"
    assert upstream.requests == []


@pytest.mark.case("FR-48", should=True)
def test_no_request_is_read_behind_a_refused_one(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.connect()
    client.send(wire.request(headers={"Content-Length": "5x"}) + wire.request(target="/behind"))
    wire.expect_refused(client, 400)
    assert upstream.requests == []


@pytest.mark.case("FR-87")
def test_a_head_in_single_bytes_is_the_same_head(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.connect()
    client.dribble(wire.request("POST", "/slow", {"X-A": "b"}, b"body"))
    assert client.read_response().status == 200
    assert (upstream.only.target, upstream.only.headers["X-A"], bytes(upstream.only.body)) == ("/slow", "b", b"body")


@pytest.mark.case("FR-29")
def test_pipelined_answers_come_in_the_order_of_the_requests(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(lambda connection, received: connection.respond(200, received.target.encode()))
    client = wire.connect()
    client.send(b"".join(wire.request(target=f"/{number}") for number in range(20)))
    assert [client.read_response().body for _ in range(20)] == [b"/%d" % number for number in range(20)]


@pytest.mark.case("FR-88")
def test_a_pipelined_body_belongs_to_its_own_request(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.connect()
    client.send(
        wire.request("POST", "/a", body=b"one")
        + wire.request("PUT", "/b", chunks=[b"tw", b"o"])
        + wire.request("GET", "/c")
    )
    assert [client.read_response().status for _ in range(3)] == [200] * 3
    assert [(r.method, r.target, bytes(r.body)) for r in upstream.requests] == [
        ("POST", "/a", b"one"),
        ("PUT", "/b", b"two"),
        ("GET", "/c", b""),
    ]


@pytest.mark.case("FR-89")
def test_a_connection_serves_many_requests(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(200, {"X-N": "1"}, b"again"))
    client = wire.connect()
    for _ in range(50):
        client.send(wire.request())
        answer = client.read_response()
        assert (answer.status, answer.body) == (200, b"again")
    assert len(upstream.connections) == 1, "and so does the one behind it"
