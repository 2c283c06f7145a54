"""The echo process: it serves until it is told to stop, or its master is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket

import setproctitle
import uvloop

from devhost_server.echo.connection import EchoConnection
from devhost_server.echo.state import State, address
from devhost_server.forks import leave_group_signals_to_master
from devhost_server.sockets.listeners import BACKLOG

DRAIN_SECONDS = 1.0
PARENT_POLL_SECONDS = 0.5


def serve(listener: socket.socket, stop_on_parent_exit: bool = True, *, parent: int | None = None) -> None:
    """Serve on a bound socket until told to stop, then return; takes ownership of `listener` in this process.

    With `stop_on_parent_exit` the process belongs to a master: it stops on SIGQUIT, ends when its parent does, and
    leaves SIGTERM, SIGINT and what else is sent to the whole group to the master, which needs it for as long as workers
    drain. `parent` is the master's pid, for a caller that forked: read after the fork, the parent may already be
    another. Without it the process stands alone, and SIGTERM or SIGINT stops it.
    """
    expected = os.getppid() if parent is None else parent
    setproctitle.setproctitle(f"devhost-server: echo {bound(listener)}")
    if stop_on_parent_exit:
        leave_group_signals_to_master()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(listener, expected if stop_on_parent_exit else None))


async def _serve(listener: socket.socket, parent: int | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    watch: asyncio.Task[None] | None = None
    if parent is None:
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, stop.set)
    else:
        loop.add_signal_handler(signal.SIGQUIT, stop.set)
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
