"""A worker process: the public listeners under uvicorn, one `Serving`, one row of the scoreboard.

Forked by the master with all code loaded. What it serves and the ticks that go with it are those of
`devhost_server.processes.serving`; here is what being one of gunicorn's processes adds: signals, listeners, title, the
heartbeat (which goes on during a drain), the look for the parent. It never stops of its own will: it drains when the
master says so, and leaves at once when the master is gone.
"""

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Generator
from functools import partial
from typing import Any, Final, cast

import setproctitle
import uvicorn
import uvloop
from gunicorn.workers.base import Worker

from devhost_server.doors.http1 import ClientConnection
from devhost_server.forks import forget_variables, hold_signals, release_signals
from devhost_server.observe import logs
from devhost_server.processes.accepting import Acceptor
from devhost_server.processes.serving import SECOND_TICKS, Serving
from devhost_server.shared.board import Scoreboard, Slot, WorkerState
from devhost_server.shared.publication import Document as Published
from devhost_server.shared.publication import Publication

_log = logging.getLogger("devhost_server.processes.worker")

_PR_SET_PDEATHSIG: Final = 1
# Full collections of a worker's heap are long pauses; what a request allocates is freed by counting references.
_GC_THRESHOLDS: Final = (50_000, 50, 100)


class GatewayServer(uvicorn.Server):
    """uvicorn's server with a drain of our own in place of its shutdown, and the signals left to the worker."""

    def __init__(self, config: uvicorn.Config, worker: "GatewayWorker") -> None:
        super().__init__(config)
        self._worker = worker
        self._acceptors: list[Acceptor] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone: the worker handles them."""
        yield

    async def main_loop(self) -> None:
        """Serve until the worker is told to stop."""
        await self._worker.until_stopped()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept on the listeners that the workers share, each its share."""
        self.servers = []
        self._acceptors = [Acceptor(sock, self._make_protocol, self._worker.load) for sock in sockets or []]
        for acceptor in self._acceptors:
            acceptor.start()
        self.started = True

    def _make_protocol(self) -> asyncio.Protocol:
        return ClientConnection(self.config, self.server_state, {})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain instead of closing everything at once."""
        for acceptor in self._acceptors:
            await acceptor.stop()
        await self._worker.drain()


class GatewayWorker(Worker):  # type: ignore[misc] # gunicorn is not typed
    """gunicorn's worker. `slot` is given by the master before the fork."""

    slot: int

    def __init__(self, age: int, ppid: int, sockets: Any, app: Any, timeout: float, cfg: Any, log: Any) -> None:
        # Not gunicorn's own, which makes a temporary file for the heartbeat: ours is a cell of the row, and needs no
        # directory that can be written.
        self.age, self.pid, self.ppid = age, 0, ppid
        self.sockets, self.app, self.timeout, self.cfg, self.log = sockets, app, timeout, cfg, log
        self.booted = self.aborted = False
        self.alive = True
        self.tmp = _NoFile()
        self.slot = -1
        self._title = ""
        self._row: memoryview
        self._serving: Serving

    # -- the process --------------------------------------------------------------------------------------------------

    def notify(self) -> None:
        """Send the master a heartbeat."""
        self.app.scoreboard.row(self.slot)[Slot.HEARTBEAT] = time.monotonic_ns() // 1000

    def init_process(self) -> None:
        """Become a worker; gunicorn's own way there is for what it can do and we do not."""
        self.init_signals()
        self.booted = True
        self.run()

    def init_signals(self) -> None:
        """Handle the master's signals in the loop; a terminal's Ctrl-C reaches the whole group and is the master's.

        The master has held signals back for the fork; TERM and QUIT go on waiting until the loop can handle them.
        """
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
            signal.signal(number, signal.SIG_IGN)
        faulthandler.enable()  # the master aborts a worker that hangs: show where

    def run(self) -> None:
        """Serve until told to stop."""
        _die_with_parent(self.ppid)
        forget_variables()
        gc.set_threshold(*_GC_THRESHOLDS)
        scoreboard, publication = self.app.scoreboard, self.app.publication
        self._row = scoreboard.row(self.slot)
        self._rows = [scoreboard.row(slot) for slot in range(scoreboard.capacity.slots)]
        self._row[Slot.PID], self._row[Slot.STARTED_AT] = os.getpid(), time.time_ns() // 1000
        self._enter(WorkerState.BOOTING)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(scoreboard, publication))
        sys.exit(0)

    def _enter(self, state: WorkerState) -> None:
        self._row[Slot.STATE] = state
        self._show_title()

    async def _serve(self, scoreboard: Scoreboard, publication: Publication) -> None:
        loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._serving = serving = Serving(
            scoreboard,
            self.slot,
            partial(publication.read, Published.SNAPSHOT),
            clock=loop.time,
            soon=loop.call_soon,
            configure_logs=logs.configure,
        )
        await serving.start()
        serving.gateway.clients.listen({sock.getsockname(): index for index, sock in enumerate(self.sockets)})
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGQUIT, self._leave_now)
        release_signals()
        config = uvicorn.Config(
            cast("Any", serving.gateway),
            http=ClientConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            backlog=self.cfg.backlog,
        )
        ticking = loop.create_task(serving.run(self._look_around))
        try:
            await GatewayServer(config, self).serve(sockets=[listener_of(sock) for sock in self.sockets])
        finally:
            hold_signals()  # without a loop, one that comes now would make this end look like a violent one
            ticking.cancel()
            await serving.close()

    async def until_stopped(self) -> None:
        """Be ready until the master says to stop."""
        self._enter(WorkerState.READY)
        await self._stop.wait()

    async def drain(self) -> None:
        """End what is in flight, within the time that there is."""
        self._enter(WorkerState.DRAINING)
        await self._serving.drain()

    def load(self) -> tuple[int, int]:
        """Return the number of connections of this worker, and of the least loaded one that is ready."""
        mine = len(self._serving.gateway.clients.connections)
        others = [row[Slot.CONNECTIONS] for row in self._rows if row[Slot.STATE] == WorkerState.READY]
        return mine, min(others, default=mine)

    def _look_around(self) -> None:
        """Look for the master, behind every tick; once a second, tell it that this process lives."""
        if os.getppid() != self.ppid:
            _log.error("worker %d: the master is gone", self.slot)
            self._leave_now()
        if self._serving.ticks % SECOND_TICKS == 0:
            self.notify()
            self._show_title()

    def _leave_now(self) -> None:
        self._serving.abort()
        os._exit(0)

    def _show_title(self) -> None:
        state = WorkerState(self._row[Slot.STATE]).name.lower()
        title = f"devhost-server: worker {self.slot} {state} {self._row[Slot.CONNECTIONS]} connections"
        if title != self._title:
            self._title = title
            setproctitle.setproctitle(title)


class _NoFile:
    """What gunicorn closes in place of the temporary file that there is not."""

    def close(self) -> None:
        """Do nothing."""


def listener_of(listener: Any) -> socket.socket:
    """Return the socket itself: gunicorn wraps the ones that it makes or inherits."""
    return cast("socket.socket", getattr(listener, "sock", listener))


def _die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGQUIT should the master die; the tick checks the same, in case it already has."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
    if os.getppid() != parent:
        sys.exit(0)
