"""The life of the control process: how it starts, what it ignores, and how soon it is gone."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devhost_server.shared.board import Board
from tests.admin.harness import Master, Served, answers, client_of, is_alive, running, seconds, served
from tests.shared.boards import Shared
from tests.support import RawClient, wait_until
from tests.support.waiting import patient


@pytest.fixture
def shared() -> Shared:
    made = Shared()
    made.publish()
    return made


@pytest.fixture
def gateway(shared: Shared) -> Iterator[Served]:
    with served(shared) as made:
        yield made


def gone(pid: int) -> bool:
    return not is_alive(pid)


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").decode()


def test_it_has_a_title_and_gives_way_to_the_data_plane(gateway: Served) -> None:
    pid = gateway.master.control_pid
    assert title(pid) == "devhost-server: control"
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, gateway.master.pid) + 5


def test_it_ends_within_a_second_when_told_to(gateway: Served) -> None:
    pid = gateway.master.control_pid
    os.kill(pid, signal.SIGQUIT)
    assert seconds(lambda: wait_until(lambda: gone(pid), 5)) < patient(1)


def test_idle_and_half_sent_connections_do_not_hold_it(gateway: Served) -> None:
    port, pid = gateway.listener.getsockname()[1], gateway.master.control_pid
    with RawClient(port) as idle, RawClient(port) as half, RawClient(port):
        idle.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.read_response().status == 200
        half.send(b"GET /healthz HTTP/1.1\r\nHost: lo")
        os.kill(pid, signal.SIGQUIT)
        assert seconds(lambda: wait_until(lambda: gone(pid), 5)) < patient(1)


def test_a_request_in_flight_is_answered_before_it_ends(shared: Shared) -> None:
    # The master of this test never serves the reload: only the end of the process can answer it.
    with served(shared, on_reload=lambda _shared, _served: None) as gateway:
        pid = gateway.master.control_pid
        with RawClient(gateway.listener.getsockname()[1]) as raw:
            raw.send(b"POST /api/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            wait_until(lambda: shared.board[Board.RELOAD_REQUESTS])
            os.kill(pid, signal.SIGQUIT)
            response = raw.read_response()
            assert (response.status, response.headers["content-type"]) == (503, "application/problem+json")
            assert response.complete
        assert seconds(lambda: wait_until(lambda: gone(pid), 5)) < patient(1)


def test_a_reader_that_has_stopped_reading_does_not_hold_it(shared: Shared) -> None:
    names = [f"{'r' * 50}-{number}" for number in range(500)]
    shared.publish(
        routes={
            name: {"name": name, "hosts": [f"r{at}.localhost"], "upstream": "api"} for at, name in enumerate(names)
        },
        upstreams={"api": {"targets": [8000]}},
    )
    worker = shared.worker(0)
    for name in names:
        worker.request(name)
    with served(shared) as gateway:
        pid = gateway.master.control_pid
        with RawClient(gateway.listener.getsockname()[1], receive_buffer=4096) as raw:
            for _ in range(20):
                raw.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            raw.fill(10)
            os.kill(pid, signal.SIGQUIT)
            assert seconds(lambda: wait_until(lambda: gone(pid), 5)) < patient(1.2)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGTTIN,
        signal.SIGWINCH,
    ],
)
def test_what_is_sent_to_the_whole_group_is_the_masters_business(gateway: Served, number: int) -> None:
    os.kill(gateway.master.control_pid, number)
    assert gateway.client.get("/healthz").status_code == 200
    assert is_alive(gateway.master.control_pid)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_it_does_not_outlive_its_master(gateway: Served, busy: bool) -> None:
    pid, port = gateway.master.control_pid, gateway.listener.getsockname()[1]
    gateway.listener.close()
    with RawClient(port) as raw:
        if busy:
            raw.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        os.kill(gateway.master.pid, signal.SIGKILL)
        os.waitpid(gateway.master.pid, 0)
        assert seconds(lambda: wait_until(lambda: gone(pid), 5)) < patient(1.2)
    with socket.create_server(("127.0.0.1", port)):
        pass  # the port is free


def test_a_master_that_is_gone_before_control_runs_is_missed(shared: Shared) -> None:
    master = Master(shared, None)
    with running(master):
        os.kill(master.pid, signal.SIGKILL)  # most likely before the child has taken a step
        wait_until(lambda: gone(master.control_pid), 5)


def test_without_a_listener_it_waits(shared: Shared) -> None:
    with running(Master(shared, None)) as master:
        pid = master.control_pid
        wait_until(lambda: title(pid) == "devhost-server: control")
        assert is_alive(pid)
        os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: gone(pid), 1)


def test_another_takes_its_place_on_the_same_listener(shared: Shared) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, client_of(listener) as client:
        for generation in (1, 2):
            shared.publish(generation)
            shared.worker(0, generation=generation).request("api")
            with running(Master(shared, listener)) as master:
                wait_until(lambda: answers(client), 15)
                samples = client.get("/metrics").text
                expected = f'devhost_requests_total{{route="api",method="GET",code="200"}} {generation}\n'
                assert expected in samples
                os.kill(master.control_pid, signal.SIGKILL)
                wait_until(lambda: gone(master.control_pid))


def test_it_says_nothing_when_all_is_well(shared: Shared, capfd: pytest.CaptureFixture[str]) -> None:
    with served(shared) as gateway:
        with RawClient(gateway.listener.getsockname()[1]) as raw:
            raw.send(b"nonsense\r\n\r\n")
            raw.read_response()
        gateway.client.get("/metrics")
        pid = gateway.master.control_pid
        os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: gone(pid))
    assert capfd.readouterr() == ("", "")


def test_with_it_everything_is_imported_that_it_will_need() -> None:
    """Another one must be able to start when what is installed has been replaced meanwhile."""
    needed = "{'starlette', 'uvicorn', 'prometheus_client', 'uvloop', 'httptools'}"
    code = f"import sys, devhost_server.processes.control; print(sorted({needed} - set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
