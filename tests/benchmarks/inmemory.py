"""A gateway between two transports of memory: what an exchange costs in Python alone, without a system call."""

import asyncio
from typing import Any, cast

from devhost_server.config import Sources, load
from devhost_server.deadlines import Wheel
from devhost_server.gateway import Gateway
from devhost_server.http.client_connection import ClientConnection
from devhost_server.http.server_connection import ServerConnection
from devhost_server.observe.access_log import AccessLog
from devhost_server.observe.scoreboard import Capacity, Scoreboard
from devhost_server.snapshot import UNROUTED, Blocks, Builder, Document, target_key


class MemoryTransport:
    """Takes writes and keeps the last one."""

    def __init__(self, name: tuple[str, int] = ("127.0.0.1", 7777)) -> None:
        self.sent = b""
        self._name = name

    def write(self, data: bytes) -> None:
        self.sent = data

    def writelines(self, parts: list[bytes]) -> None:
        self.sent = b"".join(parts)

    def get_extra_info(self, key: str) -> object:
        return self._name

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class Loopback:
    """One client connection and one connection to a target, joined by a real gateway."""

    def __init__(self, routes: dict[str, Any], log: str | None = "/dev/null") -> None:
        self.loop = asyncio.new_event_loop()
        sets = [f"log.access={log or 'null'}", "admin.bind=null"]
        loaded = load(Sources.from_options(config_files=[], sets=sets, environ={}, cwd="/"))
        settings = loaded.settings.model_dump(mode="json") | routes
        settings["echo"] = None
        upstreams = settings["upstreams"]
        targets = [target_key(name, target["url"]) for name, up in upstreams.items() for target in up["targets"]]
        blocks = Blocks(_numbered([UNROUTED, *settings["routes"]]), _numbered(upstreams), _numbered(targets))
        board = Scoreboard(Capacity(1, len(blocks.routes), len(upstreams), len(targets)))
        wheel = Wheel(self.loop.time)
        document = Document(1, "dev", "cafe1234", settings, blocks)
        snapshot = self.loop.run_until_complete(Builder(board, 0, wheel).build(document, None))
        self.log = AccessLog(log, board.row(0), 0)
        self.gateway = Gateway(board, 0, snapshot, self.log, wheel)
        self.gateway.listen({("127.0.0.1", 7777): 0})
        self.client_transport = MemoryTransport()
        self.client = ClientConnection(cast("Any", self), cast("Any", None), {}, self.loop)
        self.client.connection_made(cast("Any", self.client_transport))
        self.target = next(iter(snapshot.upstreams.values())).targets[0]
        self.server = ServerConnection(self.target, wheel)
        self.server.connection_made(cast("Any", MemoryTransport()))
        self.target._idle[self.server] = None

    @property
    def app(self) -> Gateway:
        """What uvicorn's configuration calls the application."""
        return self.gateway

    def exchange(self, request: bytes, response: bytes) -> bytes:
        """Pass one request and its answer through; give what the client got."""
        self.client.data_received(request)
        self.server.data_received(response)
        return self.client_transport.sent


def _numbered(names: Any) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}
