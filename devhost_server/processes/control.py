"""The control process: everything that is not traffic. It serves the admin listener and lives as long as its master.

The master forks it and calls `run`. It dies alone: the master starts another, and what is counted stays on the
scoreboard. All of its code is imported before the first fork (see `preload`).
"""

import asyncio
import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from typing import Final

import setproctitle
import uvloop

from devhost_server.admin.app import Admin, Facts
from devhost_server.admin.guard import Keys
from devhost_server.admin.server import AdminServer
from devhost_server.forks import leave_group_signals_to_master
from devhost_server.shared.board import Scoreboard
from devhost_server.shared.publication import Publication

# How often the parent is looked at. With the closing of the listener, the process is gone within a second.
_PARENT_POLL: Final = 0.2
# The data plane goes first where cores are short: a scrape may take its time.
_NICENESS: Final = 5


@dataclass(frozen=True, slots=True)
class ControlContext:
    """What the master hands over. The listener is bound and listening, None if there is no admin listener.

    `keys` open it, `names` are what it may be called.

    `master_pid` is known before the fork, so that a master which dies right after it is missed.
    """

    scoreboard: Scoreboard
    publication: Publication
    listener: socket.socket | None
    keys: Keys
    names: frozenset[str]
    version: str
    master_pid: int


def run(context: ControlContext) -> None:
    """Serve until SIGQUIT comes or the master is gone, then return.

    The caller has forked; it owes the child nothing but to leave with `os._exit` or `sys.exit` afterwards.
    """
    _settle()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_live(context))


def _settle() -> None:
    """Replace what the fork inherited from the master: its signal handlers and its name."""
    leave_group_signals_to_master()
    setproctitle.setproctitle("devhost-server: control")
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.nice(_NICENESS)


async def _live(context: ControlContext) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, stopping.set)
    orphaned = asyncio.create_task(_stop_when_orphaned(context.master_pid, stopping))
    try:
        if context.listener is None:
            await stopping.wait()
        else:
            await _serve(context, context.listener, stopping)
    finally:
        orphaned.cancel()


async def _stop_when_orphaned(master_pid: int, stopping: asyncio.Event) -> None:
    while os.getppid() == master_pid:  # noqa: ASYNC110  # nothing tells of a parent's death, it has to be looked at
        await asyncio.sleep(_PARENT_POLL)
    stopping.set()


async def _serve(context: ControlContext, listener: socket.socket, stopping: asyncio.Event) -> None:
    facts = Facts(listener, context.keys, context.names, context.version, context.master_pid)
    admin = Admin(facts, context.scoreboard, context.publication, stopping)
    await AdminServer(admin.application()).serve_until(stopping, listener)
