"""The echo process: it serves until it is told to stop, or its master is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING

import setproctitle
import uvloop

from devhost_server.echo.connection import EchoConnection
from devhost_server.echo.state import State, address
from devhost_server.listeners import BACKLOG

if TYPE_CHECKING:
    from types import FrameType

DRAIN_SECONDS = 1.0
PARENT_POLL_SECONDS = 0.5


def serve(listener: socket.socket, stop_on_parent_exit: bool = True, *, parent: int | None = None) -> None:
    """Serve on a bound socket until SIGTERM, then return; takes ownership of `listener` in this process.

    With `stop_on_parent_exit` the process belongs to a master: it ends when its parent does, leaves SIGINT and the
    signals that a terminal or an operator sends to the whole group to the master, and stops at once on SIGQUIT.
    `parent` is the master's pid, for a caller that forked: read after the fork, the parent may already be another.
    Without it the process stands alone and SIGINT stops it like SIGTERM.
    """
    expected = os.getppid() if parent is None else parent
    setproctitle.setproctitle(f"devhost-server: echo {bound(listener)}")
    _forget_inherited_handlers(belongs_to_master=stop_on_parent_exit)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(listener, expected if stop_on_parent_exit else None))


async def _serve(listener: socket.socket, parent: int | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    watch: asyncio.Task[None] | None = None
    if parent is None:
        loop.add_signal_handler(signal.SIGINT, stop.set)
    else:
        watch = loop.create_task(_stop_without(parent, stop))
    await run(State(loop), listener, stop)
    if watch is not None:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


async def _stop_without(parent: int, stop: asyncio.Event) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110  nothing can wait for the end of a process that is not a child
        await asyncio.sleep(PARENT_POLL_SECONDS)
    stop.set()


def _forget_inherited_handlers(*, belongs_to_master: bool) -> None:
    """Drop the handlers a fork copied from the master: they would enqueue for an arbiter that is not here."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not belongs_to_master:
        return
    for number in (
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGWINCH,
    ):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, _quit)


def _quit(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


async def run(state: State, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then finish what is in flight for at most `DRAIN_SECONDS`."""
    server = await state.loop.create_server(lambda: EchoConnection(state), sock=listener, backlog=BACKLOG)
    await stop.wait()
    state.stopping = True
    server.close()
    for connection in tuple(state.connections):
        connection.stop()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            await state.without_connections()
    for connection in tuple(state.connections):
        connection.abort()


def bound(listener: socket.socket) -> str:
    """Return where a socket listens: `host:port`, `[v6]:port` or `unix:/path`."""
    name = listener.getsockname()
    return address(name) if isinstance(name, tuple) else f"unix:{name}"
