"""Stopping: what is running finishes, what is idle goes, and the exit code says whether anything was cut."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import Gateway, RawClient, Received, ScriptedUpstream, UpstreamConnection, request, wait_until
from tests.support.messages import chunk
from tests.support.net import accepts
from tests.support.waiting import patient, seconds_since
from tests.support.websocket import CLOSE, TEXT, Frame, acceptance, echo_server, handshake, read_frame

DRAINED = re.compile(r"drained: finished (\d+), closed (\d+) websockets, cut (\d+)")


def config(upstream: ScriptedUpstream, **server: object) -> dict[str, object]:
    timeouts = {"response": "20s", "read_idle": "20s", "tunnel_idle": "20s"}
    return {
        "server": {"timeouts": {"head": "5s", "body_idle": "5s", "keepalive": "30s"}, **server},
        "defaults": {"timeouts": timeouts},
        "routes": {"wire": {"host": "*", "to": upstream.url}},
    }


@pytest.fixture
def running(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """A gateway of one's own, with five seconds to drain."""
    with Gateway(config(upstream)) as gateway:
        yield gateway


def tally(gateway: Gateway) -> tuple[int, int, int]:
    """Finished, closed, cut: the last line's numbers."""
    lines = DRAINED.findall(gateway.stderr())
    assert len(lines) == 1, f"one last line, got {lines}; stderr:\n{gateway.stderr()[-1500:]}"
    assert DRAINED.search(gateway.stderr().strip().splitlines()[-1]), "it is the last line"
    finished, closed, cut = lines[0]
    return int(finished), int(closed), int(cut)


def until_draining(gateway: Gateway) -> None:
    """Wait until the public port no longer accepts."""
    wait_until(lambda: not accepts(gateway.port), 3, "the listeners closing")


@pytest.mark.case("DR-01", "DR-04", "DR-09")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_what_is_running_finishes_and_says_close(running: Gateway, upstream: ScriptedUpstream, number: int) -> None:
    go = threading.Event()
    upstream.serve(lambda connection, received: (connection.pause(go), connection.respond(200, b"slow")))
    with RawClient(running.port) as client:
        client.send(request())
        upstream.wait_requests()
        running.term(number)
        until_draining(running)
        go.set()
        answer = client.read_response()
        assert (answer.status, answer.body, answer.complete) == (200, b"slow", True)
        assert "close" in answer.headers.tokens("connection")
        assert client.expect_end() == "fin"
    assert running.wait(3) == 0
    finished, _, cut = tally(running)
    assert (finished >= 1, cut) == (True, 0)


@pytest.mark.case("DR-02")
def test_idle_connections_do_not_hold_the_stop(running: Gateway, upstream: ScriptedUpstream) -> None:
    clients = [RawClient(running.port) for _ in range(10)]
    try:
        for client in clients[:5]:
            client.send(request())
            assert client.read_response().status == 200
        start = time.monotonic()
        running.term()
        assert [client.wait_end(3) for client in clients] == ["fin"] * 10
        assert running.wait(3) == 0
        assert seconds_since(start) < patient(3)
    finally:
        for client in clients:
            client.close()


@pytest.mark.case("DR-03")
def test_what_is_not_finished_at_the_deadline_is_cut_and_told(upstream: ScriptedUpstream) -> None:
    upstream.serve(lambda connection, received: connection.hold())
    with Gateway(config(upstream, drain={"timeout": "1s"})) as gateway, RawClient(gateway.port) as client:
        client.send(request())
        upstream.wait_requests()
        start = time.monotonic()
        gateway.term()
        assert gateway.wait(5) == 3
        assert 0.9 < seconds_since(start) < patient(3)
        assert tally(gateway)[2] == 1
        client.wait_end(1)


@pytest.mark.case("DR-05")
def test_a_request_half_received_is_still_answered(running: Gateway, upstream: ScriptedUpstream) -> None:
    with RawClient(running.port) as client:
        client.send(request()[:20])
        wait_until(lambda: running.metrics().value("devhost_connections") >= 1, 2)
        running.term()
        until_draining(running)
        client.send(request()[20:])
        answer = client.read_response()
        assert answer.status == 200
        assert "close" in answer.headers.tokens("connection")
    assert running.wait(3) == 0


@pytest.mark.case("DR-06")
def test_websockets_are_told_1001_and_the_stop_does_not_wait(running: Gateway, upstream: ScriptedUpstream) -> None:
    seen: list[Frame] = []

    def server(connection: UpstreamConnection, received: Received) -> None:
        connection.send(acceptance(received))
        frame = read_frame(connection, 10)
        while frame.opcode == TEXT:
            connection.send(Frame(TEXT, frame.payload).encode())
            frame = read_frame(connection, 10)
        seen.append(frame)
        connection.finish()

    upstream.serve(server)
    with RawClient(running.port) as client:
        client.send(handshake())
        assert client.start_response().status == 101
        client.send(Frame(TEXT, b"x").encode(b"mask"))
        assert read_frame(client) == Frame(TEXT, b"x")
        start = time.monotonic()
        running.term()
        frame = read_frame(client, 5)
        assert frame.opcode == CLOSE
        assert int.from_bytes(frame.payload[:2]) in {1001, 1012}
        client.send(Frame(CLOSE, frame.payload[:2]).encode(b"mask"))
        client.wait_end(3)
        assert running.wait(5) == 0
        assert seconds_since(start) < patient(5)
    assert tally(running)[1:] == (1, 0)
    wait_until(lambda: seen, 1)
    assert seen[0].opcode == CLOSE
    assert int.from_bytes(seen[0].payload[:2]) in {1001, 1012}
    assert seen[0].masked, "what comes from the client's side is masked"


@pytest.mark.case("DR-06")
def test_a_close_is_put_between_two_frames_never_into_one(running: Gateway, upstream: ScriptedUpstream) -> None:
    payload = b"p" * 300_000
    half = threading.Event()

    def server(connection: UpstreamConnection, received: Received) -> None:
        connection.send(acceptance(received))
        data = Frame(TEXT, payload).encode()
        connection.send(data[:100_000])
        connection.pause(half)
        connection.send(data[100_000:])
        connection.hold()

    upstream.serve(server)
    with RawClient(running.port) as client:
        client.send(handshake())
        assert client.start_response().status == 101
        wait_until(lambda: len(client.buffer) >= 100_000 or not client.fill(1), 3)
        running.term()
        until_draining(running)
        half.set()
        assert read_frame(client, 5) == Frame(TEXT, payload)
        assert read_frame(client, 5).opcode == CLOSE
    running.wait(8)


@pytest.mark.case("DR-15")
@pytest.mark.parametrize("side", ["client", "upstream"])
def test_a_half_closed_tunnel_does_not_disturb_the_drain(
    running: Gateway, upstream: ScriptedUpstream, side: str
) -> None:
    go = threading.Event()

    def server(connection: UpstreamConnection, received: Received) -> None:
        if received.target == "/slow":
            connection.pause(go)
            connection.respond(200, b"slow")
            return
        connection.send(acceptance(received))
        if side == "upstream":
            connection.half_close()
        connection.hold()

    upstream.serve(server)
    with RawClient(running.port) as tunnel, RawClient(running.port) as client:
        tunnel.send(handshake())
        assert tunnel.start_response().status == 101
        if side == "client":
            tunnel.half_close()
            wait_until(lambda: upstream.connections[0].end or running.metrics().value("devhost_websockets") == 1, 2)
        client.send(request(target="/slow"))
        upstream.wait_requests(2)
        running.term()
        until_draining(running)
        go.set()
        answer = client.read_response()
        assert (answer.status, answer.body) == (200, b"slow"), "what is in flight beside it finishes"
        running.wait(8)


@pytest.mark.case("DR-07")
def test_streams_go_on_until_they_end(running: Gateway, upstream: ScriptedUpstream) -> None:
    go = threading.Event()

    def streaming(connection: UpstreamConnection, received: Received) -> None:
        connection.send(b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"one"))
        connection.pause(go)
        for _ in range(3):
            connection.send(chunk(b"more"))
        connection.send(b"0\r\n\r\n")

    upstream.serve(streaming)
    with RawClient(running.port) as down, RawClient(running.port) as up:
        down.send(request())
        incoming = down.start_response()
        assert incoming.piece() == b"one"
        up.send(request("POST", "/", {"Content-Length": "6"}) + b"abc")
        upstream.wait_requests(2)
        running.term()
        until_draining(running)
        up.send(b"def")
        go.set()
        assert incoming.finish().complete
        assert up.read_response().status == 200
    assert running.wait(3) == 0


@pytest.mark.case("DR-08")
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=["TERM", "INT", "QUIT"])
def test_a_second_signal_stops_now(running: Gateway, upstream: ScriptedUpstream, second: int) -> None:
    upstream.serve(lambda connection, received: connection.hold())
    with RawClient(running.port) as client:
        client.send(request())
        upstream.wait_requests()
        running.term()
        until_draining(running)
        start = time.monotonic()
        running.term(second)
        assert running.wait(3) == 3
        assert seconds_since(start) < patient(1)
    wait_until(lambda: not running.processes(), 1, "no orphan worker")


@pytest.mark.case("DR-08")
def test_quit_alone_stops_now(running: Gateway, upstream: ScriptedUpstream) -> None:
    start = time.monotonic()
    running.term(signal.SIGQUIT)
    assert running.wait(3) in {0, 3}
    assert seconds_since(start) < patient(1.5)


@pytest.mark.case("DR-10")
@pytest.mark.parametrize("after", [0.05, 0.2, 0.4, 0.6])
def test_a_signal_during_start_up_stops_cleanly(upstream: ScriptedUpstream, after: float) -> None:
    gateway = Gateway(config(upstream))
    try:
        gateway.launch()
        time.sleep(after)  # the stage of the start-up is what is being varied
        start = time.monotonic()
        gateway.term()
        code = gateway.wait(5)
        assert seconds_since(start) < patient(2)
        assert code in {0, -signal.SIGTERM, 128 + signal.SIGTERM}, (
            "before handlers are set, the default action is clean"
        )
        wait_until(lambda: not gateway.processes(), 1, "no process being left")
        assert not accepts(gateway.port)
        assert not gateway.complaints()
    finally:
        gateway.kill()
        gateway.discard()


@pytest.mark.case("DR-11")
def test_readiness_fails_first_and_work_is_still_accepted(upstream: ScriptedUpstream) -> None:
    with Gateway(config(upstream, drain={"delay": "1s", "timeout": "5s"})) as gateway:
        start = time.monotonic()
        gateway.term()
        wait_until(lambda: gateway.admin("GET", "/readyz")[0] == 503, 0.5, "/readyz failing")
        assert gateway.admin("GET", "/healthz")[0] == 200
        with RawClient(gateway.port) as client:
            client.send(request())
            assert client.read_response().status == 200, "new work is still accepted"
        assert seconds_since(start) < patient(1)
        until_draining(gateway)
        assert seconds_since(start) > 0.8
        assert gateway.wait(5) == 0


@pytest.mark.case("DR-12")
def test_the_drain_command_begins_the_stop(running: Gateway) -> None:
    done = running.run("--admin", f"http://127.0.0.1:{running.admin_port}", "drain")
    assert done.returncode == 0, done.stderr
    assert running.wait(5) == 0


@pytest.mark.case("DR-13")
def test_a_worker_told_to_leave_drains_too(upstream: ScriptedUpstream) -> None:
    go = threading.Event()
    upstream.serve(lambda connection, received: (connection.pause(go), connection.respond(200, b"slow")))
    with Gateway(config(upstream, workers=2)) as gateway, RawClient(gateway.port) as client:
        client.send(request())
        upstream.wait_requests()
        workers = gateway.worker_pids()
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        wait_until(lambda: set(gateway.worker_pids()) - set(workers), 4, "a new worker beside those that drain")
        go.set()
        answer = client.read_response()
        assert (answer.status, answer.body) == (200, b"slow")
        wait_until(lambda: len(gateway.worker_pids()) == 2 and not set(gateway.worker_pids()) & set(workers), 6)


@pytest.mark.case("DR-14")
def test_an_echo_of_the_tunnel_still_works_while_draining_is_delayed(upstream: ScriptedUpstream) -> None:
    upstream.serve(echo_server)
    settings = config(upstream, drain={"delay": "700ms", "timeout": "5s"})
    with Gateway(settings) as gateway, RawClient(gateway.port) as client:
        client.send(handshake())
        assert client.start_response().status == 101
        gateway.term()
        client.send(Frame(TEXT, b"still here").encode(b"mask"))
        assert read_frame(client) == Frame(TEXT, b"still here")
        assert read_frame(client, 6).opcode == CLOSE
        assert gateway.wait(6) == 0
