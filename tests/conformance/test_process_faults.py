"""Processes die, descriptors run out, disks fill: the rest goes on."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import Gateway, RawClient, ScriptedUpstream, request, wait_until
from tests.support.gateway import cpu_seconds
from tests.support.load import SteadyLoad
from tests.support.net import accepts
from tests.support.waiting import patient, seconds_since


def config(upstream: ScriptedUpstream, workers: int = 1, **more: Any) -> dict[str, Any]:
    return {"server": {"workers": workers}, "routes": {"wire": {"host": "*", "to": upstream.url}}} | more


@pytest.fixture(scope="module")
def four_workers(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    with Gateway(config(upstream_listener, 4)) as gateway:
        yield gateway


@pytest.mark.case("PR-01")
def test_a_killed_worker_takes_only_its_own_requests_along(four_workers: Gateway, upstream: ScriptedUpstream) -> None:
    workers = four_workers.worker_pids()
    assert len(workers) == 4
    with SteadyLoad(four_workers.port, threads=8, rate=60) as load:
        wait_until(lambda: load.count > 100, 5)
        os.kill(workers[0], signal.SIGKILL)
        start = time.monotonic()
        wait_until(lambda: len(set(four_workers.worker_pids()) - {workers[0]}) == 4, 3, "the replacement")
        assert seconds_since(start) < patient(2)
        count = load.count
        wait_until(lambda: load.count > count + 100, 5)
    assert sum(load.bad.values()) <= 8, (load.bad, load.failures)
    assert "refused" not in load.bad
    assert set(workers[1:]) <= set(four_workers.worker_pids()), "the others were not touched"
    wait_until(lambda: four_workers.metrics().value("devhost_worker_restarts_total") >= 1)


@pytest.mark.case("PR-02")
def test_a_killed_control_process_is_back_and_traffic_does_not_notice(
    four_workers: Gateway, upstream: ScriptedUpstream
) -> None:
    workers = four_workers.worker_pids()
    others = set(four_workers.processes()) - set(workers) - {four_workers.pid}
    (control,) = (pid for pid in others if "control" in four_workers.processes()[pid])
    with SteadyLoad(four_workers.port) as load:
        os.kill(control, signal.SIGKILL)
        wait_until(four_workers.ready, 3, "the admin listener being back")
        wait_until(lambda: load.count > 50, 5)
    assert load.bad == {}
    assert four_workers.worker_pids() == workers


@pytest.mark.case("PR-03")
def test_no_worker_outlives_a_killed_master(upstream: ScriptedUpstream) -> None:
    with Gateway(config(upstream, 2), exit_codes=(-signal.SIGKILL,)) as gateway:
        os.kill(gateway.pid, signal.SIGKILL)
        wait_until(lambda: not gateway.processes(), 3, "the workers and the control process ending")
        assert not accepts(gateway.port)


@pytest.mark.case("PR-04")
def test_the_number_of_workers_follows_ttin_and_ttou(upstream: ScriptedUpstream) -> None:
    with Gateway(config(upstream, 1)) as gateway, SteadyLoad(gateway.port, threads=2) as load:
        first = gateway.worker_pids()
        gateway.term(signal.SIGTTIN)
        wait_until(lambda: len(gateway.worker_pids()) == 2, 5)
        gateway.term(signal.SIGTTOU)
        wait_until(lambda: len(gateway.worker_pids()) == 1, 8)
        wait_until(lambda: load.count > 50, 5)
        assert first
    assert {outcome: count for outcome, count in load.bad.items() if outcome != "unannounced"} == {}


@pytest.mark.case("PR-05")
def test_without_descriptors_accepting_pauses_and_recovers(upstream: ScriptedUpstream) -> None:
    with Gateway(config(upstream), descriptors=96) as gateway:
        (worker,) = gateway.worker_pids()
        clients: list[RawClient] = []
        try:
            clients.extend(RawClient(gateway.port) for _ in range(150))
            lines, used = gateway.stderr().count("\n"), cpu_seconds(worker)
            time.sleep(1.0)  # the time over which spinning would show
            assert cpu_seconds(worker) - used < 0.3, "no spinning on accept"
            assert gateway.stderr().count("\n") - lines < 50, "no flood of log lines"
        finally:
            for client in clients:
                client.close()
        wait_until(lambda: answered(gateway), 5, "service being back")
        assert gateway.worker_pids() == [worker]


def answered(gateway: Gateway) -> bool:
    try:
        with RawClient(gateway.port, timeout=1) as client:
            client.send(request())
            return client.read_response().status == 200
    except OSError:
        return False


def test_who_was_in_time_is_not_late_because_the_worker_got_no_turn(upstream: ScriptedUpstream) -> None:
    """As on a busy machine: what had come while it stood still is read before anybody is told to be too slow."""
    answer = threading.Event()
    upstream.serve(
        lambda connection, received: (
            connection.read_body(received),
            connection.pause(answer) if received.target == "/slow" else None,
            connection.respond(200, received.target.encode()),
        )
    )
    every = ("head", "body_idle", "keepalive", "write_idle")
    server = {"workers": 1, "timeouts": dict.fromkeys(every, "800ms")}
    defaults = {"timeouts": {"response": "800ms", "read_idle": "800ms"}}
    with (
        Gateway(config(upstream, server=server, defaults=defaults)) as gateway,
        RawClient(gateway.port) as kept,
        RawClient(gateway.port) as uploading,
        RawClient(gateway.port) as waiting,
        RawClient(gateway.port) as asking,
    ):
        (worker,) = gateway.worker_pids()
        kept.send(request(target="/first"))
        assert kept.read_response().body == b"/first"
        asking.send(b"GET /asked HTTP/1.1\r\n")
        uploading.send(request("POST", "/upload", {"Content-Length": "10"}) + b"01234")
        waiting.send(request(target="/slow"))
        wait_until(lambda: "/slow" in [received.target for received in upstream.requests], 2)
        os.kill(worker, signal.SIGSTOP)
        stopped = time.monotonic()
        kept.send(request(target="/second"))
        asking.send(b"Host: wire.test\r\n\r\n")
        uploading.send(b"56789")
        answer.set()
        wait_until(lambda: seconds_since(stopped) > 1.5, 5)
        os.kill(worker, signal.SIGCONT)
        answers = [client.read_response() for client in (kept, asking, uploading, waiting)]
    assert [(each.status, each.body) for each in answers] == [
        (200, b"/second"),
        (200, b"/asked"),
        (200, b"/upload"),
        (200, b"/slow"),
    ]


@pytest.mark.case("PR-08")
def test_a_full_disk_under_the_access_log_costs_no_request(upstream: ScriptedUpstream) -> None:
    with Gateway(config(upstream, log={"access": "/dev/full"})) as gateway, RawClient(gateway.port) as client:
        for _ in range(300):
            client.send(request())
            assert client.read_response().status == 200
        assert gateway.stderr().count("\n") < 60, "losing lines is told, not once a line"


@pytest.mark.case("PR-08")
@pytest.mark.parametrize("how", ["blocked", "closed"])
def test_a_blocked_or_closed_pipe_under_the_access_log_costs_no_request(upstream: ScriptedUpstream, how: str) -> None:
    reading, writing = os.pipe()
    try:
        with Gateway(config(upstream, log={"access": "stdout"}), stdout=writing) as gateway:
            if how == "closed":
                os.close(reading)
            with RawClient(gateway.port) as client:
                for _ in range(600):
                    client.send(request(headers={"User-Agent": "u" * 500}))
                    assert client.read_response().status == 200
            if how == "blocked":
                os.close(reading)
    finally:
        os.close(writing)


@pytest.mark.case("PR-10")
def test_kept_connections_keep_the_number_of_ports_low(four_workers: Gateway, upstream: ScriptedUpstream) -> None:
    for _ in range(100):
        with RawClient(four_workers.port) as client:
            client.send(request())
            assert client.read_response().status == 200
    assert len(upstream.connections) <= 4 + 1


@pytest.mark.case("PR-11")
@pytest.mark.parametrize("which", ["port", "admin_port"])
def test_a_port_that_is_taken_is_a_sentence_and_exit_code_1(upstream: ScriptedUpstream, which: str) -> None:
    gateway = Gateway(config(upstream))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", getattr(gateway, which)))
        taken.listen()
        try:
            gateway.launch()
            assert gateway.wait(10) == 1
            assert str(getattr(gateway, which)) in gateway.stderr()
            assert not gateway.complaints()
            wait_until(lambda: not gateway.processes(), 2)
        finally:
            gateway.kill()
            gateway.discard()


@pytest.mark.case("PR-12")
def test_workers_that_cannot_boot_end_the_start_and_are_no_fork_storm(upstream: ScriptedUpstream) -> None:
    gateway = Gateway(config(upstream, 2))
    broken = gateway.directory / "broken"
    broken.mkdir()
    (broken / "uvloop.py").write_text("raise ImportError('uvloop is broken here')\n")
    gateway.environment["PYTHONPATH"] = f"{broken}:{os.environ.get('PYTHONPATH', '')}"
    seen: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            seen.update(gateway.processes())

    watcher = threading.Thread(target=watch)
    try:
        gateway.launch()
        watcher.start()
        assert gateway.wait(20) not in {0, None}
        assert len(seen) < 30
        assert "uvloop is broken here" in gateway.stderr()
        wait_until(lambda: not gateway.processes(), 3)
    finally:
        stop.set()
        watcher.join(5)
        gateway.kill()
        gateway.discard()


@pytest.mark.case("PR-13")
def test_a_broken_file_at_the_start_is_a_sentence_and_exit_code_1(upstream: ScriptedUpstream) -> None:
    gateway = Gateway("routes: {wire: {host: '*', too: 3000}}\n")
    try:
        gateway.launch()
        assert gateway.wait(10) == 1
        assert "did you mean" in gateway.stderr()
        assert gateway.config_file.name in gateway.stderr()
        assert not gateway.complaints()
    finally:
        gateway.kill()
        gateway.discard()
