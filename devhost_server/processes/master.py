"""The master process: it forks, watches, reloads and stops the others, and never handles traffic.

gunicorn's Arbiter gives the forking, the reaping and the heartbeat files. What decides is ours: slots, replacement with
back-off, reload in place, the drain and the exit code. The loop in `Master.run` is the whole story; everything it calls
returns at once, so that a signal is never kept waiting.
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
from devhost_server.processes.arbiter import Arbiter, BaseApplication, systemd
from devhost_server.processes.companions import Backoff, Companion
from devhost_server.processes.cores import worker_count
from devhost_server.processes.drain import Cue, Phase, advance, receipt
from devhost_server.processes.identity import Identity
from devhost_server.processes.listeners import Listeners, address_of
from devhost_server.processes.liveness import Patience, Watchdog
from devhost_server.processes.reload import Reloader, Report
from devhost_server.processes.worker import GatewayWorker
from devhost_server.shared.board import RESTART_REASONS, Board, Scoreboard, Slot, WorkerState
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
# A worker that dies younger than that (seconds) is not replaced at once but after a while, each time a longer one.
_YOUNG_WORKER: Final = 1.0
# Workers that fail to boot before one has ever been ready: after so many the configuration or the machine is at fault.
_BOOT_FAILURES_MAX: Final = 3


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
        self._patience = Patience(heartbeat, now)
        self._watchdog = Watchdog.of(os.environ, os.getpid(), now)
        self.LISTENERS = list(listeners.public)
        self.phase = Phase.SERVING
        self._board = scoreboard.board
        self._scoreboard = scoreboard
        self._reloader = reloader
        self._workers_option = reloader.settings.server.workers
        self._listeners = listeners
        self._companions = companions
        self._identity = identity
        self._asked = {Board.HUPS_ASKED: 0, Board.TERMS_ASKED: 0}
        self._reload_asked: str | None = None
        self._drain_over = 0.0  # monotonic seconds at which the present phase of the drain ends
        self._backoff = Backoff(_YOUNG_WORKER)
        self._boot_failures = 0
        self._ready_once = False
        self._announced = False
        self._cut = 0
        self._hurried = False
        self._receipts = [0, 0]

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until stopped; give the exit code."""
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
        longest = _QUIET_WAIT if self._watchdog is None else min(_QUIET_WAIT, self._watchdog.interval / 2)
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
        """Take for signals what the control process asks for on the board, where it may not send any."""
        for cell, number in ((Board.HUPS_ASKED, signal.SIGHUP), (Board.TERMS_ASKED, signal.SIGTERM)):
            if self._board[cell] != self._asked[cell]:
                self._asked[cell] = self._board[cell]
                self._handle(number)

    # -- processes ----------------------------------------------------------------------------------------------------

    def _keep_processes(self) -> None:
        """Fork what is missing, retire what is too much."""
        for companion in self._companions:
            companion.keep()  # in a drain too: what is in flight may need the echo upstream
            if companion.name == "control":
                self._board[Board.CONTROL_PID] = companion.pid
        if self.phase not in (Phase.SERVING, Phase.ANNOUNCED):
            return
        self._board[Board.WORKERS_WANTED] = self.num_workers
        staying = self._staying()
        # Those that leave still have their slots: if many drain for long, replacements wait until one is free.
        has_slot = len(self.WORKERS) < self._scoreboard.capacity.slots
        if len(staying) < self.num_workers and has_slot and time.monotonic() >= self._backoff.due:
            self._start_worker()
        for worker in sorted(staying, key=lambda w: w.age)[self.num_workers :]:
            worker.retiring = True
            self.kill_worker(worker.pid, signal.SIGTERM)

    def _staying(self) -> list[GatewayWorker]:
        """Return the workers that are to stay: neither too many nor told to leave."""
        return [
            worker
            for worker in self.WORKERS.values()
            if not worker.retiring and self._scoreboard.row(worker.slot)[Slot.STATE] != WorkerState.DRAINING
        ]

    def _start_worker(self) -> None:
        hold_signals()
        try:
            self.spawn_worker()
        except OSError as error:
            _log.error("a worker cannot be started: %s", error.strerror)
            self._backoff.died(time.monotonic(), 0.0)
            for slot in self._free_slots():
                self._scoreboard.row(slot)[Slot.STATE] = WorkerState.EMPTY
        finally:
            if os.getpid() == self.pid:  # a worker that comes by here is on its way out, and wants no signal any more
                release_signals()

    def _free_slots(self) -> list[int]:
        taken = {worker.slot for worker in self.WORKERS.values()}
        return [slot for slot in range(self._scoreboard.capacity.slots) if slot not in taken]

    @staticmethod
    def before_fork(master: "Master", worker: GatewayWorker) -> None:
        """Assign the lowest free slot to the new worker, and count its first heartbeat from now."""
        worker.slot = master._free_slots()[0]
        worker.retiring = False
        worker.born = time.monotonic()
        worker.notify()
        row = master._scoreboard.row(worker.slot)
        row[Slot.STATE] = WorkerState.BOOTING
        row[Slot.GENERATION] = row[Slot.REJECTED] = 0
        row[Slot.DRAIN_FINISHED] = row[Slot.DRAIN_CLOSED] = row[Slot.DRAIN_CUT] = 0
        row[Slot.RESTARTS] += 1

    @staticmethod
    def after_fork(master: "Master", worker: GatewayWorker) -> None:
        """Close what is not the business of a worker, and be nobody that it need not be."""
        for listener in master._listeners.private:
            listener.close()
        if master._identity is not None:
            master._identity.become(dumpable=True)  # else the metrics could not count its descriptors

    @staticmethod
    def after_exit(master: "Master", worker: GatewayWorker) -> None:
        """Take back what only a living worker can have."""
        row = master._scoreboard.row(worker.slot)
        row[Slot.STATE] = WorkerState.EMPTY
        row[Slot.PID] = 0
        master._scoreboard.clear_gauges(worker.slot, master._reloader.route_blocks, master._reloader.target_blocks)

    def reap_workers(self) -> None:
        """Take note of every child that has ended, and of why."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            how = _how_it_ended(status)
            if any(companion.reaped(pid, status, how) for companion in self._companions):
                continue
            worker = self.WORKERS.pop(pid, None)
            if worker is not None:
                self._worker_ended(worker, how, status)

    def _worker_ended(self, worker: GatewayWorker, how: str, status: int) -> None:
        row = self._scoreboard.row(worker.slot)
        state, served = row[Slot.STATE], row[Slot.GENERATION]
        finished, closed, cut, in_flight = (
            row[cell] for cell in (Slot.DRAIN_FINISHED, Slot.DRAIN_CLOSED, Slot.DRAIN_CUT, Slot.IN_FLIGHT)
        )
        self.cfg.child_exit(self, worker)
        if self.phase not in (Phase.SERVING, Phase.ANNOUNCED):
            self._receipts[0] += finished
            self._receipts[1] += closed
            self._cut += cut
            if status:  # It was to go, but not like this: what it had in flight is gone.
                _log.error("worker %d (pid %d) %s during the drain", worker.slot, worker.pid, how)
                self._cut += max(in_flight, 1)
            return
        left = state == WorkerState.DRAINING and not status
        reason = _restart_reason(worker, status, left=left, booting=state == WorkerState.BOOTING or not served)
        self._board[Board.RESTARTS + RESTART_REASONS.index(reason)] += 1
        now = time.monotonic()
        if reason == "retired":
            _log.info("worker %d (pid %d) has left: %s", worker.slot, worker.pid, receipt(finished, closed, cut))
        elif reason == "boot":
            self._boot_failed(worker, how)
            self._backoff.died(now, 0.0)
        else:
            _log.error("worker %d (pid %d) %s; replacing it", worker.slot, worker.pid, how)
            self._backoff.died(now, now - worker.born)

    def _boot_failed(self, worker: GatewayWorker, how: str) -> None:
        _log.error("worker %d (pid %d) %s before it was ready", worker.slot, worker.pid, how)
        self._boot_failures += 1
        if self._boot_failures >= _BOOT_FAILURES_MAX and not self._ready_once:
            _log.error("no worker could start after %d attempts: giving up", self._boot_failures)
            self._halt(EXIT_FAILED)

    def _look_for_life(self) -> None:
        """Abort workers that hang, and give the service manager a sign of life if there is one to give."""
        now = time.monotonic()
        gap = self._patience.look(now)
        if gap:
            _log.warning("the gateway was stopped for %.0f s, or its machine was too busy to run it", gap)
            self._reloader.extend(gap)
        self.murder_workers()
        if self._watchdog is not None and self._lives(now) and self._watchdog.is_due(now):
            systemd.sd_notify("WATCHDOG=1", self.log)

    def _lives(self, now: float) -> bool:
        """Return whether some worker that has started has given a sign of life in time."""
        return any(
            self._scoreboard.row(worker.slot)[Slot.STATE] in (WorkerState.READY, WorkerState.DRAINING)
            and not self._patience.is_over(self._last_sign(worker), now)
            for worker in self.WORKERS.values()
        )

    def _last_sign(self, worker: GatewayWorker) -> float:
        return self._scoreboard.row(worker.slot)[Slot.HEARTBEAT] / 1e6

    def murder_workers(self) -> None:
        """Abort a worker that gives no sign of life; kill it if even that has no effect."""
        now = time.monotonic()
        for pid, worker in list(self.WORKERS.items()):
            last = self._last_sign(worker)
            if not self._patience.is_over(last, now):
                continue
            if not worker.aborted:
                silent = self._patience.silence(last, now)
                _log.critical("worker %d (pid %d) gave no sign of life for %.0f s", worker.slot, pid, silent)
                worker.aborted = True
                self.kill_worker(pid, signal.SIGABRT)
            else:
                self.kill_worker(pid, signal.SIGKILL)

    def _look_for_readiness(self) -> None:
        if self._announced:
            return
        states = [self._scoreboard.row(worker.slot)[Slot.STATE] for worker in self._staying()]
        if any(state == WorkerState.READY for state in states):
            self._ready_once = True
        if len(states) >= self.num_workers and all(state == WorkerState.READY for state in states):
            self._announced = True
            addresses = ", ".join(map(address_of, self.LISTENERS))
            admin = self._reloader.settings.admin.bind
            logs.milestones.info("%s", _readiness(len(states), addresses, admin))
            systemd.sd_notify(f"READY=1\nMAINPID={self.pid}\nSTATUS=serving {addresses}", self.log)

    def _one_more(self) -> None:
        if self.phase is not Phase.SERVING:
            _log.warning("TTIN: the gateway is stopping, and starts no more workers")
            return
        if self.num_workers >= self._scoreboard.capacity.slots // 2:
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
        """Carry a reload on by one step; one that is asked for meanwhile follows it."""
        now = time.monotonic()
        report = self._reloader.poll(now)
        if report is not None:
            self._reloaded(report)
        if self._reload_asked is None or self._reloader.pending or self.phase is not Phase.SERVING:
            return
        trigger, self._reload_asked = self._reload_asked, None
        if self._announced:
            systemd.sd_notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", self.log)
        self._reloader.begin(now, trigger)
        if not self._reloader.pending and self._reloader.last is not None:
            self._reloaded(self._reloader.last)

    def _reloaded(self, report: Report) -> None:
        if self._announced:
            systemd.sd_notify("READY=1", self.log)
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
        room = self._scoreboard.capacity.slots // 2
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
        systemd.sd_notify("STOPPING=1\nSTATUS=draining", self.log)
        _log.info("draining: up to %g s for what is in flight", drain.delay + drain.timeout)
        self._drain_over = now + drain.delay
        self._cue(Cue.SIGNAL)

    def _hurry(self) -> None:
        """End a drain that is under way, because a second signal came. One that is complete already is complete."""
        self.reap_workers()
        if self.phase is Phase.CUTTING or (self.phase is Phase.FINISHING and not self.WORKERS):
            return
        _log.warning("stopping now: a second signal came")
        self._hurried = True
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
        """Take the step of the drain that a cue brings about."""
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
        """End at once, without waiting for anything."""
        self._close_listeners()
        self.kill_workers(signal.SIGKILL)
        self._stop_companions()
        sys.exit(status)

    def _finish(self) -> int:
        self._stop_companions()
        logs.milestones.info("%s", receipt(self._receipts[0], self._receipts[1], self._cut))
        return EXIT_CUT if self._cut or self._hurried else 0

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


def _how_it_ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hint = " (out of memory?)" if number == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(number).name}{hint}"
    return f"exited with code {os.WEXITSTATUS(status)}"


def _restart_reason(worker: GatewayWorker, status: int, *, left: bool, booting: bool) -> str:
    if left or worker.retiring:
        return "retired"
    if worker.aborted:
        return "heartbeat"
    if booting:
        return "boot"
    return "killed" if os.WIFSIGNALED(status) else "exited"


def _readiness(workers: int, addresses: str, admin: str | None) -> str:
    serving = "1 worker serves" if workers == 1 else f"{workers} workers serve"
    return f"ready: {serving} {addresses}, admin {'off' if admin is None else f'on {admin}'}"
