"""Processes that die, hang, multiply or cannot start: who is replaced, by when, and what stays counted."""

import os
import resource
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.integration.helpers import EchoGateway, Storm, Supervisor, members, pss_kib, replaced
from tests.support import Metrics, RawClient, request, wait_until
from tests.support.gateway import descriptors
from tests.support.net import accepts
from tests.support.waiting import patient, seconds_since
from tests.support.websocket import handshake


@pytest.fixture(scope="module")
def shared() -> Iterator[EchoGateway]:
    """Two workers that the tests of this module kill."""
    with EchoGateway(workers=2) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared: EchoGateway) -> EchoGateway:
    """The shared gateway with both workers ready, and old enough to be replaced at once."""
    wait_until(lambda: _states(shared) == ["ready"] * 2, 5)
    wait_until(lambda: min(w["uptime_s"] for w in shared.status()["workers"]) >= 1, 3)
    return shared


class Watch:
    """Scrapes again and again while the block runs, and holds every total to never going down."""

    def __init__(self, gateway: EchoGateway) -> None:
        self._gateway = gateway
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.fallen: list[str] = []
        self.scrapes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        before: dict[str, float] = {}
        while not self._stop.is_set():
            try:
                after = self._gateway.metrics().totals
            except OSError:  # the control process may be what dies
                continue
            self.scrapes += 1
            self.fallen += [
                f"{key} {value} > {after.get(key)}" for key, value in before.items() if after.get(key, -1) < value
            ]
            before = after


# -- a worker ----------------------------------------------------------------------------------------------------------


def test_a_killed_worker_takes_its_own_requests_along_and_nothing_else(gateway: EchoGateway) -> None:
    before = gateway.metrics()
    victim, survivor = gateway.worker_pids()
    with Watch(gateway) as watch, Storm(gateway.port, connections=16) as storm:
        wait_until(lambda: storm.count > 1000, 10)
        on_it = _connections(gateway, victim)
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        replaced(gateway, victim, 2)
        took = seconds_since(began)
        count = storm.count
        wait_until(lambda: storm.count > count + 1000, 10)
    assert took < 1.0
    assert set(storm.bad) <= {"lost", "idle", "cut"}, storm.details
    assert sum(storm.bad.values()) <= max(on_it, 1), (storm.bad, on_it)
    assert watch.scrapes > 3
    assert not watch.fallen, watch.fallen[:5]
    assert survivor in gateway.worker_pids()
    (told,) = (line for line in gateway.messages("error") if f"(pid {victim})" in line)
    assert "killed by SIGKILL" in told
    after = gateway.metrics()
    assert _restarts(after, "killed") == _restarts(before, "killed") + 1
    wait_until(lambda: gateway.metrics().value("devhost_requests_in_flight") == 0, 2, "nothing being in flight")
    wait_until(lambda: gateway.metrics().value("devhost_connections", state="active") == 0, 2)


def _states(gateway: EchoGateway) -> list[str]:
    return [worker["state"] for worker in gateway.status()["workers"]]


def _connections(gateway: EchoGateway, pid: int) -> int:
    (worker,) = (worker for worker in gateway.status()["workers"] if worker["pid"] == pid)
    return int(worker["connections"])


def _restarts(metrics: Metrics, reason: str) -> float:
    return metrics.value("devhost_worker_restarts_total", reason=reason)


def test_both_workers_killed_at_once_are_back(gateway: EchoGateway) -> None:
    workers = gateway.worker_pids()
    began = time.monotonic()
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    with RawClient(gateway.port, timeout=3) as client:  # it waits in the queue of the listener
        client.send(request())
        assert client.read_response().status == 200
    replaced(gateway, workers[0], 2)
    assert seconds_since(began) < patient(2)


def test_a_worker_that_dies_at_each_birth_is_tried_less_and_less_often(gateway: EchoGateway) -> None:
    """Killed young again and again, it comes back ever later; once it has lived for a while, at once again."""
    seen: set[int] = set()
    until = time.monotonic() + 1.6
    while time.monotonic() < until:
        workers = set(gateway.worker_pids())
        for worker in workers - seen:
            os.kill(worker, signal.SIGKILL)
        seen |= workers
        time.sleep(0.01)  # the pace of the killing, not a wait for anything
    assert 3 <= len(seen) < 12
    wait_until(lambda: len(gateway.worker_pids()) == 2, 10)
    wait_until(lambda: min(w["uptime_s"] for w in gateway.status()["workers"]) >= 1, 5)
    victim = gateway.worker_pids()[0]
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    replaced(gateway, victim, 2)
    assert seconds_since(began) < patient(1)


def test_a_worker_told_to_leave_is_replaced_before_it_has_left(gateway: EchoGateway) -> None:
    """A slow exchange on one worker keeps nobody from being served, and is finished."""
    victim = None
    with RawClient(gateway.port) as client:
        client.send(request("GET", "/delay/1.5"))

        def busy() -> int | None:
            return next((w["pid"] for w in gateway.status()["workers"] if w["in_flight"]), None)

        victim = wait_until(busy, 2)
        assert victim
        began = time.monotonic()
        os.kill(victim, signal.SIGTERM)
        wait_until(lambda: _states(gateway).count("ready") == 2, 1.2, "two others being ready")
        assert seconds_since(began) < patient(1.2)
        assert client.read_response().status == 200
    wait_until(lambda: victim not in gateway.worker_pids(), 2)
    assert not [line for line in gateway.messages("error") if f"(pid {victim})" in line], "to leave is no error"


# -- the control process, the echo upstream ----------------------------------------------------------------------------


def test_the_control_process_is_back_with_everything_it_knew(gateway: EchoGateway) -> None:
    (control,) = gateway.titled("control")
    with Storm(gateway.port, connections=4, pause=0.005) as storm:
        wait_until(lambda: storm.count > 100, 5)
        before = gateway.metrics().totals
        began = time.monotonic()
        os.kill(control, signal.SIGKILL)
        wait_until(gateway.ready, 3)
        assert seconds_since(began) < patient(1.5)
        after = gateway.metrics().totals
    # CPU seconds are read from the kernel and added up by the control process, which forgets those of dead workers.
    lost = [key for key, value in before.items() if after.get(key, -1) < value and "cpu_seconds" not in key]
    assert not lost, lost
    assert storm.bad == {}
    assert gateway.titled("control") != [control]
    assert any("control process" in line and "SIGKILL" in line for line in gateway.messages("error"))
    assert gateway.status()["last_reload"] is None or gateway.status()["last_reload"]["result"] == "ok"
    assert gateway.reload()[0] == 200


def test_the_echo_upstream_is_back(gateway: EchoGateway) -> None:
    (echo,) = gateway.titled("echo")
    os.kill(echo, signal.SIGKILL)
    wait_until(lambda: gateway.titled("echo") not in ([], [echo]), 2)
    wait_until(lambda: gateway.get().status == 200, 2)


# -- the master --------------------------------------------------------------------------------------------------------


def test_nothing_outlives_a_killed_master() -> None:
    gateway = EchoGateway(workers=2)
    try:
        gateway.start()
        with RawClient(gateway.port) as busy, RawClient(gateway.port) as websocket:
            busy.send(request("GET", "/delay/20"))
            websocket.send(handshake("/ws"))
            assert websocket.start_response().status == 101
            began = time.monotonic()
            os.kill(gateway.pid, signal.SIGKILL)
            gateway.wait(2)
            wait_until(lambda: not gateway.processes(), 5, "everything being gone")
            assert seconds_since(began) < patient(5)
        for port in (gateway.port, gateway.admin_port, gateway.echo_port):
            assert not accepts(port)
    finally:
        gateway.kill()
        gateway.discard()


def test_a_master_without_descriptors_goes_on_and_recovers(gateway: EchoGateway) -> None:
    """What a worker needs cannot be had for a while: that is told, and tried again."""
    soft, hard = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
    victim = gateway.worker_pids()[0]
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (descriptors(gateway.pid) - 2, hard))
    try:
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: any("before it was ready" in line for line in gateway.messages("error")), 5)
        gateway.complaints()  # how it failed may be told with all details
        assert gateway.running
        assert gateway.get().status == 200
    finally:
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (soft, hard))
    replaced(gateway, victim, 2)
    gateway.complaints()


# -- workers that cannot start -----------------------------------------------------------------------------------------

# Runs in every interpreter of the gateway, and looks around at each fork: a worker that is being born fails as told.
SPOIL = """
    import os, signal, sys

    def within(name):
        frame = sys._getframe()
        while frame and frame.f_code.co_name != name:
            frame = frame.f_back
        return frame and frame.f_locals

    def fail(self):
        raise RuntimeError("broken on purpose")

    def after():
        here = within("spawn_worker")
        if not here or "BROKEN_HOW" not in os.environ:
            return
        how = open(os.environ["BROKEN_HOW"]).read()
        if how == "raise":
            here["worker"].init_process = fail.__get__(here["worker"])
        elif how == "exit":
            os._exit(7)
        elif how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)

    os.register_at_fork(after_in_child=after)
"""


class SpoiltGateway(EchoGateway):
    """A gateway whose workers fail at their birth while the file `how` says so."""

    def __init__(self, how: str = "well", **environment: str) -> None:
        super().__init__(workers=2)
        modules = self.directory / "modules"
        modules.mkdir()
        (modules / "sitecustomize.py").write_text(textwrap.dedent(SPOIL))
        self.how = self.directory / "how"
        self.how.write_text(how)
        self.environment |= environment | {
            "BROKEN_HOW": str(self.how),
            "PYTHONPATH": f"{modules}:{os.environ.get('PYTHONPATH', '')}",
        }


@pytest.mark.parametrize("how", ["raise", pytest.param("exit", marks=pytest.mark.long), "kill"])
def test_workers_that_cannot_boot_end_the_start(how: str) -> None:
    gateway = SpoiltGateway(how)
    seen: set[int] = set()
    try:
        began = time.monotonic()
        gateway.launch()
        while gateway.running and seconds_since(began) < 10:
            seen.update(members(gateway.pid))
            time.sleep(0.005)  # the pace of looking
        assert gateway.wait(1) == 1
        assert len(seen) <= 12, "no fork storm"
        wait_until(lambda: not gateway.processes(), 2)
        assert not accepts(gateway.port)
        last = gateway.messages("error")[-1]
        assert "no worker could start" in last
        if how == "raise":
            assert "broken on purpose" in gateway.stderr()
    finally:
        gateway.kill()
        gateway.discard()


def test_workers_that_can_no_longer_boot_do_not_end_what_serves() -> None:
    gateway = SpoiltGateway("well")
    gateway.exit_codes = (0,)
    try:
        gateway.start()
        gateway.how.write_text("exit")
        survivor, victim = gateway.worker_pids()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: _restarts(gateway.metrics(), "boot") >= 3, 5)
        assert gateway.running
        assert gateway.get().status == 200
        assert gateway.worker_pids().count(survivor) == 1
        assert gateway.ready()
        gateway.how.write_text("well")
        replaced(gateway, victim, 2)
        gateway.stop()
    finally:
        gateway.kill()
        gateway.discard()


def test_the_watchdog_is_not_told_of_a_gateway_without_workers(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        gateway = SpoiltGateway("well", WATCHDOG_USEC="400000", **supervisor.environment)
        try:
            gateway.start()
            wait_until(lambda: _signs_of_life(supervisor) >= 3, 5)
            gateway.how.write_text("exit")
            for pid in gateway.worker_pids():
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: _restarts(gateway.metrics(), "boot") >= 2, 5)
            before, began = _signs_of_life(supervisor), time.monotonic()
            wait_until(lambda: seconds_since(began) > 1.5, 5)
            assert _signs_of_life(supervisor) == before
            gateway.how.write_text("well")
            wait_until(lambda: _signs_of_life(supervisor) > before, 15)
        finally:
            gateway.kill()
            gateway.discard()


def _signs_of_life(supervisor: Supervisor) -> int:
    return sum(message.get("WATCHDOG") == "1" for message in supervisor.states())


class ImpatientGateway(EchoGateway):
    """A gateway whose workers may be silent for `heartbeat` seconds, in place of 30."""

    CODE = """
        import sys
        from devhost_server.processes import start
        from devhost_server.config import Sources, load
        sources = Sources.from_options("dev", None, [sys.argv[2]])
        sys.exit(start.run(sources, load(sources), heartbeat=float(sys.argv[1])))
    """

    def __init__(self, heartbeat: float, workers: int = 2) -> None:
        self.heartbeat = heartbeat
        super().__init__(workers=workers)

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", textwrap.dedent(self.CODE), str(self.heartbeat), str(self.config_file)]


def test_a_hung_worker_is_noticed_and_replaced() -> None:
    with ImpatientGateway(1.5) as gateway, Storm(gateway.port, connections=4, pause=0.01) as storm:
        survivor, victim = gateway.worker_pids()
        began = time.monotonic()
        os.kill(victim, signal.SIGSTOP)
        replaced(gateway, victim, 2)
        assert 0.5 < seconds_since(began) < patient(4)
        count = storm.count
        wait_until(lambda: storm.count > count + 50, 5)
        assert survivor in gateway.worker_pids()
        assert _restarts(gateway.metrics(), "heartbeat") == 1
        assert any("no sign of life" in line and str(victim) in line for line in gateway.messages("critical"))


@pytest.mark.parametrize("master_first", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_gateway_that_was_frozen_goes_on_with_the_workers_it_has(master_first: bool) -> None:
    """As `docker pause`, Ctrl-Z or a debugger freeze it: everything at once, and for longer than a worker may hang."""
    with ImpatientGateway(4.0) as gateway:
        workers = gateway.worker_pids()
        everybody = sorted(gateway.processes(), reverse=not master_first)
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        frozen = time.monotonic()
        wait_until(lambda: seconds_since(frozen) > 5, 10)
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: gateway.get().status == 200, 5)
        wait_until(lambda: any("was stopped for" in line for line in gateway.messages("warning")), 5)
        # Longer than the workers may be silent, so that one which was not forgiven its sleep would be gone by now.
        thawed = time.monotonic()
        wait_until(lambda: seconds_since(thawed) > 2, 10)
        assert gateway.worker_pids() == workers
        assert _restarts(gateway.metrics(), "heartbeat") == 0
        # And it still notices one that hangs.
        os.kill(workers[0], signal.SIGSTOP)
        replaced(gateway, workers[0], 2)


# -- more and fewer ----------------------------------------------------------------------------------------------------


def test_workers_come_and_go_by_ttin_and_ttou() -> None:
    with EchoGateway(workers=1) as gateway, Storm(gateway.port, connections=4, pause=0.01) as storm:
        (first,) = gateway.worker_pids()
        for count in (2, 3):
            gateway.term(signal.SIGTTIN)
            replaced(gateway, 0, count)
        assert gateway.metrics().value("devhost_workers", state="ready") == 3
        assert gateway.reload()[0] == 200
        replaced(gateway, 0, 3)  # a reload that says nothing about workers leaves their number alone
        for count in (2, 1):
            gateway.term(signal.SIGTTOU)
            replaced(gateway, 0, count)
        gateway.term(signal.SIGTTOU)
        wait_until(lambda: "TTOU: one worker is the least" in gateway.messages("info"), 2)
        wait_until(lambda: len(gateway.worker_pids()) == 1, 3)
        assert gateway.worker_pids() == [first], "the last that came go first, and one always stays"
        wait_until(lambda: _restarts(gateway.metrics(), "retired") == 2, 3)
        wait_until(lambda: storm.count > 100, 5)
        storm.stop()
        assert set(storm.bad) <= {"idle"}, storm.details
        assert gateway.messages("error") == []
        assert gateway.messages("warning") == []


def test_a_reload_changes_the_number_of_workers() -> None:
    with EchoGateway(workers=1) as gateway:
        gateway.settings["server"]["workers"] = 3
        gateway.write_config(gateway.settings)
        assert gateway.reload()[0] == 200
        replaced(gateway, 0, 3)
        gateway.settings["server"]["workers"] = 2
        gateway.write_config(gateway.settings)
        assert gateway.reload()[0] == 200
        replaced(gateway, 0, 2)


def test_a_client_of_a_retired_worker_is_finished_first() -> None:
    with EchoGateway(workers=2) as gateway:
        with RawClient(gateway.port) as client:
            client.send(request("GET", "/delay/1"))
            wait_until(lambda: sum(w["in_flight"] for w in gateway.status()["workers"]) == 1, 2)
            gateway.term(signal.SIGTTOU)
            answer = client.read_response()
        assert answer.status == 200
        replaced(gateway, 0, 1)


# -- logs --------------------------------------------------------------------------------------------------------------


def test_usr1_reopens_the_access_log_and_loses_no_line(gateway: EchoGateway) -> None:
    rotated = [gateway.directory / f"access.log.{number}" for number in range(3)]
    before = len(gateway.access_log())
    with Storm(gateway.port, connections=8) as storm:
        for path in rotated:
            count = storm.count
            wait_until(lambda count=count: storm.count > count + 300, 10)  # type: ignore[misc]
            gateway.access_file.rename(path)
            gateway.term(signal.SIGUSR1)
            wait_until(gateway.access_file.exists, 2, "the new file")
    assert storm.bad == {}

    def written() -> int:
        return sum(path.read_text().count("\n") for path in [*rotated, gateway.access_file]) - before

    wait_until(lambda: written() >= storm.count, 2)
    assert written() == storm.count
    moved = len(rotated[-1].read_text())
    assert gateway.get().status == 200
    gateway.access_entry()
    assert len(rotated[-1].read_text()) == moved, "nobody writes to the old file any more"


# -- for long ----------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.timeout(900)
def test_200_restarts_leave_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    with EchoGateway(workers=8) as gateway, Storm(gateway.port, connections=4, pause=0.02) as storm:

        def kill(count: int) -> None:
            for _ in range(count):
                oldest = max(gateway.status()["workers"], key=lambda w: (w["uptime_s"], -w["slot"]))
                wait_until(lambda oldest=oldest: _uptime(gateway, oldest["pid"]) >= 1, 3)  # type: ignore[misc]
                os.kill(oldest["pid"], signal.SIGKILL)
                replaced(gateway, oldest["pid"], 8)

        kill(10)
        before = _footprint(gateway)
        totals = gateway.metrics().totals
        kill(200)
        replaced(gateway, 0, 8)
        after = _footprint(gateway)
        fallen = [key for key, value in totals.items() if gateway.metrics().totals.get(key, -1) < value]
        with capsys.disabled():
            print(f"\n200 restarts under {storm.count} requests: {before} -> {after}")
        assert not fallen, fallen
        assert after["master descriptors"] == before["master descriptors"]
        assert after["master KiB"] < before["master KiB"] + 1024
        assert after["control KiB"] < before["control KiB"] + 3072
        assert after["series"] == before["series"]
        assert {w["slot"] for w in gateway.status()["workers"]} == set(range(8)), "slots are used again"


def _uptime(gateway: EchoGateway, pid: int) -> int:
    return next((int(w["uptime_s"]) for w in gateway.status()["workers"] if w["pid"] == pid), 99)


def _footprint(gateway: EchoGateway) -> dict[str, int]:
    (control,) = gateway.titled("control")
    return {
        "master KiB": pss_kib(gateway.pid),
        "control KiB": pss_kib(control),
        "master descriptors": descriptors(gateway.pid),
        "control descriptors": descriptors(control),
        "series": len(gateway.metrics().samples),
        "files in /dev/shm": len(list(Path("/dev/shm").iterdir())),
    }
