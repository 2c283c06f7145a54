"""A worker process: the public listeners under uvicorn, one gateway, one row of the scoreboard.

Forked by the master with all code loaded. It reads the published configuration, tells the master that it is ready, and
from then on a single tick drives what is not traffic: deadlines, the heartbeat (which goes on during a drain), the look
for a new configuration, the flushing of the log. It never stops of its own will: it drains when the master says so, and
leaves at once when the master is gone.
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
from typing import Any, Final, cast

import setproctitle
import uvicorn
import uvloop
from gunicorn.workers.base import Worker

from devhost_server.doors.http1 import ClientConnection
from devhost_server.forks import forget_variables, hold_signals, release_signals
from devhost_server.gateway import Gateway
from devhost_server.observe import logs
from devhost_server.observe.access_log import AccessLog, AccessLogError
from devhost_server.processes.accepting import Acceptor
from devhost_server.processes.drain import Spread
from devhost_server.shared.board import Board, Scoreboard, Slot, WorkerState
from devhost_server.shared.publication import Document as Published
from devhost_server.shared.publication import Publication
from devhost_server.snapshot import Builder, Document, Snapshot
from devhost_server.timing.deadlines import TICK, LivedTime, Wheel
from devhost_server.upstream.upstream import Upstream

_log = logging.getLogger("devhost_server.processes.worker")

_FLUSH_TICKS: Final = 1  # ticks between two flushes of the access log: well under the promised 100 ms
_SECOND_TICKS: Final = round(1 / TICK)
# Long enough for the event loop to look at its sockets once, which it does behind its timers.
_READ_FIRST_SECONDS: Final = 0.001
_PR_SET_PDEATHSIG: Final = 1
# What is still sent after the last exchange has been cut: error answers and Close frames.
_LAST_WORDS_SECONDS: Final = 0.5
# How long a slow reader of the access log is waited for at the end, and how often it is offered the next lines: a pipe
# takes 64 KiB at a time.
_LAST_LINES_SECONDS: Final = 3.0
_LAST_LINES_PAUSE: Final = 0.005
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
        await self._worker.serving()

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
        self._gateway: Gateway
        self._builder: Builder
        self._tick_count = 0
        self._reloading: asyncio.Task[None] | None = None
        self._reopened = 0
        self._title = ""
        self._row: memoryview
        self._retired: list[Upstream] = []  # gone from the configuration, with exchanges still in flight

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
        self._board = scoreboard.board
        self._publication = publication
        self._stop = asyncio.Event()
        self._time = LivedTime(loop.time)
        self._wheel = Wheel(self._time)
        self._builder = Builder(scoreboard, self.slot, self._wheel)
        self._reopened = self._board[Board.REOPEN_LOGS]
        snapshot = await self._builder.build(await self._read_document(), None)
        options = snapshot.settings.log
        log = AccessLog(options.access, self._row, self.slot, json=options.format == "json")
        self._gateway = Gateway(scoreboard, self.slot, snapshot, log, self._wheel, loop.call_soon)
        self._gateway.clients.listen({sock.getsockname(): index for index, sock in enumerate(self.sockets)})
        # Something may have been published while this was being built: whoever is new begins with the latest.
        while self._board[Board.GENERATION] not in (self._row[Slot.GENERATION], self._row[Slot.REJECTED]):
            await self._reload()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGQUIT, self._leave_now)
        release_signals()
        config = uvicorn.Config(
            cast("Any", self._gateway),
            http=ClientConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            backlog=self.cfg.backlog,
        )
        ticking = loop.create_task(self._tick())
        try:
            await GatewayServer(config, self).serve(sockets=[listener_of(sock) for sock in self.sockets])
        finally:
            hold_signals()  # without a loop, one that comes now would make this end look like a violent one
            ticking.cancel()
            self._gateway.accounts.settle()
            self._gateway.write_gauges()
            await self._finish_log()

    async def _finish_log(self) -> None:
        """Write the log to its end; a reader that is slow is given a moment."""
        log, last = self._gateway.accounts.log, time.monotonic() + _LAST_LINES_SECONDS
        log.flush()
        while log.is_awaited and time.monotonic() < last:
            await asyncio.sleep(_LAST_LINES_PAUSE)
            log.flush()
        log.close()

    async def serving(self) -> None:
        """Be ready until the master says to stop."""
        self._enter(WorkerState.READY)
        await self._stop.wait()

    def load(self) -> tuple[int, int]:
        """Return the number of connections of this worker, and of the least loaded one that is ready."""
        mine = len(self._gateway.clients.connections)
        others = [row[Slot.CONNECTIONS] for row in self._rows if row[Slot.STATE] == WorkerState.READY]
        return mine, min(others, default=mine)

    async def _read_document(self) -> Document:
        while True:
            text = self._publication.read(Published.SNAPSHOT)
            if text is not None:
                return Document.parse(text)
            await asyncio.sleep(TICK)

    def _leave_now(self) -> None:
        """Stop without waiting for anything: what is in flight is cut."""
        self._gateway.clients.begin_drain()
        self._gateway.clients.cut_everything()
        self._gateway.accounts.settle()
        self._gateway.accounts.log.close()
        os._exit(0)

    # -- the tick -----------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            if self._time.turn():
                await asyncio.sleep(_READ_FIRST_SECONDS)
            try:
                self._turn()
            except Exception:
                _log.exception("worker %d: the tick failed", self.slot)

    def _turn(self) -> None:
        self._tick_count += 1
        self._wheel.turn()
        if self._tick_count % _FLUSH_TICKS == 0:
            self._gateway.accounts.log.flush()
        self._gateway.hangups.look()
        self._gateway.write_gauges()
        if self._board[Board.GENERATION] != self._row[Slot.GENERATION]:
            self._begin_reload()
        if self._board[Board.REOPEN_LOGS] != self._reopened:
            self._reopened = self._board[Board.REOPEN_LOGS]
            self._gateway.accounts.log.reopen()
        if os.getppid() != self.ppid:
            _log.error("worker %d: the master is gone", self.slot)
            self._leave_now()
        if self._tick_count % _SECOND_TICKS == 0:
            self._each_second()

    def _each_second(self) -> None:
        self.notify()
        self._gateway.clients.write_connections()
        for upstream in (*self._gateway.snapshot.upstreams.values(), *self._retired):
            upstream.each_second()
        self._retired = [upstream for upstream in self._retired if not upstream.quiet]
        self._show_title()

    def _show_title(self) -> None:
        state = WorkerState(self._row[Slot.STATE]).name.lower()
        title = f"devhost-server: worker {self.slot} {state} {self._row[Slot.CONNECTIONS]} connections"
        if title != self._title:
            self._title = title
            setproctitle.setproctitle(title)

    def _begin_reload(self) -> None:
        if self._reloading is None and self._row[Slot.REJECTED] != self._board[Board.GENERATION]:
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        """Build what has been published and serve it; the old snapshot serves on until the new one is complete."""
        generation = self._board[Board.GENERATION]
        try:
            document = await self._read_document()
            generation = document.generation
            previous = self._gateway.snapshot
            snapshot = await self._builder.build(document, previous)
            self._swap(previous, snapshot, self._log_for(snapshot, previous))
        except AccessLogError as error:
            _log.error("worker %d: generation %d cannot be served: %s", self.slot, generation, error)
            self._row[Slot.REJECTED] = generation
        except Exception:
            _log.exception("worker %d: generation %d cannot be served", self.slot, generation)
            self._row[Slot.REJECTED] = generation
        finally:
            self._reloading = None

    def _log_for(self, snapshot: Snapshot, previous: Snapshot) -> AccessLog:
        options, before = snapshot.settings.log, previous.settings.log
        if (options.access, options.format) == (before.access, before.format):
            return self._gateway.accounts.log
        return AccessLog.opened(options.access, self._row, self.slot, json=options.format == "json")

    def _swap(self, previous: Snapshot, snapshot: Snapshot, log: AccessLog) -> None:
        self._gateway.accounts.settle()
        if log is not self._gateway.accounts.log:
            self._gateway.accounts.log.close()
            self._gateway.accounts.log = log
        if snapshot.settings.log != previous.settings.log:
            logs.configure(snapshot.settings.log)
        self._gateway.serve(snapshot)
        for name, upstream in previous.upstreams.items():
            if snapshot.upstreams.get(name) is not upstream:
                upstream.retire()
                self._retired.append(upstream)

    # -- the drain ----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait for what is in flight, tell WebSockets to close, and cut what remains at the deadline."""
        clients = self._gateway.clients
        self._enter(WorkerState.DRAINING)
        began = time.monotonic()
        spread = Spread(len(clients.tunnels), self._drain_until(began) - began)
        clients.begin_drain()
        while not clients.idle and not self._board[Board.CUT_NOW] and time.monotonic() < self._drain_until(began):
            clients.close_websockets(spread.due(time.monotonic() - began))
            await asyncio.sleep(TICK)
        clients.cut_everything()
        last = time.monotonic() + _LAST_WORDS_SECONDS
        while not clients.idle and time.monotonic() < last:  # noqa: ASYNC110 -- everybody looks at the clock here
            await asyncio.sleep(TICK)

    def _drain_until(self, began: float) -> float:
        """Return when a drain that began then is over: with the whole gateway's, if that is to stop too."""
        together = self._board[Board.DRAIN_UNTIL] / 1e6
        return together or began + self._gateway.snapshot.settings.server.drain.timeout


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
