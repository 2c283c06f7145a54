"""This worker's connections to one server.

Connections are taken last in, first out, so that the ones in use stay fresh and the rest expire. Every operation is
O(1) however many connections there are. A connection that becomes free, and a new one that is ready, both go to
whoever has waited longest; so a request that asked for a new connection may well be served by an old one.
"""

import asyncio
import time
from collections import Counter
from itertools import islice
from typing import Final, Protocol

from devhost_server.failures import CONNECT_CLOSED, POOL_FULL, Fault
from devhost_server.messages import reuse
from devhost_server.messages.response_head import parse_response
from devhost_server.messages.reuse import Reason
from devhost_server.sockets.keepalive import keep_alive
from devhost_server.timing.deadlines import Wheel
from devhost_server.upstream.caller import Caller, Owner
from devhost_server.upstream.dialler import Dialler
from devhost_server.upstream.http1 import ServerConnection
from devhost_server.upstream.line import Line, Waiter
from devhost_server.upstream.options import PoolOptions, UpstreamTimeouts
from devhost_server.upstream.owned import Owned
from devhost_server.upstream.resting import Resting
from devhost_server.upstream.uploads import Uploads

# How many connections are looked at to say what they are in use for.
_LOOKED_AT: Final = 1000
# What is advised about a full pool, by what most of its connections do.
_ADVICE: Final = {
    "wait": "waiting",
    "upload": "uploads",
    "answer": "answers",
    "idle": "owned",
    "connecting": "connecting",
}
# A target that has not accepted a connection for this long is avoided where there are others.
_SLOW_SECONDS: Final = 1.0


class Watcher(Protocol):
    """Who is told how connecting goes."""

    def connected(self) -> None:
        """Note that the server can be connected to."""

    def slow(self) -> None:
        """Note that it has not accepted a connection for a second."""

    def failed(self, fault: Fault, *, probed: bool) -> None:
        """Note why a connection could not be made; `probed` if nobody waited for it."""


class Pool:
    """The connections to one server that one worker has. Belongs to one event loop."""

    def __init__(
        self, dialler: Dialler, options: PoolOptions, timeouts: UpstreamTimeouts, wheel: Wheel, watcher: Watcher
    ) -> None:
        self.options = options
        self.timeouts = timeouts
        self.uploads = Uploads(options.max_connections)
        self.active = 0  # connections that carry an exchange
        # The last response head with its empty line, and what it says; the connections read and write it.
        self.known_head_text = b"\r\n\r\n"
        self.known_head = parse_response(b"", b"")
        self._dialler = dialler
        self._wheel = wheel
        self._watcher = watcher
        self._idle: dict[ServerConnection, None] = {}  # in the order they became idle
        self._resting = Resting()
        self._owned = Owned()
        self._connections: set[ServerConnection] = set()  # those that take up room, in use and idle
        self._apart: set[ServerConnection] = set()  # those that carry event streams, which do not
        self._line = Line(self._full)
        self._waiting = self._line.waiting
        self._connecting: set[asyncio.Task[None]] = set()  # what keeps the tasks alive
        self._dialling = 0
        self._usage, self._usage_until = ("", ""), 0.0
        self._retired = False

    def __repr__(self) -> str:
        return f"<Pool {self.address} open={self._taken} idle={self.idle} waiting={len(self._waiting)}>"

    @property
    def address(self) -> str:
        """Where the server was reached last, or is tried first."""
        return self._dialler.address

    @property
    def idle(self) -> int:
        """How many connections carry no exchange, whoever may use them next."""
        return len(self._idle) + len(self._resting) + len(self._owned)

    @property
    def dialling(self) -> int:
        """How many connections are being made."""
        return self._dialling

    # -- taking and giving back ---------------------------------------------------------------------------------------

    def take(self) -> ServerConnection | None:
        """Return the idle connection that was used last and is still open, or None."""
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            if not (connection.transport.is_closing() or connection.look(0)):  # `usable`, without the call
                self.active += 1
                return connection
            connection.destroy()
        return self._take_rested() if self._resting else None

    def take_private(self, owner: Owner) -> ServerConnection | None:
        """Take the connection that a client owns for its next request, if there is one that can still be used."""
        connection: ServerConnection | None = owner.take(self)
        if connection is None:
            return None
        self._owned.forget(connection)
        if connection.usable:
            self.active += 1
            return connection
        connection.destroy()
        return None

    def wait_for(
        self, caller: Caller, timeouts: UpstreamTimeouts | None = None, *, fresh: bool = False
    ) -> Waiter | Fault:
        """Let `caller` wait for a connection, which (or a `Fault`) is posted to it; a refusal comes at once.

        `timeouts` are those of a route that has its own. `fresh` asks for a new connection even at the cost of an idle
        one: the others may be as stale as the last.
        """
        waiter = Waiter(caller, (timeouts or self.timeouts).connect)
        if fresh and self._taken >= self.options.max_connections and self._idle:
            stale, _ = self._idle.popitem()
            stale.destroy()
            self._connect(waiter)
        elif self._taken < self.options.max_connections or self._make_room():
            self._connect(waiter)
        elif self.options.wait <= 0:
            return self._full()
        else:
            self._line.join(waiter, self.options.wait)
            return waiter
        self._line.join(waiter)
        return waiter

    def release(self, connection: ServerConnection) -> None:
        """Take back a connection whose exchange has ended: for the next in line, for later, or to be closed.

        Every connection that has carried an exchange comes through here, or leaves with `surrender`.
        """
        if connection.apart and not self._take_back(connection):
            return
        self.active -= 1
        reasons = connection.detach()
        if reasons or self._retired:
            self._put_away(connection, reasons)
        elif self._waiting:
            self._offer(connection)
        else:
            self._idle[connection] = None

    def surrender(self, connection: ServerConnection) -> None:
        """Remove a connection that becomes half of a tunnel: tunnels do not take up the pool's room."""
        self.active -= 1
        connection.caller = None
        self._connections.discard(connection)
        self._connect_for_waiters()

    def set_apart(self, connection: ServerConnection) -> None:
        """Free the room of a connection that carries an event stream: like a tunnel, it may last for days."""
        connection.apart = True
        self.active -= 1
        self._connections.discard(connection)
        self._apart.add(connection)
        keep_alive(connection.transport)
        self._connect_for_waiters()

    def _take_back(self, connection: ServerConnection) -> bool:
        """Count a connection again whose event stream has ended, if there is room; else close it."""
        connection.apart = False
        self._apart.discard(connection)
        if self._taken >= self.options.max_connections or connection.transport.is_closing():
            connection.caller = None
            connection.destroy()
            return False
        self._connections.add(connection)
        self.active += 1
        return True

    def gone(self, connection: ServerConnection) -> None:
        """Note that a connection has been closed, by whichever side."""
        self._connections.discard(connection)
        self._apart.discard(connection)
        self._idle.pop(connection, None)
        self._resting.forget(connection)
        self._owned.forget(connection)
        if connection.owner is not None:
            connection.owner.forget(self, connection)
        self._connect_for_waiters()

    def retire(self) -> None:
        """Keep nothing from now on: the configuration no longer has this target."""
        self._retired = True
        for connection in tuple(self._idle):
            connection.destroy()
        self._owned.close()
        while (resting := self._resting.take_first()) is not None:
            resting.destroy()

    def trim(self) -> None:
        """Close idle connections beyond `max_idle`, the longest unused first.

        Called once a second instead of at each release: under load the idle ones come and go by the dozen.
        """
        spare = len(self._idle) + len(self._resting) - self.options.max_idle
        for connection in tuple(islice(self._idle, max(spare, 0))):
            connection.destroy()
            spare -= 1
        while spare > 0 and (resting := self._resting.take_first()) is not None:
            resting.discard()
            spare -= 1

    def probe(self) -> None:
        """Find out whether connections can be made again; the outcome is reported to the watcher."""
        if self._dialling:
            return  # one that is being made will tell
        if self._taken < self.options.max_connections:
            self._connect(None)
        else:
            self._watcher.connected()  # all of them are in use

    # -- inside -------------------------------------------------------------------------------------------------------

    def _put_away(self, connection: ServerConnection, reasons: int) -> None:
        """Put a connection to rest, return it to the client that owns it, or close it."""
        owner = connection.owner
        if self._retired or reasons & Reason.UNFINISHED:
            connection.destroy()
        elif reuse.ends(reasons):
            connection.discard()
        elif not reasons & reuse.PRIVATE:
            self._resting.add(connection, time.monotonic())
        elif reasons & Reason.CHALLENGE and owner is not None and owner.keep(self, connection):
            self._owned.add(connection, time.monotonic())
        else:
            connection.discard()
        if self._waiting and self._taken >= self.options.max_connections:
            self._make_room()

    def _take_rested(self) -> ServerConnection | None:
        connection = self._resting.take(time.monotonic())
        if connection is None:
            return None
        if connection.usable:
            self.active += 1
            return connection
        connection.destroy()
        return None

    def _make_room(self) -> bool:
        """Close a connection that whoever waits may not have: one that rests, or somebody's own."""
        connection = self._resting.take_first() or self._owned.take_spare(time.monotonic())
        if connection is None:
            return False
        connection.discard()
        return True

    def _offer(self, connection: ServerConnection) -> None:
        if self._waiting and connection.served and not connection.usable:
            connection.destroy()
            return
        caller = self._line.next()
        if caller is not None:
            self.active += 1
            caller.post(connection)
            return
        connection.rest()
        self._idle[connection] = None

    def full_of_uploads(self) -> Fault:
        """Return the refusal of a request whose body is still coming: no more of those get a connection."""
        return Fault(
            POOL_FULL,
            f"Half of the connections to {self.address} carry uploads that are not complete, and no more may; this one "
            f"found no place within {self.options.wait:g} s.",
            advice="uploads",
        )

    def _full(self) -> Fault:
        """Return the refusal that says what fills the pool; looked up once a second, however many are refused."""
        now = self._wheel.now
        if now >= self._usage_until:
            self._usage, self._usage_until = self._describe_usage(), now + 1.0
        usage, most = self._usage
        return Fault(
            POOL_FULL,
            f"All {self.options.max_connections} connections to {self.address} stayed in use for "
            f"{self.options.wait:g} s: {usage}",
            advice=most,
        )

    def _describe_usage(self) -> tuple[str, str]:
        """Return what the connections are in use for, in words, and the key of what most of them are."""
        doing = Counter(connection.doing for connection in islice(self._connections, _LOOKED_AT))
        usage = (
            f"{doing['wait']} wait for an answer, {doing['upload']} carry an upload, {doing['answer']} an answer, "
            f"{doing['idle']} belong to clients that have authenticated, {self._dialling} are being made; "
            f"{len(self._apart)} event streams run beside them, and {len(self._waiting)} more requests are waiting."
        )
        doing["connecting"] = self._dialling
        return usage, _ADVICE[max(_ADVICE, key=doing.__getitem__)]

    def _connect_for_waiters(self) -> None:
        """Use room for a new connection that has just appeared, if somebody waits without one being made."""
        if not self._waiting:
            return
        waiter = self._line.first()
        if waiter is not None and len(self._waiting) > self._dialling and self._taken < self.options.max_connections:
            self._connect(waiter)

    @property
    def _taken(self) -> int:
        """How much of the pool's room is taken: connections there are, and those that are being made."""
        return len(self._connections) + self._dialling

    def _connect(self, waiter: Waiter | None) -> None:
        self._dialling += 1
        task = asyncio.get_running_loop().create_task(self._make(waiter))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _make(self, waiter: Waiter | None) -> None:
        """Make one connection and hand it on; on failure tell the caller that asked for it, if one did."""
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        connection = ServerConnection(self, self._wheel)
        patience = self.timeouts.connect if waiter is None else waiter.patience
        slow = loop.call_later(_SLOW_SECONDS, self._watcher.slow)
        fault: Fault | None = None
        try:
            await self._dialler.dial(lambda: connection, patience)
        except Exception as error:
            fault = self._dialler.explain(error, time.monotonic() - began, patience)
        finally:
            slow.cancel()
            self._dialling -= 1
        if fault is None and connection.transport.is_closing():
            fault = CONNECT_CLOSED(f"{self.address} closed the connection as soon as it had accepted it.")
        if fault is not None:
            self._failed(waiter, fault)
            return
        self._connections.add(connection)
        self._watcher.connected()
        if waiter is not None and waiter.caller is not None:
            waiter.caller.connect_seconds = time.monotonic() - began
        self._offer(connection)

    def _failed(self, waiter: Waiter | None, fault: Fault) -> None:
        self._watcher.failed(fault, probed=waiter is None)
        caller = None if waiter is None else waiter.leave()
        if caller is not None:
            caller.post(fault)
        self._connect_for_waiters()
