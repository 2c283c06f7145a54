"""The master process: it forks, watches, reloads and stops the others, and never handles traffic.

gunicorn's Arbiter gives the forking and the signals. What decides is ours: slots, replacement with back-off, reload in
place, the drain and the exit code. The loop is `Master._run`; everything it calls returns at once, so that no signal is
kept waiting. What is made before the loop begins is in start.py.
"""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

import setproctitle

from devhost_server.forks import hold_signals, release_signals
from devhost_server.observe import logs
from devhost_server.observe.access_log import AccessLogError
from devhost_server.processes.arbiter import Arbiter, BaseApplication
from devhost_server.processes.companions import Companion
from devhost_server.processes.cores import worker_count
from devhost_server.processes.deaths import Death, Replacements, how_it_ended
from devhost_server.processes.drain import Cue, Phase, advance
from devhost_server.processes.identity import Identity
from devhost_server.processes.listeners import Listeners, address_of
from devhost_server.processes.receipt import Receipt
from devhost_server.processes.reload import Reloader, Report
from devhost_server.processes.service_manager import ServiceManager
from devhost_server.processes.slots import Slots
from devhost_server.processes.watch import Watch
from devhost_server.processes.worker import GatewayWorker
from devhost_server.shared.board import Board, Scoreboard, WorkerState
from devhost_server.sockets.listeners import give_up

_log = logging.getLogger("devhost_server.processes.master")

EXIT_FAILED: Final = 1  # bad configuration or failed start: a supervisor must not restart in a loop
EXIT_CUT: Final = 3  # stopped, but something was cut, or might have been: a second signal ended the drain

# Without a sign of life for this long (seconds), a worker is aborted. Its tick gives one every second.
HEARTBEAT: Final = 30.0
# How long the loop waits for a signal: while something is pending, and while all is quiet.
_BUSY_WAIT: Final = 0.02
_QUIET_WAIT: Final = 0.5
# A worker that has not left by then after its deadline is killed.
_KILL_AFTER: Final = 1.5


class Master(Arbiter):  # type: ignore[misc] # gunicorn is not typed
    """The arbiter of one gateway."""

    def __init__(
        self,
        application: BaseApplication,
        scoreboard: Scoreboard,
        reloader: Reloader,
        listeners: Listeners,
        companions: list[Companion],
        identity: Identity | None = None,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        super().__init__(application)
        now = time.monotonic()
        self._watch = Watch(scoreboard, heartbeat, now)
        self._service_manager = ServiceManager(os.environ, os.getpid(), self.log, now)
        self.LISTENERS = list(listeners.public)
        self.phase = Phase.SERVING
        self._board = scoreboard.board
        self._slots = Slots(scoreboard)
        self._reloader = reloader
        self._workers_option = reloader.settings.server.workers
        self._listeners = listeners
        self._companions = companions
        self._identity = identity
        self._asked = {Board.HUPS_ASKED: 0, Board.TERMS_ASKED: 0}
        self._reload_asked: str | None = None
        self._drain_over = 0.0  # monotonic seconds at which the present phase of the drain ends
        self._replacements = Replacements(self._board)
        self._announced = False
        self._receipt = Receipt()

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until the gateway is stopped; return the exit code."""
        self.pid = os.getpid()
        self.init_signals()
        setproctitle.setproctitle("devhost-server: master")
        try:
            return self._run()
        except Exception:
            _log.exception("the master failed; everything stops")
            self._halt(EXIT_CUT)

    def _run(self) -> int:
        while self.phase is not Phase.STOPPED:
            self._keep_processes()
            for number in self.wait_for_signals(timeout=self._wait()):
                self._handle(number)
            self._hear_control()
            self.reap_workers()
            self._look_for_life()
            self._look_for_readiness()
            self._advance_reload()
            self._advance_drain()
        return self._finish()

    def _wait(self) -> float:
        """Return how long to wait for a signal, in seconds."""
        longest = min(_QUIET_WAIT, self._service_manager.longest_wait)
        return min(_BUSY_WAIT, longest) if self._is_busy() else longest

    def _is_busy(self) -> bool:
        return (
            self.phase is not Phase.SERVING
            or self._reloader.pending
            or not self._announced
            or len(self._staying()) < self.num_workers
            or any(not companion.pid for companion in self._companions)
        )

    def _handle(self, number: int) -> None:
        handlers: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._begin_drain,
            signal.SIGINT: self._begin_drain,
            signal.SIGQUIT: self._stop_now,
            signal.SIGHUP: self._ask_reload,
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: self._refuse_upgrade,
            signal.SIGTTIN: self._one_more,
            signal.SIGTTOU: self._one_fewer,
        }
        handler = handlers.get(number)
        if handler is not None:
            handler()

    def _hear_control(self) -> None:
        """Handle what the control process asks for on the board, since it may not send signals."""
        for cell, number in ((Board.HUPS_ASKED, signal.SIGHUP), (Board.TERMS_ASKED, signal.SIGTERM)):
            if self._board[cell] != self._asked[cell]:
                self._asked[cell] = self._board[cell]
                self._handle(number)

    # -- processes ----------------------------------------------------------------------------------------------------

    def _keep_processes(self) -> None:
        """Fork missing processes, and retire workers that are too many."""
        for companion in self._companions:
            companion.keep()  # in a drain too: what is in flight may need the echo upstream
            if companion.name == "control":
                self._board[Board.CONTROL_PID] = companion.pid
        if self.phase not in (Phase.SERVING, Phase.ANNOUNCED):
            return
        self._board[Board.WORKERS_WANTED] = self.num_workers
        staying = self._staying()
        # Those that leave still have their slots: if many drain for long, replacements wait until one is free.
        has_slot = len(self.WORKERS) < self._slots.count
        if len(staying) < self.num_workers and has_slot and self._replacements.is_due(time.monotonic()):
            self._start_worker()
        for worker in sorted(staying, key=lambda w: w.age)[self.num_workers :]:
            worker.retiring = True
            self.kill_worker(worker.pid, signal.SIGTERM)

    def _staying(self) -> list[GatewayWorker]:
        """Return the workers that are to stay: neither too many nor told to leave."""
        return [
            worker
            for worker in self.WORKERS.values()
            if not worker.retiring and self._slots.state(worker) != WorkerState.DRAINING
        ]

    def _start_worker(self) -> None:
        hold_signals()
        try:
            self.spawn_worker()
        except OSError as error:
            _log.error("a worker cannot be started: %s", error.strerror)
            self._replacements.could_not_start(time.monotonic())
            self._slots.mark_empty(self.WORKERS.values())
        finally:
            if os.getpid() == self.pid:  # a worker that comes by here is on its way out, and wants no signal any more
                release_signals()

    @staticmethod
    def before_fork(master: "Master", worker: GatewayWorker) -> None:
        """Assign the lowest free slot to the new worker, and count its first heartbeat from now."""
        worker.slot = master._slots.free(master.WORKERS.values())[0]
        worker.retiring = False
        worker.born = time.monotonic()
        worker.notify()
        master._slots.take(worker.slot)

    @staticmethod
    def after_fork(master: "Master", worker: GatewayWorker) -> None:
        """Close the private listeners in the new worker, and become the user of `server.user`."""
        for listener in master._listeners.private:
            listener.close()
        if master._identity is not None:
            master._identity.become(dumpable=True)  # else the metrics could not count its descriptors

    @staticmethod
    def after_exit(master: "Master", worker: GatewayWorker) -> None:
        """Release the slot of a dead worker."""
        master._slots.release(worker.slot, master._reloader.route_blocks, master._reloader.target_blocks)

    def reap_workers(self) -> None:
        """Reap every child that has ended, and handle the death."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if any(companion.reaped(pid, status, how_it_ended(status)) for companion in self._companions):
                continue
            worker = self.WORKERS.pop(pid, None)
            if worker is not None:
                self._worker_ended(worker, status)

    def _worker_ended(self, worker: GatewayWorker, status: int) -> None:
        now = time.monotonic()
        death = Death.of(worker, status, self._slots.row(worker), now)
        self.cfg.child_exit(self, worker)
        if self.phase not in (Phase.SERVING, Phase.ANNOUNCED):
            self._receipt.count(death)
            return
        self._replacements.died(death, now)
        if self._replacements.hopeless:
            self._halt(EXIT_FAILED)

    def _look_for_life(self) -> None:
        """Abort workers that hang, and tell the watchdog of the service manager if some worker lives."""
        now = time.monotonic()
        gap = self._watch.look(now)
        if gap:
            _log.warning("the gateway was stopped for %.0f s, or its machine was too busy to run it", gap)
            self._reloader.extend(gap)
        self.murder_workers()
        if self._service_manager.wants_signs and self._watch.sees_life(self.WORKERS.values(), now):
            self._service_manager.alive(now)

    def murder_workers(self) -> None:
        """Abort a worker that gives no sign of life; kill it if even that has no effect."""
        now = time.monotonic()
        for pid, worker in list(self.WORKERS.items()):
            silent = self._watch.silence(worker, now)
            if silent is None:
                continue
            if not worker.aborted:
                _log.critical("worker %d (pid %d) gave no sign of life for %.0f s", worker.slot, pid, silent)
                worker.aborted = True
                self.kill_worker(pid, signal.SIGABRT)
            else:
                self.kill_worker(pid, signal.SIGKILL)

    def _look_for_readiness(self) -> None:
        if self._announced:
            return
        states = [self._slots.state(worker) for worker in self._staying()]
        if any(state == WorkerState.READY for state in states):
            self._replacements.was_ready()
        if len(states) >= self.num_workers and all(state == WorkerState.READY for state in states):
            self._announced = True
            addresses = ", ".join(map(address_of, self.LISTENERS))
            admin = self._reloader.settings.admin.bind
            logs.milestones.info("%s", _readiness(len(states), addresses, admin))
            self._service_manager.ready(self.pid, addresses)

    def _one_more(self) -> None:
        if self.phase is not Phase.SERVING:
            _log.warning("TTIN: the gateway is stopping, and starts no more workers")
            return
        if self.num_workers >= self._slots.count // 2:
            _log.warning("there is room for %d workers: restart the gateway with more", self.num_workers)
            return
        self.num_workers += 1
        _log.info("one worker more: %d", self.num_workers)

    def _one_fewer(self) -> None:
        if self.phase is not Phase.SERVING:
            _log.warning("TTOU: the gateway is stopping, and with it every worker")
            return
        if self.num_workers == 1:
            _log.info("TTOU: one worker is the least")
            return
        self.num_workers -= 1
        _log.info("one worker fewer: %d", self.num_workers)

    def _reopen_logs(self) -> None:
        with contextlib.suppress(AccessLogError):  # the workers say so
            self._reloader.prepare_log(self._reloader.settings.log.access)
        self._board[Board.REOPEN_LOGS] += 1
        _log.info("log files are opened anew")

    @staticmethod
    def _refuse_upgrade() -> None:
        _log.error("USR2: an upgrade beside the running master is not built in this version; restart instead")

    # -- reload -------------------------------------------------------------------------------------------------------

    def _ask_reload(self) -> None:
        if self.phase is not Phase.SERVING:
            _log.warning("HUP: a gateway that is stopping does not reload")
            return
        asked_by_control = self._board[Board.RELOAD_REQUESTS] > self._board[Board.RELOAD_SERVED]
        self._reload_asked = "api" if asked_by_control else "signal"

    def _advance_reload(self) -> None:
        """Advance the reload by one step. One that is asked for meanwhile begins after it."""
        now = time.monotonic()
        report = self._reloader.poll(now)
        if report is not None:
            self._reloaded(report)
        if self._reload_asked is None or self._reloader.pending or self.phase is not Phase.SERVING:
            return
        trigger, self._reload_asked = self._reload_asked, None
        if self._announced:
            self._service_manager.reloading()
        self._reloader.begin(now, trigger)
        if not self._reloader.pending and self._reloader.last is not None:
            self._reloaded(self._reloader.last)

    def _reloaded(self, report: Report) -> None:
        if self._announced:
            self._service_manager.reloaded()
        if report.result != "ok":
            for error in report.errors:
                _log.error("reload: %s", error)
            _log.error("reload failed: what was served before is being served")
            return
        settings = self._reloader.settings
        logs.configure(settings.log)
        if settings.server.workers != self._workers_option:  # else what TTIN and TTOU have made of it stays
            self._workers_option = settings.server.workers
            self._want_workers(worker_count(settings.server.workers))
        _log.info("reloaded: every worker serves generation %d (%.0f ms)", report.generation, report.duration_ms)

    def _want_workers(self, wanted: int) -> None:
        room = self._slots.count // 2
        if wanted > room:
            _log.warning("there is room for %d workers: restart the gateway to have %d", room, wanted)
        self.num_workers = min(wanted, room)

    # -- the drain ----------------------------------------------------------------------------------------------------

    def _begin_drain(self) -> None:
        if self.phase is not Phase.SERVING:
            self._hurry()
            return
        drain = self._reloader.settings.server.drain
        now = time.monotonic()
        self._board[Board.DRAIN_UNTIL] = int((now + drain.delay + drain.timeout) * 1e6)
        self._board[Board.DRAINING] = 1
        self._service_manager.stopping()
        _log.info("draining: up to %g s for what is in flight", drain.delay + drain.timeout)
        self._drain_over = now + drain.delay
        self._cue(Cue.SIGNAL)

    def _hurry(self) -> None:
        """Cut a drain short because of a second signal, unless it is complete already."""
        self.reap_workers()
        if self.phase is Phase.CUTTING or (self.phase is Phase.FINISHING and not self.WORKERS):
            return
        _log.warning("stopping now: a second signal came")
        self._receipt.hurry()
        self._cue(Cue.SIGNAL)

    def _stop_now(self) -> None:
        if self.phase is not Phase.SERVING:
            self._hurry()
            return
        self._board[Board.DRAINING] = 1
        self.phase = Phase.FINISHING
        self._cue(Cue.SIGNAL)

    def _advance_drain(self) -> None:
        now = time.monotonic()
        if self.phase is Phase.ANNOUNCED and now >= self._drain_over:
            self._cue(Cue.DELAY_OVER)
        if self.phase in (Phase.FINISHING, Phase.CUTTING) and not self.WORKERS:
            self._cue(Cue.NOTHING_LEFT)
        if self.phase is Phase.FINISHING and now >= self._drain_over:
            self._cue(Cue.DEADLINE)
        elif self.phase is Phase.CUTTING and now >= self._drain_over:
            self._kill_the_rest()

    def _cue(self, cue: Cue) -> None:
        """Advance the drain by a cue, and act on the new phase."""
        before, self.phase = self.phase, advance(self.phase, cue)
        if self.phase is before:
            return
        now = time.monotonic()
        if self.phase is Phase.FINISHING:
            self._close_listeners()
            self._drain_over = self._board[Board.DRAIN_UNTIL] / 1e6 + _KILL_AFTER
            self.kill_workers(signal.SIGTERM)
        elif self.phase is Phase.CUTTING:
            for companion in self._companions:
                companion.let_go()  # a QUIT may have been for the whole group
            self._close_listeners()
            self._drain_over = now + _KILL_AFTER
            if cue is Cue.SIGNAL:
                self._board[Board.CUT_NOW] = 1
                self.kill_workers(signal.SIGQUIT)

    def _kill_the_rest(self) -> None:
        for worker in self.WORKERS.values():
            _log.error("worker %d (pid %d) did not stop: killing it", worker.slot, worker.pid)
        self.kill_workers(signal.SIGKILL)
        self._drain_over = time.monotonic() + _KILL_AFTER

    def _close_listeners(self) -> None:
        for listener in self.LISTENERS:
            give_up(listener)
        self.LISTENERS = []

    def _halt(self, status: int) -> NoReturn:
        """Kill everything and exit at once."""
        self._close_listeners()
        self.kill_workers(signal.SIGKILL)
        self._stop_companions()
        sys.exit(status)

    def _finish(self) -> int:
        self._stop_companions()
        logs.milestones.info("%s", self._receipt)
        return 0 if self._receipt.clean else EXIT_CUT

    def _stop_companions(self) -> None:
        for number in (signal.SIGQUIT, signal.SIGKILL):
            for companion in self._companions:
                companion.stop(number)
            until = time.monotonic() + _KILL_AFTER
            while any(companion.pid for companion in self._companions) and time.monotonic() < until:
                self.reap_workers()
                time.sleep(_BUSY_WAIT)
        for listener in self._listeners.private:
            give_up(listener)


def _readiness(workers: int, addresses: str, admin: str | None) -> str:
    serving = "1 worker serves" if workers == 1 else f"{workers} workers serve"
    return f"ready: {serving} {addresses}, admin {'off' if admin is None else f'on {admin}'}"
