"""Stopping: what has begun is finished, what is idle goes, what remains is cut at the deadline and counted."""

import contextlib
import os
import signal
import threading
import time
from typing import Any

import pytest

from tests.integration.helpers import EchoGateway, Storm
from tests.support import RawClient, ScriptedUpstream, request, wait_until
from tests.support.client import Incoming
from tests.support.net import accepts
from tests.support.waiting import patient, seconds_since
from tests.support.websocket import CLOSE, TEXT, Frame, acceptance, handshake, read_frame


class DrainingGateway(EchoGateway):
    """A gateway of one's own that is not stopped a second time at the end."""

    def __init__(self, workers: int = 1, *, delay: str = "0s", timeout: str = "5s", **options: Any) -> None:
        super().__init__(workers, server={"drain": {"delay": delay, "timeout": timeout}}, **options)

    def stop(self) -> None:
        """Judge what the test has stopped, or stop it; the last line is the receipt."""
        super().stop()
        assert self.receipt

    def until_closed(self) -> None:
        """Wait until nothing is accepted any more."""
        wait_until(lambda: not accepts(self.port), 3, "the listeners closing")

    def busy(self, count: int) -> None:
        """Wait until so many exchanges are in flight."""
        wait_until(lambda: sum(worker["in_flight"] for worker in self.status()["workers"]) == count, 3)


def slow(client: RawClient, seconds: float) -> None:
    client.send(request("GET", f"/delay/{seconds}"))


def event_stream(client: RawClient) -> Incoming:
    client.send(request("GET", "/sse?interval=0.05"))
    events = client.start_response()
    assert events.piece()
    return events


def websocket(client: RawClient) -> None:
    client.send(handshake("/ws"))
    assert client.start_response().status == 101
    client.send(Frame(TEXT, b"hello").encode(b"mask"))
    assert read_frame(client) == Frame(TEXT, b"hello")


# -- what has begun is finished ----------------------------------------------------------------------------------------


def test_a_slow_answer_is_finished_and_says_close() -> None:
    with DrainingGateway() as gateway, RawClient(gateway.port) as client:
        slow(client, 1.0)
        gateway.busy(1)
        gateway.term()
        gateway.until_closed()
        answer = client.read_response()
        assert (answer.status, answer.complete) == (200, True)
        assert answer.headers.tokens("connection") == ["close"]
        assert client.expect_end() == "fin"
        assert gateway.wait(2) == 0
        assert gateway.receipt == (1, 0, 0)


def test_an_idle_connection_is_served_once_more_within_the_grace_and_closed_without_a_reset() -> None:
    with DrainingGateway() as gateway, RawClient(gateway.port) as used, RawClient(gateway.port) as silent:
        used.send(request())
        assert used.read_response().status == 200
        wait_until(lambda: sum(worker["connections"] for worker in gateway.status()["workers"]) == 2, 3)
        gateway.term()
        gateway.until_closed()
        used.send(request())
        answer = used.read_response()
        assert (answer.status, answer.headers.tokens("connection")) == (200, ["close"])
        assert used.expect_end() == "fin"
        assert silent.expect_end() == "fin"
        assert gateway.wait(2) == 0
        assert gateway.receipt == (1, 0, 0)


def test_connections_the_kernel_has_accepted_are_served() -> None:
    """They stand in the queue of the listener while the worker is stopped; closing the listener would reset them."""
    with DrainingGateway() as gateway, contextlib.ExitStack() as stack:
        (worker,) = gateway.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        clients = [stack.enter_context(RawClient(gateway.port)) for _ in range(20)]
        for client in clients:
            client.send(request())
        gateway.term()
        wait_until(lambda: gateway.messages("info")[-1].startswith("draining"), 2)
        os.kill(worker, signal.SIGCONT)
        answers = [client.read_response() for client in clients]
        assert [answer.status for answer in answers] == [200] * 20
        assert gateway.wait(3) == 0
        assert gateway.receipt[1:] == (0, 0)


def test_an_upload_and_a_download_under_way_are_finished() -> None:
    with DrainingGateway() as gateway, RawClient(gateway.port) as up, RawClient(gateway.port) as down:
        up.send(request("POST", "/upload", {"Content-Length": "2000000"}) + b"a" * 1_000_000)
        down.send(request("GET", "/bytes/20000000"))
        incoming = down.start_response()
        got = len(incoming.read(100_000))
        gateway.busy(2)
        gateway.term()
        gateway.until_closed()
        up.send(b"b" * 1_000_000)
        assert b'"length":2000000' in up.read_response().body
        answer = incoming.finish()
        assert answer.complete
        assert len(answer.body) == 20_000_000 > got
        assert gateway.wait(3) == 0
        assert gateway.receipt == (2, 0, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_a_signal_to_the_whole_group_is_one_graceful_drain(number: int) -> None:
    """A terminal's Ctrl-C, or a supervisor that signals every process it knows."""
    with DrainingGateway(workers=2) as gateway, RawClient(gateway.port) as client:
        slow(client, 2.0)
        gateway.busy(1)
        beside = gateway.titled("control") + gateway.titled("echo")
        os.killpg(gateway.pid, number)
        gateway.until_closed()
        assert gateway.titled("control") + gateway.titled("echo") == beside, "they are needed to the end"
        answer = client.read_response()
        assert answer.status == 200
        assert gateway.wait(3) == 0
        assert gateway.receipt == (1, 0, 0)
        assert gateway.messages("error") == []
        assert not any("second signal" in line for line in gateway.messages("warning"))


@pytest.mark.parametrize("way", ["the command", "the API"])
def test_it_can_be_asked_over_the_admin_listener(way: str) -> None:
    with DrainingGateway() as gateway, RawClient(gateway.port) as client:
        slow(client, 2.0 if way == "the command" else 0.7)
        gateway.busy(1)
        if way == "the command":
            assert gateway.run("drain").returncode == 0
        else:
            assert [gateway.admin("POST", "/api/drain")[0] for _ in range(2)] == [202, 202]
        assert client.read_response().status == 200
        assert gateway.wait(3) == 0
        assert gateway.receipt == (1, 0, 0)


def test_without_anything_to_wait_for_it_is_quick() -> None:
    with DrainingGateway(workers=2) as gateway:
        began = time.monotonic()
        gateway.term()
        assert gateway.wait(2) == 0
        assert seconds_since(began) < patient(1)
        assert gateway.receipt == (0, 0, 0)


def test_an_access_log_that_is_full_is_told_and_not_waited_for() -> None:
    with DrainingGateway(log={"access": "/dev/full"}) as gateway:
        for _ in range(3):
            assert gateway.get().status == 200
        wait_until(lambda: gateway.messages("error"), 2)
        (told,) = gateway.messages("error")
        assert "log.access: cannot write to /dev/full: No space left on device" in told
        began = time.monotonic()
        gateway.term()
        assert gateway.wait(5) == 0
        assert seconds_since(began) < patient(1.5)


# -- WebSockets and streams --------------------------------------------------------------------------------------------


def test_websockets_are_told_on_both_sides_and_do_not_hold_the_stop(upstream: ScriptedUpstream) -> None:
    seen: list[Frame] = []

    def serve(connection: Any, received: Any) -> None:
        connection.send(acceptance(received))
        frame = read_frame(connection, 10)
        while frame.opcode == TEXT:
            connection.send(Frame(TEXT, frame.payload).encode())
            frame = read_frame(connection, 10)
        seen.append(frame)
        connection.finish()

    upstream.serve(serve)
    routes = {"echo": {"host": "*", "to": upstream.url}}
    with DrainingGateway(routes=routes, timeout="20s") as gateway, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(gateway.port)) for _ in range(5)]
        for client in clients:
            websocket(client)
        began = time.monotonic()
        gateway.term()
        for client in clients:
            frame = read_frame(client, 5)
            assert (frame.opcode, frame.payload[:2], frame.masked) == (CLOSE, (1001).to_bytes(2), False)
            client.send(Frame(CLOSE, frame.payload).encode(b"mask"))
            assert client.wait_end(3) == "fin"
        assert gateway.wait(5) == 0
        assert seconds_since(began) < patient(3), "long before the deadline"
        assert gateway.receipt == (0, 5, 0)
    wait_until(lambda: len(seen) == 5, 2)
    assert {(frame.opcode, frame.payload[:2], frame.masked) for frame in seen} == {(CLOSE, (1001).to_bytes(2), True)}


def test_websockets_whose_clients_say_nothing_more_do_not_hold_the_stop() -> None:
    with DrainingGateway(timeout="20s") as gateway, RawClient(gateway.port) as client:
        websocket(client)
        began = time.monotonic()
        gateway.term()
        assert read_frame(client, 5).opcode == CLOSE
        assert gateway.wait(6) == 0
        assert seconds_since(began) < patient(5)
        assert gateway.receipt == (0, 1, 0)


def test_an_event_stream_is_cut_at_the_deadline() -> None:
    with DrainingGateway(timeout="1s", exit_codes=(3,)) as gateway, RawClient(gateway.port) as client:
        events = event_stream(client)
        began = time.monotonic()
        gateway.term()
        answer = events.finish(5)
        assert not answer.complete, "a cut stream never looks whole"
        assert 0.9 < seconds_since(began) < patient(1.6)
        assert len(answer.chunks) > 10, "it went on until then"
        assert gateway.wait(3) == 3
        assert gateway.receipt == (0, 0, 1)


def test_a_tunnel_that_is_no_websocket_is_cut_at_the_deadline(upstream: ScriptedUpstream) -> None:
    def serve(connection: Any, received: Any) -> None:
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        connection.hold()

    upstream.serve(serve)
    routes = {"echo": {"host": "*", "to": upstream.url, "upgrades": ["raw"]}}
    with DrainingGateway(routes=routes, timeout="700ms", exit_codes=(3,)) as gateway, RawClient(gateway.port) as client:
        client.send(request(headers={"Connection": "Upgrade", "Upgrade": "raw"}))
        assert client.start_response().status == 101
        gateway.term()
        client.wait_end(3)
        assert gateway.wait(3) == 3
        assert gateway.receipt == (0, 0, 1)


# -- deadlines and impatience ------------------------------------------------------------------------------------------


def test_at_the_deadline_what_remains_is_cut_and_counted() -> None:
    with DrainingGateway(workers=2, timeout="1s", exit_codes=(3,)) as gateway, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(gateway.port)) for _ in range(5)]
        for client in clients[:4]:
            slow(client, 15)
        slow(clients[4], 0.6)
        gateway.busy(5)
        began = time.monotonic()
        gateway.term()
        assert clients[4].read_response().status == 200
        answers = [client.read_response() for client in clients[:4]]
        assert 0.9 < seconds_since(began) < patient(2)
        assert {answer.status for answer in answers} == {503}
        assert all(answer.headers.get("retry-after") for answer in answers)
        assert gateway.wait(3) == 3
        assert gateway.receipt == (1, 0, 4)
        lines = gateway.access_log()
        assert [line["flag"] for line in lines].count("DR") == 4


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGQUIT], ids=["TERM", "QUIT"])
def test_a_second_signal_stops_at_once(second: int) -> None:
    with DrainingGateway(workers=2, timeout="20s", exit_codes=(3,)) as gateway, contextlib.ExitStack() as stack:
        one, other, stream = (stack.enter_context(RawClient(gateway.port)) for _ in range(3))
        slow(one, 15)
        slow(other, 15)
        event_stream(stream)
        gateway.busy(3)
        gateway.term()
        gateway.until_closed()
        began = time.monotonic()
        gateway.term(second)
        assert gateway.wait(3) == 3
        assert seconds_since(began) < patient(1)
        assert gateway.receipt == (0, 0, 3), "each exchange is counted once"


def test_quit_stops_at_once_and_counts_what_it_cut() -> None:
    with DrainingGateway(workers=2, timeout="20s", exit_codes=(3,)) as gateway, contextlib.ExitStack() as stack:
        one, socket = stack.enter_context(RawClient(gateway.port)), stack.enter_context(RawClient(gateway.port))
        slow(one, 15)
        websocket(socket)
        gateway.busy(2)
        began = time.monotonic()
        gateway.term(signal.SIGQUIT)
        assert gateway.wait(3) == 3
        assert seconds_since(began) < patient(1)
        assert gateway.receipt == (0, 0, 2)


def test_quit_with_nothing_in_flight_is_clean() -> None:
    with DrainingGateway() as gateway, RawClient(gateway.port) as idle:
        idle.send(request())
        assert idle.read_response().status == 200
        gateway.term(signal.SIGQUIT)
        assert gateway.wait(2) == 0
        assert gateway.receipt == (0, 0, 0)


@pytest.mark.long
def test_a_worker_that_does_not_stop_is_killed() -> None:
    with DrainingGateway(workers=2, timeout="500ms", exit_codes=(3,)) as gateway:
        os.kill(gateway.worker_pids()[0], signal.SIGSTOP)
        began = time.monotonic()
        gateway.term()
        assert gateway.wait(8) == 3
        assert seconds_since(began) < patient(5)
        assert gateway.receipt == (0, 0, 1)
        assert any("did not stop" in line for line in gateway.messages("error"))


def test_a_worker_killed_while_it_drains_is_a_cut() -> None:
    with DrainingGateway(timeout="20s", exit_codes=(3,)) as gateway, RawClient(gateway.port) as client:
        slow(client, 15)
        gateway.busy(1)
        gateway.term()
        gateway.until_closed()
        os.kill(gateway.worker_pids()[0], signal.SIGKILL)
        assert gateway.wait(3) == 3
        assert gateway.receipt == (0, 0, 1)


def test_what_a_retired_worker_cut_long_ago_is_not_this_stops_account() -> None:
    with DrainingGateway(workers=2, timeout="600ms") as gateway:
        with RawClient(gateway.port) as client:
            slow(client, 15)
            gateway.busy(1)
            for worker in gateway.worker_pids():
                os.kill(worker, signal.SIGTERM)
            assert client.read_response().status == 503
        wait_until(lambda: [worker["state"] for worker in gateway.status()["workers"]] == ["ready"] * 2, 5)
        assert any("cut 1" in line for line in gateway.messages("info"))
        gateway.term()
        assert gateway.wait(3) == 0
        assert gateway.receipt == (0, 0, 0)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGQUIT], ids=["TERM", "QUIT"])
def test_a_second_signal_is_told_by_the_exit_code_though_nothing_was_in_flight(second: int) -> None:
    with DrainingGateway(delay="20s", exit_codes=(3,)) as gateway:
        gateway.term()
        wait_until(lambda: not gateway.ready(), 1)
        gateway.term(second)
        assert gateway.wait(2) == 3
        assert gateway.receipt == (0, 0, 0)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTTIN, "TTIN"), (signal.SIGTTOU, "TTOU")])
def test_a_gateway_that_stops_has_no_use_for_another_number_of_workers(number: int, name: str) -> None:
    with DrainingGateway(delay="700ms") as gateway:
        gateway.term()
        wait_until(lambda: not gateway.ready(), 1)
        gateway.term(number)
        wait_until(lambda: any(name in line for line in gateway.messages("warning")), 0.5)
        assert len(gateway.worker_pids()) == 1
        assert gateway.wait(3) == 0


@pytest.mark.parametrize("level", ["warning", "error"])
def test_the_first_and_the_last_word_are_said_at_any_level(level: str) -> None:
    with DrainingGateway(log={"level": level}) as gateway:
        assert gateway.get().status == 200
        gateway.term()
        assert gateway.wait(3) == 0
        ready, receipt = gateway.messages("info")
        assert ready.startswith("ready: 1 worker serves http://127.0.0.1:")
        assert receipt == "drained: finished 0, closed 0 websockets, cut 0"


# -- the delay ---------------------------------------------------------------------------------------------------------


def test_during_the_delay_it_is_not_ready_and_serves_on() -> None:
    with DrainingGateway(delay="1s") as gateway, RawClient(gateway.port) as kept:
        kept.send(request())
        assert kept.read_response().status == 200
        began = time.monotonic()
        gateway.term()
        wait_until(lambda: gateway.admin("GET", "/readyz")[0] == 503, 0.5)
        assert gateway.admin("GET", "/healthz")[0] == 200
        assert gateway.status()["state"] == "draining"
        while seconds_since(began) < 0.8:
            kept.send(request())
            answer = kept.read_response()
            assert (answer.status, answer.headers.tokens("connection")) == (200, []), "nobody is sent away yet"
            assert gateway.get().status == 200
        gateway.until_closed()
        assert 0.9 < seconds_since(began) < patient(1.6)
        assert gateway.wait(3) == 0


def test_a_worker_that_dies_during_the_delay_is_replaced() -> None:
    with DrainingGateway(delay="1500ms", workers=1) as gateway:
        victim = gateway.worker_pids()[0]
        gateway.term()
        wait_until(lambda: not gateway.ready(), 1)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: gateway.worker_pids() not in ([], [victim]), 1)
        assert gateway.get().status == 200
        assert gateway.wait(5) == 0


def test_a_second_signal_during_the_delay_stops_at_once() -> None:
    with DrainingGateway(delay="20s", exit_codes=(3,)) as gateway, RawClient(gateway.port) as client:
        slow(client, 15)
        gateway.busy(1)
        gateway.term()
        wait_until(lambda: not gateway.ready(), 1)
        began = time.monotonic()
        gateway.term()
        assert gateway.wait(3) == 3
        assert seconds_since(began) < patient(1)
        assert gateway.receipt == (0, 0, 1)


# -- under load --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [0.0, 0.1], ids=["without a pause", "with pauses"])
def test_under_load_nothing_that_has_begun_fails(pause: float) -> None:
    """A refused connection is the end that a client may see; a lost, cut or reset request is not."""
    mixed = (request(), request("GET", "/bytes/50000"), request("GET", "/delay/0.05"))
    options: dict[str, Any] = {"until_refused": True, "requests": mixed}
    with DrainingGateway(workers=2, timeout="10s") as gateway, contextlib.ExitStack() as stack:
        kept = stack.enter_context(Storm(gateway.port, connections=32, pause=2 * pause, **options))
        fresh = stack.enter_context(Storm(gateway.port, connections=16, pause=pause, fresh=True, **options))
        storms = (kept, fresh)
        wait_until(lambda: all(storm.count > 100 for storm in storms), 10)
        gateway.term()
        assert gateway.wait(8) == 0
        for storm in storms:
            storm.join(10)
            assert set(storm.bad) <= {"refused"}, (storm.outcomes, storm.details[:5])
        finished, closed, cut = gateway.receipt
        assert finished > 0
        assert (closed, cut) == (0, 0)
        answered = sum(storm.outcomes[200] for storm in storms)
        assert len(gateway.access_log()) == answered, "one line for each answered request"
        assert {line["status"] for line in gateway.access_log()} == {200}


def test_threads_of_clients_that_reconnect_meet_only_the_closed_door() -> None:
    """Clients with their own pace: those that reconnect when told to close, as browsers and libraries do."""
    with DrainingGateway(workers=2, delay="300ms", timeout="5s") as gateway:
        stop, failures, served = threading.Event(), [], []

        def client() -> None:
            while not stop.is_set():
                try:
                    connection = RawClient(gateway.port)
                except ConnectionRefusedError:
                    return
                with connection:
                    closing = False
                    while not closing and not stop.is_set():
                        try:
                            connection.send(request("GET", "/delay/0.01"))
                            answer = connection.read_response()
                        except (OSError, AssertionError) as error:
                            failures.append(repr(error))
                            return
                        served.append(answer.status)
                        closing = "close" in answer.headers.tokens("connection")

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: len(served) > 100, 10)
            gateway.term()
            assert gateway.wait(5) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)
        assert failures == []
        assert set(served) == {200}
        assert len(gateway.access_log()) == len(served)
