"""What a route says about its upstream: all of it with `to`, time-outs of its own beside others' with `upstream`."""

import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import (
    Gateway,
    RawClient,
    Received,
    Response,
    ScriptedUpstream,
    UpstreamConnection,
    blackhole,
    request,
)
from tests.support.messages import chunk
from tests.support.websocket import acceptance, handshake

SHORT, LONG = "300ms", "20s"
TIMEOUTS = ("response", "read_idle", "tunnel_idle")


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedUpstream]:
    server = ScriptedUpstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(server: ScriptedUpstream) -> Iterator[Gateway]:
    config = {
        "defaults": {"retries": {"attempts": 1}},
        "upstreams": {
            "app": {"targets": server.url, "timeouts": dict.fromkeys(TIMEOUTS, SHORT), "pool": {"max_connections": 1}}
        },
        "routes": {
            "short": {"host": "short.test", "upstream": "app"},
            "long": {"host": "long.test", "upstream": "app", "timeouts": dict.fromkeys(TIMEOUTS, LONG)},
            "own": {
                "host": "own.test",
                "to": server.url,
                "timeouts": {"response": SHORT},
                "pool": {"max_connections": 1, "wait": "0s"},
                "pass_host": False,
            },
        },
    }
    with Gateway(config) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def _fresh(server: ScriptedUpstream) -> Iterator[None]:
    server.reset()
    yield
    server.reset()


def ask(gateway: Gateway, host: str, target: str = "/") -> Response:
    with RawClient(gateway.port, timeout=30) as client:
        client.send(request("GET", target, host=host))
        return client.read_response()


def slow(connection: UpstreamConnection, received: Received) -> None:
    """Answer at once, or after a pause before the head or in the middle of the body, which SHORT does not allow."""
    if received.target == "/head":
        time.sleep(1.2)
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"first"))
    if received.target == "/body":
        time.sleep(1.2)
    connection.send(chunk(b"second") + chunk(b""))


@pytest.mark.parametrize("target", ["/head", "/body"])
def test_a_route_of_a_named_upstream_has_time_outs_of_its_own(
    gateway: Gateway, server: ScriptedUpstream, target: str
) -> None:
    server.serve(slow)
    for host in ("long.test", "short.test", "long.test"):
        assert ask(gateway, host, "/quick").body == b"firstsecond"  # over the one connection that both share
        answer = ask(gateway, host, target)
        if host == "long.test":
            assert (answer.status, answer.body) == (200, b"firstsecond")
        else:
            assert answer.status == 504 if target == "/head" else not answer.complete


def test_a_connection_is_waited_for_as_long_as_the_route_says() -> None:
    with blackhole() as port:
        config = {
            "defaults": {"retries": {"attempts": 1}},
            "upstreams": {"far": {"targets": f"http://127.0.0.1:{port}", "timeouts": {"connect": LONG}}},
            "routes": {"near": {"host": "*", "upstream": "far", "timeouts": {"connect": SHORT}}},
        }
        with Gateway(config) as gateway:
            answer = ask(gateway, "near.test")
    assert answer.status == 504
    assert b"within 0.3 s" in answer.body


def test_its_tunnels_too(gateway: Gateway, server: ScriptedUpstream) -> None:
    gone = threading.Event()

    def silent(connection: UpstreamConnection, received: Received) -> None:
        connection.send(acceptance(received))
        connection.pause(gone, 20)

    server.serve(silent)
    try:
        with RawClient(gateway.port, timeout=10) as short, RawClient(gateway.port, timeout=10) as long:
            long.send(handshake("/socket", host="long.test"))
            assert long.read_response().status == 101
            short.send(handshake("/socket", host="short.test"))
            assert short.read_response().status == 101
            short.expect_end(5)
            with pytest.raises(TimeoutError):
                long.expect_end(0.2)
    finally:
        gone.set()


def test_a_route_with_a_target_takes_what_an_upstream_takes(gateway: Gateway, server: ScriptedUpstream) -> None:
    server.serve(slow)
    assert ask(gateway, "own.test", "/head").status == 504
    assert server.requests[0].headers.get("host") == server.authority

    let_go = threading.Event()

    def held(connection: UpstreamConnection, received: Received) -> None:
        connection.pause(let_go)
        connection.respond()

    server.forget()
    server.serve(held)
    with RawClient(gateway.port) as first:
        first.send(request("GET", "/", host="own.test"))
        server.wait_requests(1)
        assert ask(gateway, "own.test").status == 503, "its pool has room for one, and nobody waits"
        let_go.set()
        assert first.read_response().status in (200, 504)
