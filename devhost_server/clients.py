"""The client connections and tunnels of a worker: who is at the other end, how many there may be, how they end."""

import ctypes
from typing import TYPE_CHECKING, Final, Protocol

from devhost_server.failures import CLIENT_FULL, DRAINING, GATEWAY_FULL
from devhost_server.messages.head_memory import HeadMemory
from devhost_server.messages.trust import Peer, Trust
from devhost_server.shared.board import Slot
from devhost_server.timing.per_client import PerClient

if TYPE_CHECKING:
    import asyncio

    from devhost_server.exchange import Exchange, Tunnel
    from devhost_server.failures import Fault
    from devhost_server.snapshot import Snapshot

# Peers remembered: parsing an address costs more than forwarding a request.
_PEERS: Final = 2048
# How long an idle connection may still be used for a request that was under way when a drain began.
_DRAIN_IDLE_SECONDS: Final = 1.0

# So many connections that gave up what they remembered leave holes worth giving back.
_TRIMMED: Final = 64


def _trim_heap() -> None:
    """Release unused pages of the heap to the kernel, where the C library can: it keeps them otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Client(Protocol):
    """A connection of a client, as those see it who count and end them."""

    transport: "asyncio.Transport"
    peer: Peer
    listener: int
    exchange: "Exchange | None"
    counted_as: bytes | None

    @property
    def has_address(self) -> bool:
        """Whether clients can be told apart by address."""

    def meet(self, peer: Peer) -> None:
        """Note who is at the other end, and forget what was found sound on the word of somebody else."""

    def judge_anew(self) -> None:
        """Forget what was found sound: the limits may have changed."""

    def save_memory(self) -> bool:
        """Forget what an idle connection remembers, and say so."""

    def refuse_connection(self, fault: "Fault") -> None:
        """Answer before anything was asked."""

    def drain(self) -> None:
        """End soon, if idle."""

    def close(self) -> None:
        """Close once what was written has been sent."""


class Clients:
    """What is open on the public side of one worker."""

    def __init__(self, row: memoryview) -> None:
        self.connections: set[Client] = set()
        self.tunnels: set[Tunnel] = set()
        self.heads = HeadMemory()
        self.draining = False
        # From the snapshot; `serve` sets them before the first connection.
        self.idle_seconds = 0.0  # how long a connection may wait for its next request
        self._most = 0
        self._trust = Trust()
        self._per_client = PerClient()
        self.in_flight = PerClient()
        self._row = row
        self._peers: dict[str, Peer] = {}
        self._listeners: dict[object, int] = {}
        self._ports: dict[object, int] = {}
        self._listener_open: list[int] = []
        self._finished = 0  # exchanges that ended well since the drain began
        self._closed = 0  # WebSockets that were told to go
        self._cut = 0

    def serve(self, snapshot: "Snapshot") -> None:
        """Go by this snapshot from now on."""
        self._most = snapshot.limits.connections
        self._per_client.most = snapshot.limits.connections_per_client
        self.in_flight.most = snapshot.limits.in_flight_per_client
        self.heads.make_room(len(snapshot.settings.routes))
        if not self.draining:
            self.idle_seconds = snapshot.timeouts.keepalive
        trust, self._trust = self._trust, snapshot.trust
        if snapshot.trust != trust:
            self._peers.clear()
        if snapshot.trust != trust or snapshot.strict_paths is not self.heads.strict:
            self.heads.strict = snapshot.strict_paths
            self.heads.clear()
        for client in self.connections:
            if snapshot.trust != trust:
                client.meet(self._peer_of(client))
            else:
                client.judge_anew()

    def listen(self, names: dict[object, int]) -> None:
        """Note the listeners, by local address, in the order of the configuration."""
        self._listeners = names
        # A connection accepted on a wildcard has a concrete address: those are told apart by their ports.
        self._ports = {name[1]: index for name, index in names.items() if isinstance(name, tuple)}
        self._listener_open = [0] * max(len(names), 1)

    # -- coming and going ---------------------------------------------------------------------------------------------

    def connected(self, client: Client) -> None:
        """Take in a new connection, or refuse it if there are too many."""
        name = client.transport.get_extra_info("sockname")
        listener = self._listeners.get(name)
        if listener is None:
            listener = self._ports.get(name[1], 0) if isinstance(name, tuple) else 0
        client.listener = listener
        client.meet(self._peer_of(client))
        self.connections.add(client)
        self._row[Slot.ACCEPTED] += 1
        self._row[Slot.CONNECTIONS] = len(self.connections)  # at once: the others look at it when they accept
        self._listener_open[client.listener] += 1
        if len(self.connections) > self._most:
            self._row[Slot.OVERLOADED] += 1
            client.refuse_connection(GATEWAY_FULL(f"This worker already serves {self._most} connections."))
        elif self._per_client.most is not None and client.has_address and not client.peer.trusted:
            client.counted_as = self._per_client.enter(client.peer.address)
            if client.counted_as is None:
                client.refuse_connection(
                    CLIENT_FULL(f"This client has {self._per_client.most} connections to this worker already.")
                )

    def disconnected(self, client: Client) -> None:
        """Forget a connection that is gone."""
        if client in self.connections:
            self.connections.discard(client)
            self._listener_open[client.listener] -= 1
            if client.counted_as is not None:
                self._per_client.leave(client.counted_as)
                client.counted_as = None

    def _peer_of(self, client: Client) -> Peer:
        """Describe who is at the other end; peers that come back are remembered."""
        name = client.transport.get_extra_info("peername")
        address = name[0] if isinstance(name, tuple) else ""
        known = self._peers.get(address)
        if known is None:
            if len(self._peers) >= _PEERS:
                self._peers.clear()
                self.heads.clear()  # those peers would never be met again
            known = self._peers[address] = self._trust.peer(address)
        return known

    # -- gauges -------------------------------------------------------------------------------------------------------

    def write_gauges(self) -> None:
        """Put what is only counted in this process on the scoreboard."""
        row = self._row
        row[Slot.CONNECTIONS] = len(self.connections)
        row[Slot.WEBSOCKETS] = len(self.tunnels)
        row[Slot.DRAIN_FINISHED] = self._finished
        row[Slot.DRAIN_CLOSED] = self._closed
        row[Slot.DRAIN_CUT] = self._cut

    def write_connections(self) -> None:
        """Put the connections of each listener on the scoreboard; called once a second, as it looks at each of them."""
        active = [0] * len(self._listener_open)
        saved = 0
        for client in self.connections:
            active[client.listener] += client.exchange is not None
            saved += client.save_memory()
        for index, count in enumerate(self._listener_open):
            self._row[Slot.LISTENERS + 2 * index] = active[index]
            self._row[Slot.LISTENERS + 2 * index + 1] = count - active[index]

        if saved >= _TRIMMED:
            _trim_heap()

    # -- drain --------------------------------------------------------------------------------------------------------

    def begin_drain(self) -> None:
        """From now on every answer ends its connection; idle connections end after a moment's grace."""
        self.draining = True
        self.idle_seconds = _DRAIN_IDLE_SECONDS
        for client in tuple(self.connections):
            client.drain()

    def count_end(self, x: "Exchange") -> None:
        """Note how an exchange ended during the drain; a tunnel that was told to go has been counted then."""
        if x.told_to_go:
            return
        if x.fault is None:
            self._finished += 1
        elif x.fault.failure is DRAINING:
            self._cut += 1

    def close_websockets(self, count: int) -> None:
        """Close up to `count` WebSockets with 1001: the gateway is going away."""
        for tunnel in tuple(self.tunnels):
            if count <= 0:
                return
            if not tunnel.closing and tunnel.close_going_away():
                self._closed += 1
                count -= 1

    def cut_everything(self) -> None:
        """End what is left, at the deadline of a drain."""
        for tunnel in tuple(self.tunnels):
            if not tunnel.closing:
                self._cut += 1
            tunnel.cut()
        for client in tuple(self.connections):
            exchange = client.exchange
            if exchange is not None:
                exchange.post(DRAINING("The gateway stopped before the answer was complete."))
            else:
                client.close()
        self.write_gauges()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to wait for."""
        return not self.connections and not self.tunnels
