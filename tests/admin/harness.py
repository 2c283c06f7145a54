"""The control process under a master that the test plays: a fork of its own, so that signals reach a real parent."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from devhost_server.admin.guard import Keys
from devhost_server.processes import control
from devhost_server.shared.board import Board
from devhost_server.shared.publication import Document
from tests.shared.boards import Shared, fork
from tests.support import wait_until

TOKEN = "s3cret-token"


def reload_ok(shared: Shared, served: int) -> None:
    """What a master does when a reload succeeds: next generation, report, and then the number it had seen."""
    shared.board[Board.GENERATION] += 1
    finish_reload(shared, served, "ok", [])


def reload_failed(shared: Shared, served: int) -> None:
    """What a master does when the files are wrong."""
    finish_reload(shared, served, "failed", ["devhost.yaml:3:5: routes.api.to: 'x' is not a target"])


def finish_reload(shared: Shared, served: int, result: str, errors: list[str]) -> None:
    report = {
        "result": result,
        "at": "2026-11-21T07:00:00.000Z",
        "generation": shared.board[Board.GENERATION],
        "served_request": served,
        "errors": errors,
        "duration_ms": 12.3,
        "trigger": "api",
    }
    shared.publication.write(Document.REPORT, orjson.dumps(report))
    shared.board[Board.RELOAD_SERVED] = served


@dataclass
class Master:
    """A process that forks the control process and obeys its signals; what it was sent is counted on the board."""

    shared: Shared
    listener: socket.socket | None
    token: str | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    on_reload: Callable[[Shared, int], None] = reload_ok
    pid: int = field(default=0, init=False)
    drains_asked: int = field(default=Board.REOPEN_LOGS, init=False)  # a cell that nothing here uses

    def run(self) -> None:
        """Live as the master: first fork control, then do what signals ask."""
        context = control.ControlContext(
            self.shared.scoreboard,
            self.shared.publication,
            self.listener,
            Keys.of(self.token, self.tokens),
            self.names,
            "1.2.3",
            os.getpid(),
        )
        blocked = {signal.SIGHUP, signal.SIGTERM}
        child = fork(lambda: control.run(context))
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        self.shared.board[Board.CONTROL_PID] = child
        while True:
            match signal.sigwait(blocked):
                case signal.SIGHUP:
                    self.on_reload(self.shared, self.shared.board[Board.RELOAD_REQUESTS])
                case signal.SIGTERM:
                    self.shared.board[self.drains_asked] += 1
                    self.shared.board[Board.DRAINING] = 1

    @property
    def control_pid(self) -> int:
        return self.shared.board[Board.CONTROL_PID]

    @property
    def signals_to_drain(self) -> int:
        return self.shared.board[self.drains_asked]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


@contextlib.contextmanager
def running(master: Master) -> Iterator[Master]:
    """Run a master and its control process; both are gone afterwards."""
    master.pid = fork(master.run)
    try:
        wait_until(lambda: master.control_pid, what="the control process being forked")
        yield master
    finally:
        for pid in (master.pid, master.control_pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(master.pid, 0)


@contextlib.contextmanager
def served(shared: Shared, listener: socket.socket | None = None, **options: Any) -> Iterator["Served"]:
    """Serve `shared` on a listener (TCP on 127.0.0.1 if none is given) and give a client for it."""
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(listener or socket.create_server(("127.0.0.1", 0)))
        master = stack.enter_context(running(Master(shared, made, **options)))
        client = stack.enter_context(client_of(made))
        wait_until(lambda: answers(client), 15, "the admin listener answering")
        yield Served(master, client, made)


@dataclass
class Served:
    master: Master
    client: httpx.Client
    listener: socket.socket


def client_of(listener: socket.socket) -> httpx.Client:
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        transport = httpx.HTTPTransport(uds=name)
        return httpx.Client(base_url="http://localhost", transport=transport, trust_env=False, timeout=60)
    host = "127.0.0.1" if listener.family == socket.AF_INET else "[::1]"
    return httpx.Client(base_url=f"http://{host}:{name[1]}", trust_env=False, timeout=60)


def answers(client: httpx.Client) -> bool:
    # The master has opened the listener already: a request waits in its queue until control accepts.
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def seconds(action: Callable[[], object]) -> float:
    """How long something takes."""
    start = time.monotonic()
    action()
    return time.monotonic() - start
