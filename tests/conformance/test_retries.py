"""Retries: only where a second try cannot be a second execution; and the pool's bounds."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import Gateway, Received, ScriptedUpstream, UpstreamConnection, response, wait_until
from tests.support.door import WireUnderTest, opened
from tests.support.waiting import patient, seconds_since


@pytest.fixture(scope="module")
def other_listener() -> Iterator[ScriptedUpstream]:
    """The second target."""
    with contextlib.closing(ScriptedUpstream()) as server:
        yield server


@pytest.fixture
def other(other_listener: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    yield other_listener
    other_listener.reset()


@pytest.fixture(scope="module")
def pair_gateway(upstream_listener: ScriptedUpstream, other_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """Two targets taken in turn, and an upstream of one target with room for three requests."""
    upstreams = {
        "pair": {
            "targets": [upstream_listener.url, other_listener.url],
            "retries": {"attempts": 2, "budget_percent": 100},
        },
        "narrow": {
            "targets": [upstream_listener.url],
            "pool": {"max_connections": 3, "wait": "600ms"},
            "timeouts": {"response": "5s"},
        },
    }
    routes = {
        "pair": {"host": "wire.test", "upstream": "pair"},
        "narrow": {"host": "narrow.test", "upstream": "narrow"},
    }
    with Gateway({"upstreams": upstreams, "routes": routes}) as gateway:
        yield gateway


@pytest.fixture
def pair(pair_gateway: Gateway, upstream: ScriptedUpstream, other: ScriptedUpstream) -> Iterator[WireUnderTest]:
    with opened(pair_gateway) as door:
        yield door


def resetting(connection: UpstreamConnection, received: Received) -> None:
    connection.read_body(received)
    connection.reset()


@pytest.mark.case("RT-01")
def test_a_get_refused_by_one_target_is_answered_by_the_other(
    pair: WireUnderTest, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    upstream.refuse()
    other.serve(response(200, (), b"B"))
    answers = [pair.ask() for _ in range(4)]
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"B")] * 4
    assert len(other.requests) == 4
    tried = [pair.entry(answer)["attempts"] for answer in answers]
    assert max(tried) == 2


@pytest.mark.case("RT-02")
@pytest.mark.parametrize("framing", ["length", "chunked", "streamed"])
def test_a_post_refused_before_a_byte_was_sent_is_sent_whole_to_the_other(
    pair: WireUnderTest, upstream: ScriptedUpstream, other: ScriptedUpstream, framing: str
) -> None:
    upstream.refuse()
    other.serve(
        lambda connection, received: (connection.read_body(received), connection.respond(200, bytes(received.body)))
    )
    body = b"0123456789" * 20_000
    for _ in range(3):
        if framing == "streamed":
            client = pair.send("POST", "/", {"Content-Length": str(len(body))})
            client.send(body[:10])
            wait_until(lambda: other.requests, 2)
            client.send(body[10:])
            answer = client.read_response()
        else:
            answer = pair.ask(
                "POST", "/", **({"body": body} if framing == "length" else {"chunks": [body[:7], body[7:]]})
            )
        assert answer.status == 200
        assert answer.body == body
        other.forget()


@pytest.mark.case("RT-03")
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_post_that_was_read_is_never_sent_again(
    pair: WireUnderTest, upstream: ScriptedUpstream, other: ScriptedUpstream, method: str
) -> None:
    upstream.serve(resetting)
    other.serve(response(200, (), b"B"))
    answers = [pair.ask(method, f"/{number}", body=b"x") for number in range(4)]
    seen = [received.target for received in upstream.requests + other.requests]
    assert sorted(seen) == ["/0", "/1", "/2", "/3"], "each executed once"
    assert upstream.requests, "the failing target had its turn"
    for number, answer in enumerate(answers):
        if f"/{number}" in [received.target for received in upstream.requests]:
            pair.expect_own(answer, 502, "UC")
        else:
            assert (answer.status, answer.body) == (200, b"B")


@pytest.mark.case("RT-04")
def test_a_get_that_was_reset_before_its_head_may_be_asked_of_the_other(
    pair: WireUnderTest, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    upstream.serve(resetting)
    other.serve(response(200, (), b"B"))
    assert [pair.ask().body for _ in range(4)] == [b"B"] * 4


@pytest.mark.case("RT-05")
def test_a_put_larger_than_the_replay_buffer_is_not_repeated(
    pair: WireUnderTest, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    upstream.serve(resetting)
    body = b"x" * (64 * 1024 + 1)
    other.serve(
        lambda connection, received: (connection.read_body(received), connection.respond(200, bytes(received.body)))
    )
    answers = [pair.ask("PUT", f"/{number}", body=body) for number in range(3)]
    assert 502 in [answer.status for answer in answers]
    for answer in answers:
        assert answer.status == 502 or answer.body == body
    assert all(bytes(received.body) == body for received in other.requests), "no truncated body"
    targets = [received.target for received in upstream.requests + other.requests]
    assert len(targets) == len(set(targets))


@pytest.mark.case("RT-06")
def test_nothing_is_repeated_once_a_byte_went_to_the_client(
    pair: WireUnderTest, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    def inside(connection: UpstreamConnection, received: Received) -> None:
        connection.send(b"HTTP/1.1 200 Fine\r\nContent-Length: 100\r\n\r\npart")
        time.sleep(0.02)  # an RST overtakes what was not read yet
        connection.reset()

    upstream.serve(inside)
    other.serve(inside)
    for number in range(2):
        answer = pair.ask(target=f"/{number}")
        assert (answer.status, answer.complete) == (200, False)
        assert answer.body in {b"", b"part"}
    assert len(upstream.requests + other.requests) == 2


@pytest.mark.case("RT-07")
def test_when_every_target_refuses_the_answer_names_what_was_tried(
    pair: WireUnderTest, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    upstream.refuse()
    other.refuse()
    start = time.monotonic()
    answer = pair.ask()
    pair.expect_own(answer, {502, 503})
    assert seconds_since(start) < patient(1)
    assert str(upstream.port).encode() in answer.body
    assert str(other.port).encode() in answer.body


@pytest.mark.case("RT-10")
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_the_clients_business(wire: WireUnderTest, upstream: ScriptedUpstream, status: int) -> None:
    upstream.serve(response(status, {"Retry-After": "5", "X-Own": "1"}, b"later"))
    answer = wire.ask()
    assert (answer.status, answer.headers["Retry-After"], answer.body) == (status, "5", b"later")
    assert answer.headers["X-Own"] == "1"
    assert len(upstream.requests) == 1


@pytest.mark.case("RT-13")
def test_never_more_than_the_pools_connections_are_in_flight(pair: WireUnderTest, upstream: ScriptedUpstream) -> None:
    lock, running, most = threading.Lock(), [0], [0]

    def slow(connection: UpstreamConnection, received: Received) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.15)  # the time an answer takes
        with lock:
            running[0] -= 1
        connection.respond()

    upstream.serve(slow)
    clients = [pair.send(host="narrow.test") for _ in range(10)]
    answers = [client.read_response() for client in clients]
    assert most[0] == 3
    assert [answer.status for answer in answers].count(200) >= 9


@pytest.mark.case("RT-13")
def test_who_waits_too_long_for_a_connection_gets_a_503(pair: WireUnderTest, upstream: ScriptedUpstream) -> None:
    go = threading.Event()
    upstream.serve(lambda connection, received: (connection.pause(go), connection.respond()))
    running = [pair.send(host="narrow.test") for _ in range(3)]
    upstream.wait_requests(3)
    start = time.monotonic()
    answer = pair.ask(host="narrow.test", target="/waiting")
    pair.expect_own(answer, 503, "UO")
    assert answer.headers["Retry-After"].isdigit()
    assert 0.4 < seconds_since(start) < patient(1.2)
    go.set()
    assert [client.read_response().status for client in running] == [200] * 3
    assert pair.ask(host="narrow.test").status == 200
    assert "/waiting" not in [received.target for received in upstream.requests]


@pytest.mark.case("RT-80")
def test_targets_take_turns(pair: WireUnderTest, upstream: ScriptedUpstream, other: ScriptedUpstream) -> None:
    assert {pair.ask().status for _ in range(10)} == {200}
    assert (len(upstream.requests), len(other.requests)) == (5, 5)
