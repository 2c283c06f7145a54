"""The processes beside the workers: the control process and the echo upstream, each forked and watched by the master.

A companion that dies is back within a second, or later and later if it keeps dying; traffic does not depend on it.
It outlasts the workers: what they drain may need the echo upstream, and whoever watches the drain needs the admin
listener. So TERM and INT, which a supervisor or a terminal sends to every process there is, are the master's business,
and QUIT is how the master says that it is over.
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

from devhost_server.forks import (
    forget_variables,
    hold_signals,
    leave_group_signals_to_master,
    release_signals,
)

_log = logging.getLogger("devhost_server.processes.master")

_FIRST_DELAY: Final = 0.2  # seconds before what died young is started again; doubled each time that it does so again
_LONGEST_DELAY: Final = 10.0
_YOUNG: Final = 5.0  # seconds


class Backoff:
    """How long to wait before something that keeps dying is started again. The clock is passed in, in seconds.

    What dies older than `young` is started again at once.
    """

    def __init__(self, young: float = _YOUNG) -> None:
        self._young = young
        self._delay = _FIRST_DELAY / 2
        self.due = 0.0

    def died(self, now: float, age: float) -> None:
        """Note a death at the age of `age` seconds, or (as 0) that it could not even be started."""
        if age > self._young:
            self._delay, self.due = _FIRST_DELAY / 2, now
        else:
            self._delay = min(self._delay * 2, _LONGEST_DELAY)
            self.due = now + self._delay


class Companion:
    """One such process. `run` is what it does; it must return on SIGQUIT and when the master is gone."""

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
        """Fork it if it is not there and its time has come; if that fails, its time comes again."""
        if self.pid or self._stopping or time.monotonic() < self._backoff.due:
            return
        hold_signals()
        try:
            self._fork()
        except OSError as error:
            _log.error("the %s process cannot be started: %s", self.name, error.strerror)
            self._backoff.died(time.monotonic(), 0.0)
        finally:
            release_signals()

    def _fork(self) -> None:
        self._born = time.monotonic()
        pid = os.fork()
        if pid:
            self.pid = pid
            return
        status = 1
        try:
            leave_group_signals_to_master()
            release_signals()
            forget_variables()
            gc.unfreeze()
            self._run()
            status = 0
        except Exception:
            _log.exception("the %s process failed", self.name)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def reaped(self, pid: int, status: int, how: str) -> bool:
        """Note a death; True if it was this companion's."""
        if pid != self.pid:
            return False
        self.pid = 0
        now = time.monotonic()
        self._backoff.died(now, now - self._born)
        if not self._stopping:
            # Without a fault of its own, somebody has told it to.
            level = logging.ERROR if status else logging.INFO
            _log.log(level, "the %s process (pid %d) %s; starting it again", self.name, pid, how)
        return True

    def let_go(self) -> None:
        """Do not fork it again, however it ends."""
        self._stopping = True

    def stop(self, number: int = signal.SIGQUIT) -> None:
        """Ask it to end; it is not forked again."""
        self.let_go()
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
