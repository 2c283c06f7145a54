"""Retries: only where a second try cannot be a second execution; and the pool's bounds."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support import (
    Gateway,
    Received,
    ScriptedUpstream,
    UpstreamConnection,
    blackhole,
    refusing_port,
    response,
    wait_until,
)
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
        # One that refused in the test before is left alone for a moment.
        wait_until(lambda: door.ask() and upstream.requests and other.requests, 15, "both targets being in use")
        upstream.reset()
        other.reset()
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


# --- a target that cannot be connected to ----------------------------------------------------------------------------


def answers_of(door: WireUnderTest, host: str, count: int) -> Counter[int]:
    client = door.connect()
    statuses: Counter[int] = Counter()
    for number in range(count):
        client.send(door.request(target=f"/{number}", host=host))
        statuses[client.read_response().status] += 1
    return statuses


@pytest.fixture(scope="module")
def replicas(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """The upstream beside a second replica that is dead in each of the ways in which one can be."""
    with ExitStack() as stack:
        dead = {
            "refusing": f"http://127.0.0.1:{stack.enter_context(refusing_port())}",
            "hanging": f"http://127.0.0.1:{stack.enter_context(blackhole())}",
            "missing": "unix:/nonexistent/app.sock",
            "nameless": "http://nowhere.invalid:80",
        }
        if not upstream_listener.context:
            dead["plain"] = upstream_listener.url.replace("http:", "https:")
        upstreams = {
            name: {"targets": [url, upstream_listener.url]}
            | ({"timeouts": {"connect": "3s"}} if name == "hanging" else {})
            for name, url in dead.items()
        }
        upstreams["frugal"] = {"targets": [dead["refusing"], upstream_listener.url], "retries": {"budget_percent": 0}}
        upstreams["heavy"] = {"targets": [{"url": dead["refusing"], "weight": 5}, upstream_listener.url]}
        routes = {name: {"host": f"{name}.test", "upstream": name} for name in upstreams}
        defaults = {"timeouts": {"connect": "3s"}}
        yield stack.enter_context(Gateway({"upstreams": upstreams, "routes": routes, "defaults": defaults}))


@pytest.mark.case("RT-07")
@pytest.mark.parametrize("dead", ["refusing", "missing", "nameless", "frugal", "heavy", "plain"])
def test_a_dead_replica_fails_nobodys_request(replicas: Gateway, upstream: ScriptedUpstream, dead: str) -> None:
    if dead == "plain" and upstream.context:
        pytest.skip("about a server that does not speak TLS")
    if dead == "plain":  # the same server under https, which it does not speak: what a hello is answered with
        upstream.serve_connection(speak_plain)
    with opened(replicas) as door:
        assert answers_of(door, f"{dead}.test", 200) == {200: 200}


def speak_plain(connection: UpstreamConnection) -> None:
    while connection.buffer or connection.fill(60):
        if connection.buffer.startswith(b"\x16\x03"):
            connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return
        connection.read_request()
        connection.respond()


@pytest.mark.case("RT-07")
@pytest.mark.long_over_tls
def test_a_replica_whose_connections_hang_is_avoided_after_a_second(
    replicas: Gateway, upstream: ScriptedUpstream
) -> None:
    def late() -> list[dict[str, Any]]:
        lines = [line for line in replicas.access_log() if line["host"] == "hanging.test"]
        return [line for line in lines if line["target"] != "/first"]

    with opened(replicas) as door:
        first = [door.send(host="hanging.test", target="/first") for _ in range(4)]
        assert [client.read_response().status for client in first] == [200] * 4, "late, but not in vain"
        assert answers_of(door, "hanging.test", 100) == {200: 100}
        lines = wait_until(lambda: (found := late()) and len(found) == 100 and found, 2, "a line of each")
        # Of each one: a hundred together may take as long as one that hung.
        assert max(line["duration_ms"] for line in lines) < 2500, "one that hung would have taken three seconds"


def test_a_replica_that_comes_back_is_used_again(
    pair: WireUnderTest, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    upstream.refuse()
    assert answers_of(pair, "wire.test", 10) == {200: 10}
    upstream.listen()

    def back() -> bool:
        pair.ask()
        return bool(upstream.requests)

    wait_until(back, 15, "the replica that is back having a request")


def test_a_replica_that_dies_with_its_connections_in_the_pool_fails_nobody(
    pair: WireUnderTest, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    assert answers_of(pair, "wire.test", 10) == {200: 10}
    for connection in upstream.connections:
        connection.wake()
    upstream.refuse()
    assert answers_of(pair, "wire.test", 50) == {200: 50}


def test_an_idle_connection_is_given_up_before_its_target_does(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(200, {"Keep-Alive": "timeout=2, max=50"}, b"ok"))
    if not wire.gateway:
        pytest.skip("a promise of ours")
    assert wire.ask().status == 200
    (connection,) = upstream.connections
    start = time.monotonic()
    wait_until(lambda: connection.left or connection.sock.fileno() < 0, 5, "the gateway closing it")
    assert 0.5 < seconds_since(start) < patient(2)


def test_a_target_that_takes_no_more_requests_gets_none(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(200, {"Keep-Alive": "timeout=5, max=0"}, b"ok"))
    if not wire.gateway:
        pytest.skip("a promise of ours")
    for _ in range(3):
        assert wire.ask().status == 200
    assert [received.connection for received in upstream.requests] == [1, 2, 3]
