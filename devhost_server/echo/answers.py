"""What was asked and what is answered: decided without I/O and clock."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import parse_qs

import orjson

MAX_BYTES = 1 << 40
MAX_DELAY = 3600.0
MAX_EVENTS = 1 << 40

_PERIOD = 251
_BLOCK = bytes(range(_PERIOD)) * 1024
_EMPTY_DIGEST = hashlib.sha256(b"").hexdigest()
_JSON = "application/json"
_KNOWN_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_WITHOUT_BODY = frozenset({204, 304})


@dataclass(slots=True, eq=False)
class Request:
    """One request as received. It grows while the parser reads it and is left alone once it is queued."""

    method: str = ""
    target: bytes = b""
    version: str = "1.1"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    length: int = 0
    keep_alive: bool = False
    refusal: Reply | None = None
    """Set when the request must not be believed; everything after it on the connection is discarded."""
    early: bytearray | None = None
    """Set for a WebSocket handshake: the bytes that came behind it."""
    _hash: hashlib._Hash | None = None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target.decode('latin-1')} HTTP/{self.version} body={self.length}>"

    def add_body(self, data: bytes) -> None:
        """Count and digest a piece of the body; the piece itself is not kept."""
        self.length += len(data)
        if self._hash is None:
            self._hash = hashlib.sha256()
        self._hash.update(data)

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the body received so far."""
        return _EMPTY_DIGEST if self._hash is None else self._hash.hexdigest()

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a header field in order; `name` in lower case."""
        return [value for key, value in self.headers if key.lower() == name]

    def head(self, *, without: bytes = b"") -> bytes:
        """Return the head as bytes for another parser, leaving out the field `without` (lower case)."""
        lines = [b"%b %b HTTP/%b" % (self.method.encode(), self.target, self.version.encode())]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name.lower() != without]
        return b"\r\n".join(lines) + b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is complete at once. `close` ends the connection after it."""

    status: int
    body: bytes = b""
    content_type: str = _JSON
    fields: tuple[tuple[str, str], ...] = ()
    close: bool = False


@dataclass(frozen=True, slots=True)
class Delayed:
    """An answer that waits `seconds` first."""

    seconds: float
    reply: Reply


@dataclass(frozen=True, slots=True)
class Bulk:
    """`size` bytes of `content`, chunked where asked and where the client's version allows."""

    size: int
    chunked: bool


@dataclass(frozen=True, slots=True)
class Events:
    """Server-sent events `interval` seconds apart; `count` of None never ends."""

    count: int | None
    interval: float


Answer: TypeAlias = Reply | Delayed | Bulk | Events


def content(size: int) -> Iterator[memoryview]:
    """Yield `size` bytes in pieces of at most 251 KiB; the byte at offset i is `i % 251`.

    The period is a prime, so a piece that is lost, doubled or moved by a power of two shows.
    """
    block = memoryview(_BLOCK)
    for _ in range(size // len(_BLOCK)):
        yield block
    if rest := size % len(_BLOCK):
        yield block[:rest]


@dataclass(frozen=True, slots=True)
class Asked:
    """What an endpoint decides from: the request, its path argument and query, and who asks whom."""

    request: Request
    argument: str
    query: bytes
    client: str
    worker: int


def decide(request: Request, client: str, worker: int) -> Answer:
    """Return the answer to a complete, well-formed request.

    `client` is the peer's address as text, `worker` the pid to be named. Values outside an endpoint's bounds give
    a `Reply` with status 400 that says what is allowed.
    """
    path, _, query = origin_form(request.target).partition(b"?")
    name, slash, argument = path[1:].decode("latin-1").partition("/")
    endpoint = _ENDPOINTS.get(name + slash, _answer_whoami)
    try:
        return endpoint(Asked(request, argument, query, client, worker))
    except ValueError as error:
        return refuse(400, str(error))


def _answer_whoami(asked: Asked) -> Answer:
    return Reply(200, _whoami(asked))


def _answer_headers(asked: Asked) -> Answer:
    return Reply(200, _dump({"headers": _shown(asked.request.headers)}))


def _answer_upload(asked: Asked) -> Answer:
    return Reply(200, _dump({"length": asked.request.length, "sha256": asked.request.sha256}))


def _answer_bytes(asked: Asked) -> Answer:
    return Bulk(whole_number("N", asked.argument, 0, MAX_BYTES), parameter(asked.query, "chunked") == "1")


def _answer_delay(asked: Asked) -> Answer:
    return Delayed(_seconds("S", asked.argument), Reply(200, _whoami(asked)))


def _answer_status(asked: Asked) -> Answer:
    status = whole_number("N", asked.argument, 200, 599)
    return Reply(status, b"" if status in _WITHOUT_BODY else _dump({"status": status}))


def _answer_sse(asked: Asked) -> Answer:
    count, interval = parameter(asked.query, "count"), parameter(asked.query, "interval")
    return Events(
        count=None if count is None else whole_number("count", count, 0, MAX_EVENTS),
        interval=1.0 if interval is None else _seconds("interval", interval),
    )


def _answer_plain_ws(_asked: Asked) -> Answer:
    return Reply(426, _dump({"error": "this path speaks WebSocket only"}), fields=(("Upgrade", "websocket"),))


_ENDPOINTS: dict[str, Callable[[Asked], Answer]] = {
    "bytes/": _answer_bytes,
    "delay/": _answer_delay,
    "headers": _answer_headers,
    "sse": _answer_sse,
    "status/": _answer_status,
    "upload": _answer_upload,
    "ws": _answer_plain_ws,
}


def refuse(status: int, why: str) -> Reply:
    """Return the answer that ends a connection, with its reason."""
    return Reply(status, _dump({"error": why}), close=True)


def malformed(request: Request) -> Reply | None:
    """Return the refusal of a head that llhttp accepts and RFC 9112 does not, else None."""
    if request.version not in {"1.0", "1.1"}:
        return refuse(505, f"HTTP/{request.version} is not spoken here; HTTP/1.0 and HTTP/1.1 are")
    if request.method == "CONNECT":
        return refuse(405, "this is not a tunnel: CONNECT is refused")
    hosts = len(request.values(b"host"))
    if hosts > 1 or (hosts == 0 and request.version == "1.1"):
        return refuse(400, f"a request has exactly one Host field, this one has {hosts} (RFC 9112 section 3.2)")
    return None


def encode_head(request: Request, reply: Reply, length: int | None, *, date: str, close: bool) -> bytes:
    """Return the response head. `length` of None means chunked, or until the close for an HTTP/1.0 client."""
    lines = [
        f"HTTP/1.1 {reply.status} {_KNOWN_PHRASES.get(reply.status, 'Unknown')}",
        f"Date: {date}",
        "Server: devhost-echo",
    ]
    if reply.status not in _WITHOUT_BODY:
        lines.append(f"Content-Type: {reply.content_type}")
        if length is not None:
            lines.append(f"Content-Length: {length}")
        elif request.version == "1.1":
            lines.append("Transfer-Encoding: chunked")
    lines += [f"{name}: {value}" for name, value in reply.fields]
    if close:
        lines.append("Connection: close")
    elif request.version == "1.0":
        lines.append("Connection: keep-alive")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _whoami(asked: Asked) -> bytes:
    request = asked.request
    ids = request.values(b"x-request-id")
    return _dump(
        {
            "method": request.method,
            "target": request.target.decode("latin-1"),
            "http_version": request.version,
            "headers": _shown(request.headers),
            "trailers": _shown(request.trailers),
            "body": {"length": request.length, "sha256": request.sha256},
            "client": asked.client,
            "worker": asked.worker,
            "request_id": ids[0].decode("latin-1") if ids else None,
        }
    )


def _shown(fields: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return the fields as text: one character a byte (latin-1), so that the bytes can be had back."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def _dump(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def origin_form(target: bytes) -> bytes:
    """Return path and query of a target in origin or absolute form (RFC 9112 §3.2)."""
    if target.startswith(b"/"):
        return target
    _, separator, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if separator else b"/"


def parameter(query: bytes, name: str) -> str | None:
    """Return the last value of a query parameter, or None."""
    values = parse_qs(query.decode("latin-1")).get(name)
    return values[-1] if values else None


def whole_number(name: str, text: str, least: int, most: int) -> int:
    """Return `text` as a number from `least` to `most`, or raise ValueError with a sentence about `name`."""
    if not re.fullmatch(r"[0-9]{1,15}", text) or not least <= int(text) <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}")
    return int(text)


def _seconds(name: str, text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", text) or float(text) > MAX_DELAY:
        raise ValueError(f"{name} must be a number of seconds from 0 to {MAX_DELAY:g}")
    return float(text)


def wants_websocket(request: Request) -> bool:
    """Return whether a request offers to become a WebSocket (RFC 6455 §4.2.1)."""
    tokens = b",".join(request.values(b"upgrade")).lower().split(b",")
    return request.version == "1.1" and b"websocket" in (token.strip() for token in tokens)
