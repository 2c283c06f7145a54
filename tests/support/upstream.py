"""A server whose behaviour is a Python function, one connection a thread, and which remembers every byte it got."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.support.messages import Fields, lenient_fields, response
from tests.support.secure import TlsSocket
from tests.support.waiting import wait_until
from tests.support.wire import PeerGoneError, Wire

Body = Literal["reading", "complete", "cut"]


@dataclass
class Received:
    """One request as the upstream saw it. `body` grows while it is being read."""

    connection: int
    head: bytes
    method: str
    target: str
    version: str
    headers: Fields
    body: bytearray = field(default_factory=bytearray)
    raw_body: bytearray = field(default_factory=bytearray)
    trailers: Fields = field(default_factory=Fields)
    state: Body = "reading"
    arrived: float = field(default_factory=time.monotonic)

    @property
    def complete(self) -> bool:
        """Whether the whole request came."""
        return self.state == "complete"

    def __repr__(self) -> str:
        where = f"#{self.connection} {self.state}"
        return f"<Received {self.method} {self.target} on {where} {self.headers.lines} {bytes(self.body[:100])!r}>"


class UpstreamConnection(Wire):
    """A connection that the gateway made to us; `number` counts them from 1 in each test."""

    def __init__(self, sock: socket.socket, number: int, server: "ScriptedUpstream") -> None:
        super().__init__(sock if server.context is None else TlsSocket(sock, server.context), timeout=10.0)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = number
        self.server = server
        self.local_end = False

    def read_head(self) -> Received:
        """Wait, without a bound but the end of the test, for a request head and record it."""
        head = self.read_until(b"\r\n\r\n", limit=1 << 24, timeout=60)
        first, *lines = head[:-4].split(b"\r\n")
        words = first.decode("latin-1").split(" ")
        fields = lenient_fields(lines)
        version = words[-1] if len(words) > 2 else ""
        received = Received(self.number, head, words[0], " ".join(words[1:-1]), version, fields)
        if not fields.all("content-length") and not fields.all("transfer-encoding"):
            received.state = "complete"
        self.server.record(received)
        return received

    def read_request(self) -> Received:
        """Wait for a whole request."""
        return self.read_body(self.read_head())

    def read_body(self, received: Received) -> Received:
        """Read the rest of a request whose head was read."""
        if received.state == "complete":
            return received
        try:
            if "chunked" in received.headers.get("transfer-encoding").lower():
                self._read_chunks(received)
            else:
                self._read_length(received, int(received.headers.get("content-length", "0")))
        except PeerGoneError:
            received.state = "cut"
            raise
        received.state = "complete"
        return received

    def respond(self, status: int | str = 200, body: bytes = b"ok", **headers: str) -> None:
        """Send a plain response with a Content-Length."""
        self.send(response(status, {name.replace("_", "-"): value for name, value in headers.items()}, body))

    def hold(self, timeout: float = 30.0) -> None:
        """Do nothing, still noticing when the gateway leaves, until it does or the test ends."""
        with contextlib.suppress(TimeoutError):
            self.wait_end(timeout)

    def pause(self, until: threading.Event, timeout: float = 10.0) -> None:
        """Wait for the test to set `until`, or for the end of the test."""
        wait_until(lambda: until.is_set() or self.server.stopping.is_set(), timeout, "the test's go-ahead")

    @property
    def left(self) -> bool:
        """Whether the gateway has ended its side, looked at without waiting."""
        with contextlib.suppress(TimeoutError, OSError):
            while self.fill(0.0):
                pass
        return self.end is not None

    def finish(self) -> None:
        """End politely: FIN, then read until the other side ends too, so that no answer is lost to an RST."""
        with contextlib.suppress(OSError, TimeoutError):
            self.half_close()
            self.wait_end(2)
        self.close()

    def _read_length(self, received: Received, length: int) -> None:
        while (left := length - len(received.raw_body)) > 0:
            data = self.read_some(left, timeout=60)
            if not data:
                raise PeerGoneError(self.end or "fin", f"{left} more body bytes", b"")
            received.raw_body += data
            received.body += data

    def _read_chunks(self, received: Received) -> None:
        while True:
            line = self.read_until(b"\n", timeout=60)
            received.raw_body += line
            size = int(line.split(b";")[0].strip() or b"0", 16)
            if size == 0:
                break
            data = self.read_exactly(size + 2, timeout=60)
            received.raw_body += data
            received.body += data[:-2]
        lines = []
        while (line := self.read_until(b"\n", timeout=60)).strip():
            received.raw_body += line
            lines.append(line.rstrip(b"\r\n"))
        received.trailers = lenient_fields(lines)


ConnectionScript = Callable[[UpstreamConnection], object]
RequestScript = Callable[[UpstreamConnection, Received], object]


class ScriptedUpstream:
    """Listens on one port from start to finish; what it does there is changed from test to test.

    `serve` sets what happens to each request, `serve_connection` what happens to each connection. A script that returns
    from a request keeps the connection, a script that returns from a connection closes it. Whatever a script raises,
    apart from the gateway having left, is raised again by `reset`, hence in the test it belongs to.
    With a `context` it speaks TLS; with a `path` it listens there, on a unix socket, and has no port.
    """

    def __init__(
        self, host: str = "127.0.0.1", *, context: ssl.SSLContext | None = None, path: Path | None = None
    ) -> None:
        self.host = host
        self.context = context
        self.path = path
        self._listener = self._bind(0)
        self.port: int = 0 if path else self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._requests: list[Received] = []
        self._connections: list[UpstreamConnection] = []
        self._accepted = 0
        self._errors: list[BaseException] = []
        self.stopping = threading.Event()
        self._answer: RequestScript = _ok
        self._connection_script: ConnectionScript = self._requests_forever
        self._accepting: threading.Thread | None = None
        self._listen()

    def __repr__(self) -> str:
        return f"<ScriptedUpstream :{self.port} {len(self._connections)} connections {self._requests}>"

    @property
    def url(self) -> str:
        """Where a gateway reaches this upstream."""
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.context else ''}://{host}:{self.port}"

    @property
    def authority(self) -> str:
        """Host and port, or the path."""
        if self.path:
            return f"unix:{self.path}"
        return f"{self.host}:{self.port}"

    @property
    def requests(self) -> list[Received]:
        """Every request of which at least the head came, in the order they came."""
        with self._lock:
            return list(self._requests)

    @property
    def connections(self) -> list[UpstreamConnection]:
        """Every connection since the last reset."""
        with self._lock:
            return list(self._connections)

    @property
    def only(self) -> Received:
        """The one request that came."""
        requests = self.requests
        assert len(requests) == 1, f"expected exactly one request upstream, got {requests}"
        return requests[0]

    @property
    def complete_requests(self) -> list[Received]:
        """The requests that came whole."""
        return [received for received in self.requests if received.complete]

    @property
    def received(self) -> bytes:
        """Every byte that came, over all connections in order."""
        return b"".join(bytes(connection.received) for connection in self.connections)

    def serve(self, script: bytes | RequestScript) -> None:
        """Answer each request from now on with these bytes, or by this function (the body has not been read then)."""
        self._answer = _answer(script) if isinstance(script, bytes) else script

    def serve_connection(self, *scripts: ConnectionScript) -> None:
        """Give the n-th connection to the n-th function; the last one serves all the rest."""
        self._connection_script = lambda connection: scripts[min(connection.number, len(scripts)) - 1](connection)

    def refuse(self) -> None:
        """Stop listening: connections are refused until `listen` or the end of the test."""
        self._stop_listening()
        self._listener = self._bind(self.port)

    def listen(self) -> None:
        """Listen again after `refuse`."""
        if not self._accepting:
            self._listen()

    def wait_requests(self, count: int = 1, timeout: float = 5.0) -> list[Received]:
        """Wait until so many request heads have come."""
        return wait_until(lambda: len(self.requests) >= count and self.requests, timeout, f"{count} requests") or []

    def record(self, received: Received) -> None:
        """Remember a request (called by connections)."""
        with self._lock:
            self._requests.append(received)

    def forget(self) -> None:
        """Forget the requests so far, within a test."""
        with self._lock:
            self._requests = []

    def prune(self) -> None:
        """Close and forget the connections that the gateway has ended, within a test of very many."""
        with self._lock:
            ended = [connection for connection in self._connections if connection.end]
            self._connections = [connection for connection in self._connections if not connection.end]
            self._threads = [thread for thread in self._threads if thread.is_alive()]
        for connection in ended:
            connection.close()

    def reset(self) -> None:
        """Between two tests: end every connection, forget everything, serve plain answers; raises what scripts raised.

        The gateway is given a moment to notice the FINs, so that no test starts with another one's connections pooled.
        """
        self.stopping.set()
        connections = self.connections
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.half_close()
        self._join(0.3)
        for connection in connections:
            connection.wake()
        self._join(5.0)
        for connection in connections:
            connection.close()
        self.listen()
        with self._lock:
            late = [connection for connection in self._connections if connection not in connections]
            self._requests, self._connections, self._threads, self._accepted = [], [], [], 0
            errors, self._errors = self._errors, []
        for connection in late:  # accepted meanwhile, and nobody's
            connection.wake()
            connection.close()
        self.stopping.clear()
        self._answer, self._connection_script = _ok, self._requests_forever
        if errors:
            raise AssertionError(f"the upstream's script failed: {errors[0]!r}") from errors[0]

    def close(self) -> None:
        """End for good."""
        self.reset()
        self._stop_listening()
        self._listener.close()

    def _requests_forever(self, connection: UpstreamConnection) -> None:
        while connection.buffer or connection.fill(60):
            self._answer(connection, connection.read_head())

    def _join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def _bind(self, port: int) -> socket.socket:
        if self.path:
            self.path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.path))
            return listener
        listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, port))
        return listener

    def _listen(self) -> None:
        self._listener.listen(1024)
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._accepting.start()

    def _stop_listening(self) -> None:
        if self._accepting:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._accepting.join(5)
            self._accepting = None
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with self._lock:
                    self._accepted += 1
                    connection = UpstreamConnection(sock, self._accepted, self)
                    self._connections.append(connection)
                    thread = threading.Thread(target=self._run, args=(connection, self._connection_script), daemon=True)
                    thread.start()  # before it is listed: only what was started can be joined
                    self._threads.append(thread)

    def _run(self, connection: UpstreamConnection, script: ConnectionScript) -> None:
        try:
            if isinstance(connection.sock, TlsSocket):
                connection.sock.handshake()
            script(connection)
        except OSError:
            pass  # the gateway left, or the test is over: what the test asserts on is in the records
        except BaseException as error:  # carried into the test by `reset`
            with self._lock:
                self._errors.append(error)
        if not self.stopping.is_set():
            connection.close()


def _ok(connection: UpstreamConnection, received: Received) -> None:
    connection.read_body(received)
    connection.respond()


def echo(connection: UpstreamConnection, received: Received) -> None:
    """Answer with the body that came."""
    connection.read_body(received)
    connection.respond(200, bytes(received.body))


def _answer(answer: bytes) -> RequestScript:
    def script(connection: UpstreamConnection, received: Received) -> None:
        connection.read_body(received)
        connection.send(answer)

    return script
