"""The service manager that has started the gateway, if one has: what it is told with sd_notify(3)."""

import math
import time
from collections.abc import Mapping
from typing import Any

from devhost_server.processes.arbiter import systemd
from devhost_server.processes.liveness import Watchdog


class ServiceManager:
    """The service manager. Where there is none, telling it something does nothing. Times are monotonic seconds."""

    def __init__(self, environ: Mapping[str, str], pid: int, log: Any, now: float) -> None:
        self._watchdog = Watchdog.of(environ, pid, now)
        self._log = log

    @property
    def longest_wait(self) -> float:
        """Return for how many seconds the master may wait without a look at the watchdog."""
        return math.inf if self._watchdog is None else self._watchdog.interval / 2

    @property
    def wants_signs(self) -> bool:
        """Return whether it has a watchdog."""
        return self._watchdog is not None

    def ready(self, pid: int, addresses: str) -> None:
        """Say that the gateway serves, and on which addresses."""
        self._notify(f"READY=1\nMAINPID={pid}\nSTATUS=serving {addresses}")

    def reloading(self) -> None:
        """Say that a reload begins now."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Say that a reload is over."""
        self._notify("READY=1")

    def stopping(self) -> None:
        """Say that the gateway drains."""
        self._notify("STOPPING=1\nSTATUS=draining")

    def alive(self, now: float) -> None:
        """Give the watchdog its sign of life, if one is due."""
        if self._watchdog is not None and self._watchdog.is_due(now):
            self._notify("WATCHDOG=1")

    def _notify(self, state: str) -> None:
        systemd.sd_notify(state, self._log)
