import os
import signal
import time
from pathlib import Path

import pytest

from devhost_server.observe.processes import Usages, read_process
from tests.shared.boards import exit_code, forked
from tests.support import wait_until


def booted_at() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def burn(seconds: float) -> None:
    while time.process_time() < seconds:
        pass


def test_a_process_is_read_as_the_kernel_counts_it() -> None:
    with forked(signal.pause) as pid:
        process = read_process(pid, booted_at())
        assert process is not None
        assert process.pid == pid
        assert process.resident % os.sysconf("SC_PAGE_SIZE") == 0
        assert process.resident > 1_000_000
        assert process.descriptors == len(os.listdir(f"/proc/{pid}/fd"))
        assert abs(process.started_at - time.time()) < 5
        assert 0 <= process.cpu < 5


def test_a_command_with_blanks_and_parentheses_does_not_shift_the_fields() -> None:
    def work() -> None:
        Path("/proc/self/comm").write_text("a) 1 (b")
        signal.pause()

    with forked(work) as pid:
        wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "a) 1 (b\n")
        process = read_process(pid, booted_at())
        assert process
        assert abs(process.started_at - time.time()) < 5


def test_a_process_that_is_gone_is_none() -> None:
    with forked(lambda: None) as pid:
        exit_code(pid)
        assert read_process(pid, 0.0) is None


def test_cpu_time_of_a_slot_goes_on_when_its_worker_is_replaced() -> None:
    usages = Usages()
    with forked(lambda: (burn(0.2), signal.pause())) as pid:
        first = wait_until(lambda: (u := usages.read({3: pid})[3]).cpu >= 0.19 and u)
        assert first.process
        os.kill(pid, signal.SIGKILL)
        exit_code(pid)
    gone = usages.read({3: pid})
    assert (gone[3].process, gone[3].cpu) == (None, first.cpu)
    assert usages.read({3: 0})[3].cpu == first.cpu
    with forked(signal.pause) as pid:
        second = usages.read({3: pid})[3]
        assert second.process
        assert second.cpu == pytest.approx(first.cpu + second.process.cpu)


def test_slots_without_a_worker_are_left_out() -> None:
    assert Usages().read({0: 0}) == {}
