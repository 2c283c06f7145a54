"""Interim answers: Expect: 100-continue end to end, 103 forwarded, floods bounded."""

import threading
import time

import pytest

from tests.support import Received, ScriptedUpstream, UpstreamConnection, response
from tests.support.door import WireUnderTest
from tests.support.waiting import patient, seconds_since

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>; rel=preload\r\n\r\n"
EXPECT = {"Expect": "100-continue"}


def continuing(connection: UpstreamConnection, received: Received) -> None:
    if "100-continue" in received.headers.get("expect").lower():
        connection.send(CONTINUE)
    connection.read_body(received)
    connection.respond(200, bytes(received.body))


@pytest.mark.case("IN-01")
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_held_for_100_is_asked_for_once(wire: WireUnderTest, upstream: ScriptedUpstream, framing: str) -> None:
    upstream.serve(continuing)
    fields = EXPECT | ({"Content-Length": "5"} if framing == "length" else {"Transfer-Encoding": "chunked"})
    start = time.monotonic()
    client = wire.send("POST", "/a", fields)
    status, _ = client.read_interim()
    assert status == 100
    client.send(b"hello" if framing == "length" else b"5\r\nhello\r\n0\r\n\r\n")
    answer = client.read_response()
    assert (answer.status, answer.body, answer.informational) == (200, b"hello", [])
    assert seconds_since(start) < patient(0.9), "nobody waited for a timer"


@pytest.mark.case("IN-02", should=True)
@pytest.mark.parametrize("status", [401, 413, 417])
def test_the_upstreams_refusal_answers_the_expectation(
    wire: WireUnderTest, upstream: ScriptedUpstream, status: int
) -> None:
    upstream.serve(lambda connection, received: connection.respond(status, b"no"))
    client = wire.send("POST", "/a", EXPECT | {"Content-Length": "5"})
    answer = client.read_response()
    assert (answer.status, answer.body) == (status, b"no")
    if wire.gateway:
        assert answer.informational == []
    assert not upstream.complete_requests


@pytest.mark.case("IN-02", should=True)
def test_what_follows_a_refused_expectation_is_in_step(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(lambda connection, received: connection.respond(200 if received.method == "GET" else 401, b"no"))
    client = wire.send("POST", "/a", EXPECT | {"Content-Length": "5"})
    assert client.read_response().status == 401
    try:
        client.send(b"hello" + wire.request())  # a client may send the body all the same, RFC 9110 §10.1.1
        assert client.read_response().status == 200
    except ConnectionError:
        pass  # closed instead: right too
    assert wire.ask().status == 200


@pytest.mark.case("IN-03")
def test_an_http_1_0_client_is_never_told_to_continue(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(continuing)
    answer = wire.ask("POST", "/a", EXPECT, b"hello", version="HTTP/1.0")
    assert (answer.status, answer.informational, answer.body) == (200, [], b"hello")


@pytest.mark.case("IN-04")
def test_a_body_that_does_not_wait_is_taken(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(continuing)
    answer = wire.ask("POST", "/a", EXPECT, b"hello")
    assert (answer.status, answer.body) == (200, b"hello")
    assert len(answer.informational) <= 1


@pytest.mark.case("IN-05")
def test_an_unsolicited_100_is_swallowed(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(CONTINUE + response(200, (), b"hello"))
    answer = wire.ask("POST", "/a", body=b"x")
    assert (answer.status, answer.body) == (200, b"hello")
    if wire.gateway:
        assert answer.informational == []


@pytest.mark.case("IN-06")
def test_early_hints_are_forwarded_at_once(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    go = threading.Event()

    def hinting(connection: UpstreamConnection, received: Received) -> None:
        connection.send(HINTS)
        connection.pause(go)
        connection.send(response(200, {"X-Final": "1"}, b"body"))

    upstream.serve(hinting)
    client = wire.send()
    status, hints = client.read_interim(timeout=0.5)
    assert status == 103
    assert hints.all("link") == ["</a.css>; rel=preload", "</b.js>; rel=preload"]
    go.set()
    answer = client.read_response()
    assert (answer.status, answer.body, answer.headers["X-Final"]) == (200, b"body", "1")
    assert "Link" not in answer.headers


@pytest.mark.case("IN-07")
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_connection_that_dies_behind_103_is_a_502(wire: WireUnderTest, upstream: ScriptedUpstream, how: str) -> None:
    def dying(connection: UpstreamConnection, received: Received) -> None:
        connection.send(HINTS)
        getattr(connection, how)()

    upstream.serve(dying)
    answer = wire.ask("POST", "/a", body=b"x")
    wire.expect_own(answer, 502, "UC")
    assert len(upstream.requests) == 1


@pytest.mark.case("IN-08")
def test_a_flood_of_interim_answers_is_bounded(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def flooding(connection: UpstreamConnection, received: Received) -> None:
        for _ in range(10_000):
            connection.send(HINTS)
        connection.hold()

    upstream.serve(flooding)
    client = wire.send("POST", "/a", body=b"x")
    try:
        answer = client.read_response(timeout=4)
    except ConnectionError:
        pass  # closed by count, after some had been forwarded
    else:
        assert answer.status in {502, 504}, answer
    if wire.gateway:
        assert upstream.connections[0].wait_end(2), "the upstream connection is given up"


@pytest.mark.case("IN-09")
def test_an_http_1_0_client_gets_the_final_answer_only(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(HINTS + response(200, (), b"hello"))
    answer = wire.ask(version="HTTP/1.0")
    assert (answer.status, answer.informational, answer.body) == (200, [], b"hello")


@pytest.mark.case("IN-10")
@pytest.mark.parametrize("value", ["200-ok", "100-continue, other", "", "x" * 200])
def test_an_unknown_expectation_is_no_error_of_ours(
    wire: WireUnderTest, upstream: ScriptedUpstream, value: str
) -> None:
    answer = wire.ask("POST", "/a", {"Expect": value}, b"hello")
    assert answer.status in {200, 417}
    assert len(upstream.requests) == (answer.status == 200)


@pytest.mark.case("IN-80")
def test_other_interim_answers_are_forwarded(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(b"HTTP/1.1 102 Processing\r\nX-Step: 1\r\n\r\n" + HINTS + response(200, (), b"done"))
    answer = wire.ask()
    assert (answer.status, answer.body) == (200, b"done")
    assert [status for status, _ in answer.informational] == [102, 103]


@pytest.mark.case("IN-81")
def test_nothing_is_repeated_once_an_interim_answer_has_come(
    gateway: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    def script(connection: UpstreamConnection, received: Received) -> None:
        if received.method == "GET":
            connection.respond(200)
            return
        connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nX")
        connection.close()

    upstream.serve(script)
    assert gateway.ask().status == 200  # from now on a warm connection waits
    client = gateway.send("DELETE", "/item")
    status, headers = client.read_interim()
    assert (status, headers.all("content-length")) == (103, []), "RFC 9110 §8.6: an interim answer has no length"
    gateway.expect_own(client.read_response("DELETE"), 502, "UC")
    assert [received.method for received in upstream.requests] == ["GET", "DELETE"]


@pytest.mark.case("IN-82")
def test_an_odd_expectation_of_http_1_0_is_ignored(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = gateway.connect()
    client.send(b"GET / HTTP/1.0\r\nHost: wire.test\r\nExpect: foo\r\n\r\n")
    assert client.read_response().status == 200
    assert not upstream.only.headers.all("expect")
