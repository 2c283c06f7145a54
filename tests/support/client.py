"""A client that sends exactly the bytes it is told and reads answers without mercy."""

import re
import socket
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from tests.support.messages import BadMessageError, Fields, parse_fields, parse_response_head
from tests.support.wire import End, PeerGoneError, Wire

Framing = Literal["none", "length", "chunked", "close"]
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")


@dataclass
class Response:
    """One final response and the interim ones before it.

    `complete` says whether the framing was fulfilled; a response cut in its body has it False and `end` set.
    """

    version: str
    status: int
    reason: str
    headers: Fields
    framing: Framing
    informational: list[tuple[int, Fields]]
    body: bytes = b""
    trailers: Fields = field(default_factory=Fields)
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = False
    end: End | None = None

    def __repr__(self) -> str:
        size = f"{len(self.body)} bytes complete={self.complete}"
        return f"<Response {self.status} {self.framing} {size} {self.headers.lines} {self.body[:200]!r}>"


class RawClient(Wire):
    """A connection to the gateway."""

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        timeout: float = 5.0,
        receive_buffer: int | None = None,
        remember: bool = True,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        try:
            sock.connect((host, port))
        except OSError:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock, timeout, remember)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """The client's own address as the gateway sees it."""
        name = self.sock.getsockname()
        return name[0], name[1]

    def dribble(self, data: bytes, size: int = 1) -> None:
        """Send `data` in pieces of `size` bytes, each in a packet of its own (Nagle is off)."""
        for at in range(0, len(data), size):
            self.send(data[at : at + size])

    def start_response(self, method: str = "GET", timeout: float | None = None) -> "Incoming":
        """Read heads up to the final one (or a 101); the body is left to be read piece by piece."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        interim: list[tuple[int, Fields]] = []
        while True:
            version, status, reason, headers = parse_response_head(
                self.read_until(b"\r\n\r\n", timeout=deadline - time.monotonic())
            )
            if status >= 200 or status == 101:
                break
            interim.append((status, headers))
        framing, length = _framing(status, headers, method)
        return Incoming(self, Response(version, status, reason, headers, framing, interim), length)

    def read_response(self, method: str = "GET", timeout: float | None = None) -> Response:
        """Read one whole response, or as much as came before the connection ended inside its body."""
        return self.start_response(method, timeout).finish(timeout)

    def read_interim(self, timeout: float | None = None) -> tuple[int, Fields]:
        """Read one interim (1xx) head."""
        _, status, _, headers = parse_response_head(self.read_until(b"\r\n\r\n", timeout=timeout))
        assert 100 <= status < 200, f"expected an interim response, got {status}"
        return status, headers

    def expect_end(self, timeout: float = 3.0) -> End:
        """Assert that nothing more comes but the end of the connection; says how it ended."""
        rest = self.read_to_end(timeout)
        assert not rest, f"bytes after what should have been the last response: {rest[:300]!r}"
        assert self.end
        return self.end


def _framing(status: int, headers: Fields, method: str) -> tuple[Framing, int]:
    """How the body ends (RFC 9112 §6.3), refusing what a correct sender never sends."""
    codings, lengths = headers.all("transfer-encoding"), headers.all("content-length")
    if codings and lengths:
        raise BadMessageError(f"both Transfer-Encoding and Content-Length: {headers}")
    if len(lengths) > 1 or (lengths and not re.fullmatch("[0-9]+", lengths[0])):
        raise BadMessageError(f"Content-Length must be one number: {lengths}")
    if codings and [coding.lower() for coding in codings] != ["chunked"]:
        raise BadMessageError(f"a client can only read chunked: {codings}")
    if status == 101 or status == 204 or status < 200:
        if codings or (lengths and status != 101):
            raise BadMessageError(f"{status} with body framing: {headers}")
        return "none", 0
    if method == "HEAD" or status == 304:
        return "none", 0
    if codings:
        return "chunked", 0
    return ("length", int(lengths[0])) if lengths else ("close", 0)


class Incoming:
    """A response whose head is read and whose body is still coming."""

    def __init__(self, wire: RawClient, head: Response, length: int) -> None:
        self.wire = wire
        self.response = head
        self.status = head.status
        self.headers = head.headers
        self._left = length
        self.response.complete = head.framing == "none" or (head.framing == "length" and length == 0)

    def __repr__(self) -> str:
        return f"<Incoming {self.response!r}>"

    def piece(self, timeout: float | None = None) -> bytes:
        """The next bytes of the body as soon as there are any; nothing when it is over, whole or not."""
        if self.response.complete or self.response.end:
            return b""
        read = {"length": self._piece_of_length, "chunked": self._chunk, "close": self._piece_to_close}[
            self.response.framing
        ]
        try:
            data = read(timeout)
        except PeerGoneError as gone:
            self.response.end = gone.end
            return b""
        if data:
            self.response.chunks.append(data)
        return data

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """Body bytes until at least `size` have come (fewer only if the body ended)."""
        got = b""
        while len(got) < size and (more := self.piece(timeout)):
            got += more
        return got

    def finish(self, timeout: float | None = None) -> Response:
        """Read the rest of the body."""
        while self.piece(timeout):
            pass
        self.response.body = b"".join(self.response.chunks)
        return self.response

    def _piece_of_length(self, timeout: float | None) -> bytes:
        data = self.wire.read_some(self._left, timeout)
        if not data:
            raise PeerGoneError(self.wire.end or "fin", f"{self._left} more bytes", b"")
        self._left -= len(data)
        self.response.complete = self._left == 0
        return data

    def _piece_to_close(self, timeout: float | None) -> bytes:
        data = self.wire.read_some(timeout=timeout)
        if not data:
            self.response.end = self.wire.end
            self.response.complete = self.wire.end == "fin"
        return data

    def _chunk(self, timeout: float | None) -> bytes:
        line = self.wire.read_until(b"\r\n", timeout=timeout)
        size = _CHUNK_SIZE.fullmatch(line)
        if not size:
            raise BadMessageError(f"not a chunk size line: {line[:100]!r}")
        if length := int(size[1], 16):
            data = self.wire.read_exactly(length, timeout)
            if self.wire.read_exactly(2, timeout) != b"\r\n":
                raise BadMessageError("chunk data is not followed by CRLF")
            return data
        self._trailers(timeout)
        self.response.complete = True
        return b""

    def _trailers(self, timeout: float | None) -> None:
        lines = []
        while (line := self.wire.read_until(b"\r\n", timeout=timeout)) != b"\r\n":
            lines.append(line[:-2])
        self.response.trailers = parse_fields(lines)
