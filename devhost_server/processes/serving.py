"""One gateway and all that keeps it serving beside the traffic: the tick, reloads, the drain, the end.

It needs an event loop, a row of a scoreboard and somebody who publishes documents, and nothing of the process it runs
in. So a worker, a test and an application that embeds the gateway compose the same few lines:

    serving = Serving(scoreboard, 0, read, clock=loop.time, soon=loop.call_soon)
    await serving.start()
    ticking = loop.create_task(serving.run())
    ...  # serve connections with `serving.gateway`
    await serving.drain()
    ticking.cancel()
    await serving.close()
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from devhost_server.gateway import Gateway
from devhost_server.observe.access_log import AccessLog, AccessLogError
from devhost_server.observe.options import LogOptions
from devhost_server.processes.drain import Spread
from devhost_server.shared.board import Board, Scoreboard, Slot
from devhost_server.snapshot import Builder, Outline, Snapshot
from devhost_server.timing.deadlines import TICK, LivedTime, Soon, Wheel
from devhost_server.upstream.upstream import Upstream

_log = logging.getLogger("devhost_server.processes.serving")

SECOND_TICKS: Final = round(1 / TICK)
# Long enough for the event loop to look at its sockets once, which it does behind its timers.
_READ_FIRST_SECONDS: Final = 0.001
# What is still sent after the last exchange has been cut: error answers and Close frames.
_LAST_WORDS_SECONDS: Final = 0.5
# How long a slow reader of the access log is waited for at the end, and how often it is offered the next lines: a pipe
# takes 64 KiB at a time.
_LAST_LINES_SECONDS: Final = 3.0
_LAST_LINES_PAUSE: Final = 0.005


def _nothing() -> None:
    """Do nothing."""


def _ignore(_: LogOptions) -> None:
    """Leave the logging of the process as it is."""


class Serving:
    """One gateway, its wheel and access log, the snapshot it serves, and the upstreams that have gone from it.

    `read` returns the published document as text, or None while it is being replaced; it is asked at the start, and
    whenever `Board.GENERATION` is ahead of what is served. `clock` is the event loop's, in seconds, and `soon` its
    `call_soon`. `configure_logs` is called when a reload changes the log options: whose process it is decides.

    `ticks` counts the ticks since the start: there are `SECOND_TICKS` a second. Nothing but `start` may be called
    before `start` has returned.
    """

    gateway: Gateway

    def __init__(
        self,
        scoreboard: Scoreboard,
        slot: int,
        read: Callable[[], bytes | None],
        *,
        clock: Callable[[], float],
        soon: Soon,
        configure_logs: Callable[[LogOptions], None] = _ignore,
    ) -> None:
        self.ticks = 0
        self._scoreboard = scoreboard
        self._board = scoreboard.board
        self._row = scoreboard.row(slot)
        self._slot = slot
        self._read = read
        self._soon = soon
        self._configure_logs = configure_logs
        self._time = LivedTime(clock)
        self._wheel = Wheel(self._time)
        self._builder = Builder(scoreboard, slot, self._wheel)
        self._reloading: asyncio.Task[None] | None = None
        self._reopened = self._board[Board.REOPEN_LOGS]
        self._retired: set[Upstream] = set()  # gone from the configuration, with exchanges still in flight
        self._round: tuple[Upstream, ...] = ()  # those that are looked after in this second

    def __repr__(self) -> str:
        return f"<Serving slot={self._slot} generation={self._row[Slot.GENERATION]}>"

    async def start(self) -> None:
        """Serve what is published. Raises what makes it impossible: there is no older document to go on with."""
        snapshot = await self._builder.build(await self._outline(), None)
        options = snapshot.settings.log
        log = AccessLog(options.access, self._row, self._slot, json=options.format == "json")
        self.gateway = Gateway(self._scoreboard, self._slot, snapshot, log, self._wheel, self._soon)
        self._round = self._upstreams
        # Something may have been published while this was being built: whoever is new begins with the latest.
        while self._is_behind:
            await self.reload()

    # -- the tick -----------------------------------------------------------------------------------------------------

    async def run(self, also: Callable[[], None] = _nothing) -> None:
        """Tick until cancelled, and call `also` behind each tick. An error in either is logged."""
        while True:
            await asyncio.sleep(TICK)
            if self._time.turn():
                await asyncio.sleep(_READ_FIRST_SECONDS)
            try:
                self.tick()
                also()
            except Exception:
                _log.exception("worker %d: the tick failed", self._slot)

    def tick(self) -> None:
        """Do what is not traffic, every `TICK` seconds: deadlines, log, gauges, the look for a new generation."""
        self.ticks += 1
        self._wheel.turn()
        self.gateway.accounts.log.flush()
        self.gateway.hangups.look()
        self.gateway.write_gauges()
        if self._is_behind:
            self._begin_reload()
        if self._board[Board.REOPEN_LOGS] != self._reopened:
            self._reopened = self._board[Board.REOPEN_LOGS]
            self.gateway.accounts.log.reopen()
        turn = self.ticks % SECOND_TICKS
        if not turn:
            self.gateway.clients.write_connections()
            self._round = self._upstreams
        self._look_after(self._round[turn::SECOND_TICKS])

    def _look_after(self, upstreams: tuple[Upstream, ...]) -> None:
        """Do what each upstream wants once a second. Of thousands, each tick takes its share."""
        for upstream in upstreams:
            upstream.each_second()
            if upstream in self._retired and upstream.quiet:
                self._retired.discard(upstream)

    @property
    def _upstreams(self) -> tuple[Upstream, ...]:
        return (*self.gateway.snapshot.upstreams.values(), *self._retired)

    # -- from one document to the next --------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Serve what is published now. Where that cannot be served, the log and `Slot.REJECTED` say so."""
        await asyncio.wait([self._begin_reload()])

    @property
    def _is_behind(self) -> bool:
        """Whether there is a generation that is neither served nor rejected."""
        return self._board[Board.GENERATION] > max(self._row[Slot.GENERATION], self._row[Slot.REJECTED])

    async def _outline(self) -> Outline:
        while True:
            text = self._read()
            if text is not None:
                await asyncio.sleep(0)  # reading megabytes takes a while, and so does what follows
                return Outline.read(text)
            await asyncio.sleep(TICK)

    def _begin_reload(self) -> asyncio.Task[None]:
        if self._reloading is None:
            self._reloading = asyncio.get_running_loop().create_task(self._reload())
        return self._reloading

    async def _reload(self) -> None:
        """Build what has been published and serve it; the old snapshot serves on until the new one is complete."""
        generation = self._board[Board.GENERATION]
        try:
            outline = await self._outline()
            generation = outline.document.generation
            previous = self.gateway.snapshot
            snapshot = await self._builder.build(outline, previous)
            self._swap(previous, snapshot, self._log_for(snapshot, previous))
        except AccessLogError as error:
            _log.error("worker %d: generation %d cannot be served: %s", self._slot, generation, error)
            self._row[Slot.REJECTED] = generation
        except Exception:
            _log.exception("worker %d: generation %d cannot be served", self._slot, generation)
            self._row[Slot.REJECTED] = generation
        finally:
            self._reloading = None

    def _log_for(self, snapshot: Snapshot, previous: Snapshot) -> AccessLog:
        options, before = snapshot.settings.log, previous.settings.log
        if (options.access, options.format) == (before.access, before.format):
            return self.gateway.accounts.log
        return AccessLog.opened(options.access, self._row, self._slot, json=options.format == "json")

    def _swap(self, previous: Snapshot, snapshot: Snapshot, log: AccessLog) -> None:
        accounts = self.gateway.accounts
        accounts.settle()
        if log is not accounts.log:
            accounts.log.close()
            accounts.log = log
        if snapshot.settings.log != previous.settings.log:
            self._configure_logs(snapshot.settings.log)
        self.gateway.serve(snapshot)
        for name, upstream in previous.upstreams.items():
            if snapshot.upstreams.get(name) is not upstream:
                self._retire(upstream)
        self._round = self._upstreams

    def _retire(self, upstream: Upstream) -> None:
        """Close its idle connections now, and those in use as they become idle; it is looked after until then."""
        upstream.retire()
        self._retired.add(upstream)

    # -- the end ------------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait for what is in flight, tell WebSockets to close, and cut what remains at the deadline.

        To be called when nothing is accepted any more; the ticks go on meanwhile.
        """
        clients = self.gateway.clients
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
        return together or began + self.gateway.snapshot.settings.server.drain.timeout

    async def close(self) -> None:
        """Count what has ended, close idle connections to targets, and write the log to its end.

        A reader of the log that is slow is given a moment. To be called when the ticks have ended.
        """
        if self._reloading is not None:
            self._reloading.cancel()
        self.gateway.accounts.settle()
        self.gateway.write_gauges()
        for upstream in self._upstreams:
            upstream.retire()
        await self._finish_log()

    async def _finish_log(self) -> None:
        log, last = self.gateway.accounts.log, time.monotonic() + _LAST_LINES_SECONDS
        log.flush()
        while log.is_awaited and time.monotonic() < last:
            await asyncio.sleep(_LAST_LINES_PAUSE)
            log.flush()
        log.close()

    def abort(self) -> None:
        """End without waiting for anything: what is in flight is cut, and the log takes what it can at once."""
        self.gateway.clients.begin_drain()
        self.gateway.clients.cut_everything()
        self.gateway.accounts.settle()
        self.gateway.accounts.log.close()
