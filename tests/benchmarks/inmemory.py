"""A gateway between transports of memory: what an exchange costs in Python alone, without a system call.

It is driven from its two ends, as a socket would: requests go into a client connection, answers into the connection
that the gateway itself has opened to its target.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final, cast

from devhost_server.config import Sources, load
from devhost_server.doors.http1 import ClientConnection
from devhost_server.gateway import Gateway
from devhost_server.processes.serving import Serving
from devhost_server.shared.board import Capacity, Scoreboard
from devhost_server.snapshot import UNROUTED, Blocks, Document, target_key
from devhost_server.upstream.http1 import ServerConnection
from tests.benchmarks.messages import ANSWER, SMALL

# One route to one target, for the host that the messages ask for.
ROUTES: Final[dict[str, Any]] = {
    "routes": {"app": {"name": "app", "hosts": ["app.localhost"], "upstream": "app"}},
    "upstreams": {"app": {"targets": [{"url": "http://127.0.0.1:9000"}]}},
}
LISTENER: Final = ("127.0.0.1", 7777)
# Turns of the event loop in which a connection of memory is surely there.
_TURNS: Final = 50


class MemoryTransport:
    """Takes writes and keeps the last one."""

    def __init__(self, name: tuple[str, int] = LISTENER, peer: tuple[str, int] | None = None) -> None:
        self.sent = b""
        self.closed = False
        self._names = {"sockname": name, "peername": peer or name}

    def write(self, data: bytes) -> None:
        self.sent = data

    def writelines(self, parts: list[bytes]) -> None:
        self.sent = b"".join(parts)

    def get_extra_info(self, key: str) -> object:
        return self._names.get(key)

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_protocol(self, protocol: object) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class MemoryLoop(asyncio.SelectorEventLoop):
    """An event loop whose connections lead nowhere; `made` holds them in the order they were made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[ServerConnection] = []

    async def create_connection(self, factory: Callable[[], Any], *_: Any, **__: Any) -> Any:  # type: ignore[override] # the gateway's one form of it
        protocol = factory()
        transport = MemoryTransport()
        protocol.connection_made(transport)
        self.made.append(protocol)
        return transport, protocol


class Loopback:
    """One client connection and one connection to a target, joined by a real gateway.

    `idle` is how many connections to the target there are; the last one that was used is the one that is used.
    """

    def __init__(self, routes: dict[str, Any] = ROUTES, log: str | None = "/dev/null", *, idle: int = 1) -> None:
        self.loop = MemoryLoop()
        sets = [f"log.access={log or 'null'}", "admin.bind=null"]
        loaded = load(Sources.from_options(config_files=[], sets=sets, environ={}, cwd="/"))
        settings = loaded.settings.model_dump(mode="json") | routes
        settings["echo"] = None
        upstreams = settings["upstreams"]
        if idle > 1:
            room = {"pool": {"max_connections": idle, "max_idle": idle}}
            upstreams = settings["upstreams"] = {name: upstream | room for name, upstream in upstreams.items()}
        targets = [target_key(name, target["url"]) for name, up in upstreams.items() for target in up["targets"]]
        blocks = Blocks(_numbered([UNROUTED, *settings["routes"]]), _numbered(upstreams), _numbered(targets))
        self.board = Scoreboard(Capacity(1, len(blocks.routes), len(upstreams), len(targets)))
        document = Document(1, "dev", "cafe1234", settings, blocks)
        self.serving = Serving(self.board, 0, document.text, clock=self.loop.time, soon=self.loop.call_soon)
        self.loop.run_until_complete(self.serving.start())
        self.gateway = self.serving.gateway
        self.gateway.clients.listen({LISTENER: 0})
        self.gateway.admission.room = sys.maxsize  # there are no turns here
        self.client, self.client_transport = self.connect()
        self.server = self.loop.run_until_complete(self._fill(idle))
        self.server_transport = cast("MemoryTransport", self.server.transport)
        self.target = self.gateway.snapshot.upstreams["app"].targets[0]

    @property
    def app(self) -> Gateway:
        """What uvicorn's configuration calls the application."""
        return self.gateway

    def connect(self, peer: tuple[str, int] = LISTENER) -> tuple[ClientConnection, MemoryTransport]:
        """Let a client connect from the address `peer`."""
        client, transport = (
            ClientConnection(cast("Any", self), cast("Any", None), {}, self.loop),
            MemoryTransport(peer=peer),
        )
        client.connection_made(cast("Any", transport))
        return client, transport

    def new_id(self) -> bytes:
        """Draw a request id as the gateway does."""
        return self.gateway._new_id()

    def exchange(self, request: bytes, response: bytes) -> bytes:
        """Pass one request and its answer through; give what the client got."""
        self.client.data_received(request)
        self.server.data_received(response)
        self.gateway.accounts.settle()
        return self.client_transport.sent

    def close(self) -> None:
        """End what is served, and the loop."""
        self.loop.run_until_complete(self.serving.close())
        self.loop.close()

    async def _fill(self, idle: int) -> ServerConnection:
        """Ask `idle` times at once, so that there are as many connections; give the one that answers last."""
        clients = [self.client, *(self.connect()[0] for _ in range(idle - 1))]
        for client in clients:
            client.data_received(SMALL)
        for _ in range(_TURNS):
            if len(self.loop.made) == idle and all(server.caller is not None for server in self.loop.made):
                break
            await asyncio.sleep(0)
        else:
            raise RuntimeError(f"{len(self.loop.made)} connections of {idle} were made")
        for server in self.loop.made:
            server.data_received(ANSWER)
        return self.loop.made[-1]


def _numbered(names: Any) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}
