"""What the connections of one echo process share."""

from __future__ import annotations

import asyncio
import os
import time
from email.utils import formatdate
from typing import Protocol


class Connection(Protocol):
    """A client, whatever it speaks."""

    def stop(self) -> None:
        """Close now if idle, else after the answers that are due."""

    def abort(self) -> None:
        """Close now, whatever is under way."""


def address(peer: object) -> str:
    """Return a peer name as `host:port`, `[v6]:port`, or `unix`."""
    if not isinstance(peer, tuple):
        return "unix"
    host, port = peer[0], peer[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class State:
    """One process: its loop, its pid, who is connected, and whether it stops."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pid = os.getpid()
        self.stopping = False
        self.connections: set[Connection] = set()
        self._emptied = asyncio.Event()
        self._second = 0
        self._date = ""

    def remember(self, connection: Connection) -> None:
        """Count a connection as open."""
        self.connections.add(connection)

    def forget(self, connection: Connection) -> None:
        """Count a connection as gone; the last one lets a stop end early."""
        self.connections.discard(connection)
        if not self.connections:
            self._emptied.set()

    async def without_connections(self) -> None:
        """Wait until nobody is connected."""
        while self.connections:
            self._emptied.clear()
            await self._emptied.wait()

    def date(self) -> str:
        """Return the Date field's value, formatted at most once a second."""
        now = int(time.time())
        if now != self._second:
            self._second, self._date = now, formatdate(now, usegmt=True)
        return self._date
