"""The service manager, on a socket as systemd has it."""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devhost_server.processes.service_manager import ServiceManager

Hear = Callable[[], list[str]]


@pytest.fixture
def hear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hear]:
    """Return what was told since the last time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def heard() -> list[str]:
            told = []
            while True:
                try:
                    told.append(listener.recv(1000).decode())
                except BlockingIOError:
                    return told

        yield heard


def manager(usec: str | None = None) -> ServiceManager:
    environ = {} if usec is None else {"WATCHDOG_USEC": usec}
    return ServiceManager(environ, 77, logging.getLogger("test"), now=0.0)


def test_states_are_told(hear: Hear) -> None:
    told = manager()
    told.ready(77, "http://127.0.0.1:1")
    told.reloaded()
    told.stopping()
    assert hear() == [
        "READY=1\nMAINPID=77\nSTATUS=serving http://127.0.0.1:1",
        "READY=1",
        "STOPPING=1\nSTATUS=draining",
    ]


def test_a_reload_says_when_it_began(hear: Hear) -> None:
    before = time.monotonic_ns() // 1000
    manager().reloading()
    state, stamp = hear()[0].split("\n")
    assert state == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_a_watchdog_is_told_twice_in_its_time(hear: Hear) -> None:
    told = manager("10000000")
    assert (told.wants_signs, told.longest_wait) == (True, 2.5)
    for now in range(11):
        told.alive(now)
    assert hear() == ["WATCHDOG=1"] * 3


def test_without_a_watchdog_nothing_is_due(hear: Hear) -> None:
    told = manager()
    told.alive(1000.0)
    assert (told.wants_signs, told.longest_wait, hear()) == (False, float("inf"), [])


def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    manager().stopping()
