"""The processes beside the workers: the control process and the echo upstream, each forked and watched by the master.

A companion that dies is back within a second, or later and later if it keeps dying; traffic does not depend on it.
"""

import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

_log = logging.getLogger("devhost_server.master")

_FIRST_DELAY: Final = 0.1  # seconds before a dead companion is forked again; doubled each time it dies young
_LONGEST_DELAY: Final = 10.0
_YOUNG: Final = 5.0  # seconds


class Backoff:
    """How long to wait before something that keeps dying is started again. The clock is passed in, in seconds."""

    def __init__(self) -> None:
        self._delay = _FIRST_DELAY
        self.due = 0.0

    def died(self, now: float, age: float) -> None:
        """Note a death at the age of `age` seconds."""
        self._delay = _FIRST_DELAY if age > _YOUNG else min(self._delay * 2, _LONGEST_DELAY)
        self.due = now + self._delay


class Companion:
    """One such process. `run` is what it does; it must return on SIGTERM and when the master is gone."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self.name = name
        self.pid = 0
        self._run = run
        self._born = 0.0
        self._backoff = Backoff()
        self._stopping = False

    def __repr__(self) -> str:
        return f"<Companion {self.name} pid={self.pid}>"

    def keep(self) -> None:
        """Fork it if it is not there and its time has come."""
        if not self.pid and not self._stopping and time.monotonic() >= self._backoff.due:
            self._fork()

    def _fork(self) -> None:
        self._born = time.monotonic()
        pid = os.fork()
        if pid:
            self.pid = pid
            return
        status = 1
        try:
            for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
                signal.signal(number, signal.SIG_IGN)
            gc.unfreeze()
            self._run()
            status = 0
        except Exception:
            _log.exception("the %s process failed", self.name)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def reaped(self, pid: int, how: str) -> bool:
        """Note a death; True if it was this companion's."""
        if pid != self.pid:
            return False
        self.pid = 0
        now = time.monotonic()
        self._backoff.died(now, now - self._born)
        if not self._stopping:
            _log.error("the %s process (pid %d) %s; starting it again", self.name, pid, how)
        return True

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to end; it is not forked again."""
        self._stopping = True
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
