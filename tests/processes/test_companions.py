"""Processes beside the workers: forked, watched, forked again, and stopped."""

import contextlib
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.processes.companions import Backoff, Companion
from tests.support import wait_until
from tests.support.waiting import patient


@dataclass
class Master:
    """Keeps one companion and reaps it, as the master does."""

    companion: Companion
    statuses: list[int] = field(default_factory=list)

    def keep(self) -> int:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; the child touches nothing that they hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.companion.keep()
        return self.companion.pid

    def reap(self) -> int:
        """Wait for its end and give how it ended, a signal as a negative number."""
        pid, status = os.waitpid(self.companion.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        assert self.companion.reaped(pid, status, f"ended with {code}")
        return code


@contextlib.contextmanager
def kept(run: Callable[[], None]) -> Iterator[Master]:
    master = Master(Companion("test", run))
    try:
        yield master
    finally:
        if master.companion.pid:
            os.kill(master.companion.pid, signal.SIGKILL)
            os.waitpid(master.companion.pid, 0)


def until_told() -> None:
    while True:
        signal.pause()


def test_a_companion_runs_in_a_process_of_its_own() -> None:
    read, write = os.pipe()
    with kept(lambda: os.close(write) if os.write(write, b"%d" % os.getpid()) < 0 else None) as master:
        pid = master.keep()
        os.close(write)
        assert pid
        assert pid != os.getpid()
        assert os.read(read, 100) == b"%d" % pid
        os.close(read)
        assert repr(master.companion) == f"<Companion test pid={pid}>"
        assert master.reap() == 0
        assert master.companion.pid == 0


def test_one_that_lives_is_not_forked_twice() -> None:
    with kept(until_told) as master:
        pid = master.keep()
        assert master.keep() == pid


def test_one_that_dies_is_back_within_a_second(caplog: pytest.LogCaptureFixture) -> None:
    with kept(until_told) as master:
        first = master.keep()
        os.kill(first, signal.SIGKILL)
        with caplog.at_level(logging.ERROR, "devhost_server.processes.master"):
            assert master.reap() == -signal.SIGKILL
        began = time.monotonic()
        second = wait_until(master.keep, 2.0)
        assert second != first
        assert time.monotonic() - began < patient(1.0)
    assert f"the test process (pid {first}) ended with -9; starting it again" in caplog.text


def test_an_error_of_its_own_ends_it_with_one(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    with kept(fail) as master, caplog.at_level(logging.CRITICAL):
        master.keep()
        assert master.reap() == 1


def test_leaving_by_exit_is_an_end_too() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with kept(leave) as master:
        master.keep()
        assert master.reap() == 1


def test_the_master_ends_it_although_it_has_a_handler_for_that_itself() -> None:
    before = signal.signal(signal.SIGQUIT, lambda *_: None)
    try:
        with kept(until_told) as master:
            master.keep()
            master.companion.stop()
            assert master.reap() == 0
    finally:
        signal.signal(signal.SIGQUIT, before)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGWINCH]
)
def test_what_is_meant_for_the_master_does_not_end_it(number: signal.Signals) -> None:
    read, write = os.pipe()

    def announce() -> None:
        os.write(write, b"!")
        until_told()

    with kept(announce) as master:
        pid = master.keep()
        os.read(read, 1)
        os.kill(pid, number)
        master.companion.stop()
        assert master.reap() == 0
    os.close(read)
    os.close(write)


def test_one_that_was_stopped_stays_down() -> None:
    with kept(until_told) as master:
        master.keep()
        master.companion.stop()
        master.reap()
        assert master.keep() == 0
        master.companion.stop()


def test_one_that_was_let_go_may_end_by_itself_and_stays_down(caplog: pytest.LogCaptureFixture) -> None:
    with kept(until_told) as master, caplog.at_level(logging.INFO, "devhost_server.processes.master"):
        pid = master.keep()
        master.companion.let_go()
        os.kill(pid, signal.SIGKILL)
        master.reap()
        assert master.keep() == 0
    assert caplog.text == ""


def test_anothers_death_is_not_its_own() -> None:
    with kept(until_told) as master:
        pid = master.keep()
        assert not master.companion.reaped(pid + 1, 0, "ended")
        assert master.companion.pid == pid


def test_no_process_to_be_had_is_no_end_of_the_master(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    companion = Companion("test", until_told)
    monkeypatch.setattr(os, "fork", fail)
    with caplog.at_level(logging.ERROR, "devhost_server.processes.master"):
        companion.keep()
        companion.keep()
    assert companion.pid == 0
    assert caplog.text.count("cannot be started") == 1
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


# --- the backoff -----------------------------------------------------------------------------------------------------


def test_dying_young_again_and_again_makes_it_wait_longer() -> None:
    backoff = Backoff()
    waits = []
    for number in range(10):
        backoff.died(100.0 * number, 0.0)
        waits.append(backoff.due - 100.0 * number)
    assert waits[0] <= 1.0
    assert all(later >= sooner for sooner, later in pairwise(waits))
    assert waits[-1] == 10.0


def test_a_long_life_makes_up_for_it() -> None:
    backoff = Backoff()
    for _ in range(10):
        backoff.died(0.0, 0.0)
    backoff.died(1000.0, 60.0)
    assert backoff.due - 1000.0 <= 1.0
    backoff.died(2000.0, 0.0)
    assert backoff.due - 2000.0 <= 1.0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 100)), min_size=1))
def test_it_never_waits_longer_than_ten_seconds(deaths: list[tuple[float, float]]) -> None:
    backoff = Backoff()
    for now, age in deaths:
        backoff.died(now, age)
        assert now <= backoff.due <= now + 10.0
