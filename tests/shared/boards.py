"""A scoreboard and a publication as a master would hold them, filled by the test instead of by workers."""

import contextlib
import os
import struct
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from devhost_server.config.models import Settings
from devhost_server.observe.view import Reader, View
from devhost_server.shared.board import (
    ROUTE_CODES,
    TARGET_CODES,
    Board,
    Capacity,
    RouteCell,
    Scoreboard,
    Slot,
    TargetCell,
    UpstreamCell,
    WorkerState,
    code_cell,
    code_key,
    observe,
)
from devhost_server.shared.publication import Document, Publication

UPSTREAMS = {
    "api": {"targets": ["http://127.0.0.1:8000", {"url": "http://127.0.0.1:8001", "weight": 2}]},
    "web": {"targets": ["unix:/run/web.sock"]},
}
ROUTES = {
    "api": {"name": "api", "hosts": ["api.localhost"], "path": "/v1", "upstream": "api", "owner": "team-api"},
    "web": {"name": "web", "hosts": ["web.localhost"], "methods": ["GET"], "upstream": "web"},
    "ping": {"name": "ping", "hosts": ["*"], "path": "/ping", "respond": {"status": 200, "body": "pong"}},
}


class OpenPublication(Publication):
    """One that a fork of the test may write as well, which plays the master there."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._board = scoreboard.board
        self._file = os.memfd_create("open", os.MFD_CLOEXEC)

    def write(self, document: Document, text: bytes) -> None:
        cell, place = document.value
        at = (place << 28) + (1 << 28 if self._board[cell] == place << 28 else 0)
        assert os.pwrite(self._file, text, at) == len(text)
        self._board[cell : cell + 3] = memoryview(struct.pack("3q", at, len(text), zlib.crc32(text))).cast("q")


@dataclass
class Shared:
    """What a master makes before it forks."""

    capacity: Capacity = field(default_factory=lambda: Capacity(slots=4, routes=1024, upstreams=1024, targets=2048))

    def __post_init__(self) -> None:
        self.scoreboard = Scoreboard(self.capacity)
        self.publication = OpenPublication(self.scoreboard)
        self.reader = Reader(self.scoreboard, self.publication)

    @property
    def board(self) -> memoryview:
        return self.scoreboard.board

    def view(self) -> View:
        return self.reader.view()

    def publish(
        self,
        generation: int = 1,
        *,
        routes: dict[str, Any] = ROUTES,
        upstreams: dict[str, Any] = UPSTREAMS,
        **sections: Any,
    ) -> None:
        """Publish a snapshot document whose blocks are numbered in the order of the names; block 0 is the unrouted."""
        settings = Settings.model_validate(
            {"env": "dev", "server": {}, "log": {}, "admin": {}, "domain": "localhost"}
            | sections
            | {"routes": routes, "upstreams": upstreams}
        ).model_dump(mode="json")
        targets = [f"{name} {target['url']}" for name, up in settings["upstreams"].items() for target in up["targets"]]
        blocks = {
            "routes": {name: at for at, name in enumerate(["-", *routes])},
            "upstreams": {name: at for at, name in enumerate(upstreams)},
            "targets": {key: at for at, key in enumerate(targets)},
        }
        document = {"generation": generation, "env": "dev", "instance": "1a2b3c4d"}
        self.publication.write(Document.SNAPSHOT, orjson.dumps(document | {"settings": settings, "blocks": blocks}))
        self.board[Board.GENERATION] = generation

    def worker(self, slot: int, pid: int = 0, state: WorkerState = WorkerState.READY, generation: int = 1) -> "Worker":
        """Let a worker hold a slot."""
        row = self.scoreboard.row(slot)
        row[Slot.PID], row[Slot.STATE], row[Slot.GENERATION] = pid or os.getpid(), state, generation
        row[Slot.RESTARTS] += 1
        return Worker(self, row)

    def bury(self, slot: int) -> None:
        """Clean up after a dead worker, as the master does."""
        served = self.view().served
        self.scoreboard.row(slot)[Slot.STATE] = WorkerState.EMPTY
        self.scoreboard.clear_gauges(slot, served.routes.values(), served.targets.values())


@dataclass
class Worker:
    """Writes a row as a worker's data plane does."""

    shared: Shared
    row: memoryview

    def route(self, name: str) -> int:
        return self.shared.scoreboard.route_at(self.shared.view().served.routes[name])

    def upstream(self, name: str) -> int:
        return self.shared.scoreboard.upstream_at(self.shared.view().served.upstreams[name])

    def target(self, name: str, url: str) -> int:
        return self.shared.scoreboard.target_at(self.shared.view().served.targets[name, url])

    def request(self, route: str, method: bytes = b"GET", status: int = 200, microseconds: int = 1500) -> None:
        """Count a finished request."""
        at = self.route(route)
        self.row[code_cell(self.row, at + RouteCell.CODES, ROUTE_CODES, code_key(method, status))] += 1
        observe(self.row, at + RouteCell.DURATION, microseconds)
        self.row[at + RouteCell.REQUEST_BYTES] += 10
        self.row[at + RouteCell.RESPONSE_BYTES] += 100

    def exchange(
        self, upstream: str, url: str, method: bytes = b"GET", status: int = 200, microseconds: int = 900
    ) -> None:
        """Count an exchange with a target."""
        at = self.target(upstream, url)
        self.row[code_cell(self.row, at + TargetCell.CODES, TARGET_CODES, code_key(method, status))] += 1
        observe(self.row, self.upstream(upstream) + UpstreamCell.HEAD_DURATION, microseconds)


@contextlib.contextmanager
def forked(work: Callable[[], object]) -> Iterator[int]:
    """Run `work` in a fork of this process; gives its pid. It is killed and reaped at the end if it still lives."""
    pid = fork(work)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a fork of this process that never returns to the test; exit code 0 means that it did not raise."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; other tests' upstreams have some, which the child never touches.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    """Wait for a fork and give how it ended, a signal as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
