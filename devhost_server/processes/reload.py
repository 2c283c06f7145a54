"""Reload in place, as the master does it: read and validate, publish once, and wait until every worker has confirmed.

Nothing of a configuration that has an error is ever published. A worker that cannot serve what was published makes the
master publish the old configuration again: after a failed reload everybody serves what was served before.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from devhost_server.config import ConfigError, Loaded, Settings, Sources, load
from devhost_server.observe.access_log import AccessLogError, check_destination
from devhost_server.shared.blocks import Blocks, BlocksFullError
from devhost_server.shared.board import Board, RouteCell, Scoreboard, Slot, TargetCell, WorkerState
from devhost_server.shared.publication import Document as Published
from devhost_server.shared.publication import Publication
from devhost_server.snapshot import UNROUTED, Document, target_key
from devhost_server.snapshot import Blocks as BlockNumbers

_log = logging.getLogger("devhost_server.processes.master")

# A worker notices a new generation within a tick and builds thousands of routes in well under a second. One that has
# not confirmed by now hangs, and the heartbeat will find it.
_PATIENCE: Final = 10.0

# What a running process cannot change, with the reason that is given.
_FIXED: Final = {
    "server.bind": "the listeners were made when the gateway started",
    "server.user": "the processes became who they are when the gateway started",
    "admin": "the admin listener was made when the gateway started",
    "echo": "the echo upstream was made when the gateway started",
}


@dataclass(frozen=True, slots=True)
class Report:
    """How a reload ended, as it is published for the control process."""

    result: str
    at: str
    generation: int
    served_request: int
    errors: tuple[str, ...]
    duration_ms: float
    trigger: str


@dataclass(slots=True)
class _Pending:
    generation: int
    began: float
    served_request: int
    trigger: str
    settings: Settings
    fallback: Document


class Reloader:
    """Publishes configurations. The clock is monotonic, in seconds."""

    def __init__(
        self,
        sources: Sources,
        loaded: Loaded,
        instance: str,
        scoreboard: Scoreboard,
        publication: Publication,
        prepare_log: Callable[[str | None], None] = check_destination,
    ) -> None:
        # Makes sure that workers can open an access log; raises `AccessLogError`.
        self.prepare_log = prepare_log
        self.settings: Settings = loaded.settings
        self.last: Report | None = None
        self._sources = sources
        self._instance = instance
        self._scoreboard = scoreboard
        self._board = scoreboard.board
        self._publication = publication
        self._pending: _Pending | None = None
        self._routes = Blocks(scoreboard.capacity.routes, scoreboard.erase_route, self._route_is_quiet)
        self._upstreams = Blocks(scoreboard.capacity.upstreams, scoreboard.erase_upstream, lambda _: True)
        self._targets = Blocks(scoreboard.capacity.targets, scoreboard.erase_target, self._target_is_quiet)
        self._current = self._publish(loaded.settings, 1)

    @property
    def pending(self) -> bool:
        """Whether a reload waits for the workers."""
        return self._pending is not None

    @property
    def route_blocks(self) -> Iterable[int]:
        """The blocks of the routes there are."""
        return self._routes.owners.values()

    @property
    def target_blocks(self) -> Iterable[int]:
        """The blocks of the targets there are."""
        return self._targets.owners.values()

    def begin(self, now: float, trigger: str) -> None:
        """Read the configuration and publish it; if anything is wrong with it, `last` says so at once."""
        served = self._board[Board.RELOAD_REQUESTS]
        began = now
        try:
            settings = load(self._sources).settings
            errors = self._unchangeable(settings)
            if not errors:
                if settings.log.access != self.settings.log.access:  # workers go on with one that stays
                    self.prepare_log(settings.log.access)
                fallback = self._current
                self._current = self._publish(settings, fallback.generation + 1)
                self._pending = _Pending(self._current.generation, began, served, trigger, settings, fallback)
                return
        except ConfigError as error:
            errors = tuple(map(str, error.problems))
        except (AccessLogError, BlocksFullError) as error:
            errors = (str(error),)
        except Exception as error:
            # Whatever is wrong with a file or with our reading of it, it must not end a master that serves.
            _log.exception("the configuration could not be read")
            errors = (f"the configuration could not be read ({type(error).__name__}); see the log of the master",)
        self._finish("failed", errors, served, time.monotonic() - began, trigger)

    def extend(self, seconds: float) -> None:
        """Extend the workers' time to confirm by so much: nobody could run for that long."""
        if self._pending is not None:
            self._pending.began += seconds

    def poll(self, now: float) -> Report | None:
        """Look whether every worker has confirmed; give the report once the pending reload has ended."""
        pending = self._pending
        if pending is None:
            return None
        rows = [(slot, self._scoreboard.row(slot)) for slot in range(self._scoreboard.capacity.slots)]
        serving = [(slot, row) for slot, row in rows if _serves(row)]
        rejected = [_worker(*worker) for worker in serving if worker[1][Slot.REJECTED] == pending.generation]
        waiting = [_worker(*worker) for worker in serving if worker[1][Slot.GENERATION] != pending.generation]
        late = now - pending.began > _PATIENCE
        if waiting and not rejected and not late:
            return None
        self._pending = None
        seconds = now - pending.began
        if not waiting:
            self.settings = pending.settings
            return self._finish("ok", (), pending.served_request, seconds, pending.trigger)
        self._current = self._republish(pending.fallback, pending.generation + 1)
        errors = (_unconfirmed(pending.generation, rejected, waiting),)
        return self._finish("failed", errors, pending.served_request, seconds, pending.trigger)

    def _finish(self, result: str, errors: tuple[str, ...], served: int, seconds: float, trigger: str) -> Report:
        self._board[Board.RELOADS_OK if result == "ok" else Board.RELOADS_FAILED] += 1
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        report = Report(result, at, self._current.generation, served, errors, round(seconds * 1000, 1), trigger)
        self.last = report
        self._publication.write(Published.REPORT, orjson.dumps(report))
        self._board[Board.RELOAD_SERVED] = served
        return report

    def _unchangeable(self, settings: Settings) -> tuple[str, ...]:
        """Return a sentence for each key that differs and needs a restart."""
        old, new = self._fixed(self.settings), self._fixed(settings)
        return tuple(
            f"{key}: cannot change while running: {reason}; restart the gateway to apply it"
            for key, reason in _FIXED.items()
            if old[key] != new[key]
        )

    @staticmethod
    def _fixed(settings: Settings) -> dict[str, Any]:
        return {
            "server.bind": settings.server.bind,
            "server.user": settings.server.user,
            "admin": settings.admin,
            "echo": settings.echo,
        }

    def _publish(self, settings: Settings, generation: int) -> Document:
        target_names = (
            target_key(name, target.url) for name, upstream in settings.upstreams.items() for target in upstream.targets
        )
        routes = self._routes.plan((UNROUTED, *settings.routes))
        upstreams = self._upstreams.plan(settings.upstreams)
        targets = self._targets.plan(target_names)
        for blocks, plan in ((self._routes, routes), (self._upstreams, upstreams), (self._targets, targets)):
            blocks.commit(plan)
        numbers = BlockNumbers(routes.owners, upstreams.owners, targets.owners)
        document = Document(generation, settings.env, self._instance, settings.published(), numbers)
        self._announce(document)
        return document

    def _republish(self, fallback: Document, generation: int) -> Document:
        settings = Settings.model_validate(fallback.settings)
        return self._publish(settings, generation)

    def _announce(self, document: Document) -> None:
        self._publication.write(Published.SNAPSHOT, document.text())
        self._board[Board.GENERATION] = document.generation

    def _route_is_quiet(self, block: int) -> bool:
        at = self._scoreboard.route_at(block)
        return not any(self._scoreboard.total(at + cell) for cell in (RouteCell.IN_FLIGHT, RouteCell.WEBSOCKETS))

    def _target_is_quiet(self, block: int) -> bool:
        return not self._scoreboard.total(self._scoreboard.target_at(block) + TargetCell.ACTIVE)


def _worker(slot: int, row: memoryview) -> str:
    return f"worker {slot} (pid {row[Slot.PID]})"


def _unconfirmed(generation: int, rejected: list[str], waiting: list[str]) -> str:
    """Return why a generation was taken back: which worker could not serve it or, if none says so, which was silent."""
    who = " and ".join(rejected or waiting)
    what = (
        f"could not serve generation {generation} (the log says why)"
        if rejected
        else f"did not confirm generation {generation} within {_PATIENCE:g} s"
    )
    return f"{who} {what}; the configuration before it is being served"


def _serves(row: memoryview) -> bool:
    """Return whether the worker of a row may be serving. One that has nothing to serve yet begins with the latest."""
    state = row[Slot.STATE]
    has_begun = state == WorkerState.BOOTING and row[Slot.GENERATION] > 0
    return has_begun or state in (WorkerState.READY, WorkerState.DRAINING)
