"""The built-in echo upstream: an HTTP server that says what it was sent.

It gives a fresh gateway something to talk to, and gives tests, load tests and documentation an upstream whose every
answer can be checked. It sits directly on llhttp, so that header names, their order, case and duplicates are shown as
they arrived, which a framework would have normalised away.

=====================  =============================================================================================
`/headers`             the request header fields alone
`/bytes/N`             N bytes of `content` (at most `MAX_BYTES`); `?chunked=1` sends them without a Content-Length
`/delay/S`             the same answer as `/`, S seconds (a decimal, at most `MAX_DELAY`) after the request's end
`/status/N`            the final status N (200 to 599)
`/sse?count=&interval=`  server-sent events, endless and one a second unless told otherwise
`/ws`                  WebSocket echo, frame by frame, with permessage-deflate; `?close=CODE` is closed by the server
`/upload`              reads the body and answers its length and SHA-256
anything else          method, target, version, headers, body, client and process as JSON
=====================  =============================================================================================

A client that half-closes is sent the answers it still waits for, save those of `/delay` and `/sse`: nothing tells it
from a client that left, and an upstream that goes on waiting for nobody would hide a gateway that does not hang up.

It is meant for a loopback port: there are no time-outs for idle or slow clients, and no access control.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import hashlib
import os
import re
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias, cast
from urllib.parse import parse_qs

import click
import httptools
import orjson
import setproctitle
import uvloop
from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.protocol import OPEN, SEND_EOF
from websockets.server import ServerProtocol

from devhost_server.listeners import BACKLOG, ListenError, listen
from devhost_server.options import parse_bind

if TYPE_CHECKING:
    from types import FrameType

    from websockets.typing import Subprotocol

DEFAULT_BIND = "127.0.0.1:7779"
MAX_BYTES = 1 << 40
MAX_DELAY = 3600.0
MAX_EVENTS = 1 << 40
MAX_HEAD = 1 << 20
"""Far above any gateway's own limit (nginx 32 KiB, Envoy 60 KiB), so that it is the gateway's limit a test meets."""
MAX_FRAME = 64 << 20
MAX_PIPELINED = 64
"""Requests that may wait behind the one being answered before reading from the client pauses."""
DRAIN_SECONDS = 1.0
LINGER_SECONDS = 1.0
"""How long a refused client may go on sending: closing with unread input makes the kernel send a reset, which can
destroy the refusal before it is read (RFC 9112 §9.6)."""
PARENT_POLL_SECONDS = 0.5

_WRITE_HIGH_WATER = 256 * 1024
_PERIOD = 251
_BLOCK = bytes(range(_PERIOD)) * 1024
_EMPTY_DIGEST = hashlib.sha256(b"").hexdigest()
_JSON = "application/json"
_KNOWN_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_WITHOUT_BODY = frozenset({204, 304})


# --- what was asked -------------------------------------------------------------------------------------------------


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


# --- what is answered -----------------------------------------------------------------------------------------------


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
    path, _, query = _origin_form(request.target).partition(b"?")
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
    return Bulk(_integer("N", asked.argument, 0, MAX_BYTES), _last(asked.query, "chunked") == "1")


def _answer_delay(asked: Asked) -> Answer:
    return Delayed(_seconds("S", asked.argument), Reply(200, _whoami(asked)))


def _answer_status(asked: Asked) -> Answer:
    status = _integer("N", asked.argument, 200, 599)
    return Reply(status, b"" if status in _WITHOUT_BODY else _dump({"status": status}))


def _answer_sse(asked: Asked) -> Answer:
    count, interval = _last(asked.query, "count"), _last(asked.query, "interval")
    return Events(
        count=None if count is None else _integer("count", count, 0, MAX_EVENTS),
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


def _origin_form(target: bytes) -> bytes:
    """Return path and query of a target in origin or absolute form (RFC 9112 §3.2)."""
    if target.startswith(b"/"):
        return target
    _, separator, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if separator else b"/"


def _last(query: bytes, name: str) -> str | None:
    values = parse_qs(query.decode("latin-1")).get(name)
    return values[-1] if values else None


def _integer(name: str, text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text) or not least <= int(text) <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}")
    return int(text)


def _seconds(name: str, text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", text) or float(text) > MAX_DELAY:
        raise ValueError(f"{name} must be a number of seconds from 0 to {MAX_DELAY:g}")
    return float(text)


# --- one client -----------------------------------------------------------------------------------------------------


class EchoConnection(asyncio.Protocol):
    """A client's connection: bytes in, requests queued in order, one answered at a time.

    Parser callbacks only record; nothing is written until `feed_data` has returned, because a callback that raises
    is reported as a parse error and llhttp calls back for several pipelined requests within one feed.
    """

    def __init__(self, server: EchoServer) -> None:
        self._server = server
        self._transport: asyncio.Transport
        self._client = ""
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._request = Request()
        self._receiving = False  # a message has begun and not ended
        self._in_head = False
        self._head_size = 0
        self._continue_due = False
        self._handshake: Request | None = None  # its early bytes are still collected here
        self._queue: deque[Request] = deque()
        self._answering: asyncio.Task[None] | None = None
        self._write_paused = False
        self._read_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._eof = False
        self._hung_up = False

    def __repr__(self) -> str:
        state = "closing" if self._hung_up else "busy" if self._busy() else "idle"
        return f"<EchoConnection {self._client} {state} queued={len(self._queue)}>"

    # -- the socket --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket over."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        self._client = _address(self._transport.get_extra_info("peername"))
        self._server.remember(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what is under way: nobody is left to read it."""
        self._server.forget(self)
        self._hung_up = True
        self._queue.clear()
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, then answer what is complete."""
        if self._handshake is not None and self._handshake.early is not None:
            self._handshake.early += data
        elif self._parser is not None:
            self._feed(data)
        self._pump()

    def eof_received(self) -> bool:
        """Answer what a half-closed client still waits for, except by waiting: it may as well be gone."""
        self._eof = True
        if self._answering is not None and self._server.is_waiting(self._answering):
            self._answering.cancel()
        self._forget_unfinished()
        return self._busy()

    def pause_writing(self) -> None:
        """Hold answers back: the client does not read."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Go on answering."""
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._pump()

    # -- the parser --

    def on_message_begin(self) -> None:
        """Start a request; this is its first byte."""
        self._request = Request()
        self._receiving = self._in_head = True

    def on_url(self, url: bytes) -> None:
        """Record a piece of the target."""
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Record a header field or, behind the body, a trailer field."""
        fields = self._request.headers if self._in_head else self._request.trailers
        fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Close the head: what follows is body."""
        parser = cast("httptools.HttpRequestParser", self._parser)
        request = self._request
        request.method = parser.get_method().decode("latin-1")
        request.version = parser.get_http_version()
        request.keep_alive = parser.should_keep_alive()
        request.refusal = malformed(request)
        self._in_head = False
        self._head_size = 0
        if request.version == "1.1" and any(v.lower() == b"100-continue" for v in request.values(b"expect")):
            self._continue_due = True

    def on_body(self, body: bytes) -> None:
        """Digest a piece of the body."""
        self._request.add_body(body)

    def on_message_complete(self) -> None:
        """Queue the request."""
        # For an Upgrade llhttp ends the message at its head; `_upgrade` decides what the request is.
        if not cast("httptools.HttpRequestParser", self._parser).should_upgrade():
            self._message_ended(self._request)

    def _message_ended(self, request: Request) -> None:
        self._receiving = self._continue_due = False
        self._queue.append(request)

    def _feed(self, data: bytes) -> None:
        """Parse, as often as an Upgrade that is ignored interrupts; a refusal is queued behind what came before it."""
        try:
            while data and self._parser is not None:
                try:
                    self._parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as switch:
                    data = self._upgrade(data[switch.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse_input(refuse(400, f"malformed request: {error}"))
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD:
                self._refuse_input(refuse(431, f"the head is larger than {MAX_HEAD} bytes"))
        elif self._receiving and self._request.refusal is not None:
            self._refuse_input(self._request.refusal)

    def _upgrade(self, rest: bytes) -> bytes:
        """Take a WebSocket handshake out of HTTP, or go on with HTTP as if no Upgrade had been sent (RFC 9110 §7.8).

        Returns the bytes that are still to be parsed.
        """
        request = self._request
        if request.refusal is not None:
            self._parser = None
            self._message_ended(request)
            return b""
        if _origin_form(request.target).partition(b"?")[0] == b"/ws" and _wants_websocket(request):
            request.early = bytearray(rest)
            self._handshake = request
            self._parser = None
            self._message_ended(request)
            return b""
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(request.head(without=b"upgrade"))
        self._request.headers[:] = request.headers
        return rest

    def _refuse_input(self, reply: Reply) -> None:
        self._parser = None
        self._receiving = self._in_head = self._continue_due = False
        self._queue.append(Request(method=self._request.method, refusal=reply))

    def _forget_unfinished(self) -> None:
        """Forget a message that the client's end of stream cut short: nobody waits for its answer."""
        self._parser = None
        self._receiving = self._in_head = self._continue_due = False

    # -- answering --

    def _busy(self) -> bool:
        return bool(self._queue) or self._answering is not None

    def _pump(self) -> None:
        """Answer queued requests in order until one takes time or the client does not read."""
        while self._queue and self._answering is None and not self._write_paused and not self._hung_up:
            self._begin(self._queue.popleft())
        if self._hung_up:
            return
        if self._continue_due and not self._busy():
            self._continue_due = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._busy() and (self._eof or (self._server.stopping and not self._receiving)):
            self._hang_up()
        else:
            self._pace()

    def _pace(self) -> None:
        """Stop reading from a client that has enough waiting, and go on when it has not."""
        too_much = self._write_paused or len(self._queue) >= MAX_PIPELINED or self._handshake is not None
        if too_much == self._read_paused or self._eof:
            return
        self._read_paused = too_much
        if too_much:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _begin(self, request: Request) -> None:
        if request.early is not None:
            self._switch_to_websocket(request)
            return
        answer = request.refusal or decide(request, self._client, self._server.pid)
        if isinstance(answer, Reply):
            self._send(request, answer)
            self._end(request, close=answer.close, linger=answer.close)
            return
        self._answering = self._server.loop.create_task(self._take_time(request, answer), name=repr(request))
        self._server.note_waiting(self._answering, isinstance(answer, Delayed | Events))
        self._answering.add_done_callback(self._took_time)

    async def _take_time(self, request: Request, answer: Delayed | Bulk | Events) -> None:
        if isinstance(answer, Delayed):
            await asyncio.sleep(answer.seconds)
            self._send(request, answer.reply)
        elif isinstance(answer, Bulk):
            await self._send_bulk(request, answer)
        else:
            await self._send_events(request, answer)
        await self._until_writable()
        self._end(request)

    def _took_time(self, task: asyncio.Task[None]) -> None:
        self._answering = None
        if not task.cancelled() and (error := task.exception()) is not None:
            print(f"echo: {task.get_name()} failed: {error!r}", file=sys.stderr)
            self._transport.abort()
        elif task.cancelled() and not self._hung_up:
            self._hang_up()
        else:
            self._pump()

    def _send(self, request: Request, reply: Reply) -> None:
        head = self._head(request, reply, len(reply.body))
        self._transport.write(head if request.method == "HEAD" else head + reply.body)

    def _head(self, request: Request, reply: Reply, length: int | None) -> bytes:
        if length is None and request.version == "1.0":
            request.keep_alive = False  # the close is the end of the body
        close = reply.close or not self._keeps(request)
        return encode_head(request, reply, length, date=self._server.date(), close=close)

    def _keeps(self, request: Request) -> bool:
        return request.keep_alive and not self._server.stopping

    async def _send_bulk(self, request: Request, bulk: Bulk) -> None:
        reply = Reply(200, content_type="application/octet-stream")
        self._transport.write(self._head(request, reply, None if bulk.chunked else bulk.size))
        if request.method == "HEAD":
            return
        chunked = bulk.chunked and request.version == "1.1"
        for piece in content(bulk.size):
            self._write_body(piece, chunked=chunked)
            await self._until_writable()
        self._end_body(chunked=chunked)

    async def _send_events(self, request: Request, events: Events) -> None:
        reply = Reply(200, content_type="text/event-stream", fields=(("Cache-Control", "no-store"),))
        self._transport.write(self._head(request, reply, None))
        if request.method == "HEAD":
            return
        chunked = request.version == "1.1"
        async for event in _tick(events, self._server.pid):
            self._write_body(event, chunked=chunked)
            await self._until_writable()
        self._end_body(chunked=chunked)

    def _write_body(self, data: bytes | memoryview, *, chunked: bool) -> None:
        if chunked:
            self._transport.writelines([b"%x\r\n" % len(data), data, b"\r\n"])
        else:
            self._transport.write(data)

    def _end_body(self, *, chunked: bool) -> None:
        if chunked:
            self._transport.write(b"0\r\n\r\n")

    async def _until_writable(self) -> None:
        """Wait until the client has read enough; always lets other connections run once."""
        if self._write_paused:
            self._writable = self._server.loop.create_future()
            await self._writable
        else:
            await asyncio.sleep(0)

    def _end(self, request: Request, *, close: bool = False, linger: bool = False) -> None:
        if close or not self._keeps(request):
            self._hang_up(linger=linger)

    def _hang_up(self, *, linger: bool = False) -> None:
        """Close after what has been written; a lingering close first gives the client time to stop sending."""
        self._hung_up = True
        self._parser = self._handshake = None
        self._queue.clear()
        if not linger or self._eof:
            self._transport.close()
            return
        self._transport.write_eof()
        if self._read_paused:
            self._transport.resume_reading()
        self._server.loop.call_later(LINGER_SECONDS, self._transport.close)

    def stop(self) -> None:
        """Close now if idle, else after the answers that are due."""
        self._pump()

    def abort(self) -> None:
        """Close now, whatever is under way."""
        self._transport.abort()

    def _switch_to_websocket(self, request: Request) -> None:
        self._hung_up = True
        self._server.forget(self)
        self._handshake = None
        websocket = WebSocketEcho(self._server, self._transport, request)
        self._transport.set_protocol(websocket)
        if self._read_paused:
            self._transport.resume_reading()
        websocket.begin()
        if self._eof:
            websocket.eof_received()
            self._transport.close()


def _wants_websocket(request: Request) -> bool:
    tokens = b",".join(request.values(b"upgrade")).lower().split(b",")
    return request.version == "1.1" and b"websocket" in (token.strip() for token in tokens)


def _address(peer: object) -> str:
    """Return a peer name as `host:port`, `[v6]:port`, or `unix`."""
    if not isinstance(peer, tuple):
        return "unix"
    host, port = peer[0], peer[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _tick(events: Events, worker: int) -> AsyncIterator[bytes]:
    number = 0
    while events.count is None or number < events.count:
        if number:
            await asyncio.sleep(events.interval)
        number += 1
        data = orjson.dumps({"n": number, "worker": worker})
        yield b"id: %d\nevent: tick\ndata: %b\n\n" % (number, data)


# --- a WebSocket ----------------------------------------------------------------------------------------------------


class WebSocketEcho(asyncio.Protocol):
    """Sends every frame back as it came: same opcode, same fragmentation; pings and closes by RFC 6455.

    Frames are not gathered into messages, so a message may be of any size; one frame is at most `MAX_FRAME` bytes.
    """

    def __init__(self, server: EchoServer, transport: asyncio.Transport, request: Request) -> None:
        self._server = server
        self._transport = transport
        self._request = request
        self._wire = ServerProtocol(
            extensions=[ServerPerMessageDeflateFactory()],
            select_subprotocol=_first_subprotocol,
            max_size=(None, MAX_FRAME),
        )
        self._text: codecs.IncrementalDecoder | None = None  # set within a text message

    def __repr__(self) -> str:
        return f"<WebSocketEcho {_address(self._transport.get_extra_info('peername'))} {self._wire.state.name.lower()}>"

    def begin(self) -> None:
        """Answer the handshake and echo what came behind it."""
        self._server.remember(self)
        self._wire.receive_data(self._request.head())
        self._react()
        # Not in one go: a frame parsed before the handshake is answered is decoded without its extensions, and the
        # answer to a ping would go out ahead of the 101.
        if self._request.early:
            self.data_received(bytes(self._request.early))

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what is under way: nobody is left to read it."""
        self._server.forget(self)

    def data_received(self, data: bytes) -> None:
        """Echo the frames that are complete."""
        self._wire.receive_data(data)
        self._react()

    def eof_received(self) -> bool:
        """Let the transport close."""
        self._wire.receive_eof()
        return False

    def pause_writing(self) -> None:
        """Hold answers back: the client does not read."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on answering."""
        self._transport.resume_reading()

    def stop(self) -> None:
        """Begin the closing handshake with 1001, going away."""
        self._close(1001, "the echo upstream stops")

    def abort(self) -> None:
        """Close now, whatever is under way."""
        self._transport.abort()

    def _react(self) -> None:
        for event in self._wire.events_received():
            if isinstance(event, Handshake):
                self._accept(event)
            elif isinstance(event, Frame) and self._wire.state is OPEN:
                self._echo(event)
        self._flush()

    def _accept(self, handshake: Handshake) -> None:
        self._wire.send_response(self._wire.accept(handshake))
        code = _last(_origin_form(self._request.target).partition(b"?")[2], "close")
        if code is None or self._wire.state is not OPEN:
            return
        try:
            self._close(_integer("close", code, 1000, 4999), "as asked")
        except (ValueError, ProtocolError):
            self._close(1008, "not a close code an endpoint may send (RFC 6455 7.4)")

    def _echo(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            self._text = codecs.getincrementaldecoder("utf-8")()
        if self._text is not None and frame.opcode in {Opcode.TEXT, Opcode.CONT} and not self._is_text(frame):
            self._wire.fail(1007, "text that is not UTF-8")
        elif frame.opcode is Opcode.TEXT:
            self._wire.send_text(frame.data, fin=frame.fin)
        elif frame.opcode is Opcode.BINARY:
            self._wire.send_binary(frame.data, fin=frame.fin)
        elif frame.opcode is Opcode.CONT:
            self._wire.send_continuation(frame.data, fin=frame.fin)

    def _is_text(self, frame: Frame) -> bool:
        """Check UTF-8 across the fragments of a message (RFC 6455 §8.1)."""
        decoder = cast("codecs.IncrementalDecoder", self._text)
        if frame.fin:
            self._text = None
        try:
            decoder.decode(bytes(frame.data), final=frame.fin)
        except UnicodeDecodeError:
            return False
        return True

    def _close(self, code: int, reason: str) -> None:
        Close(code, reason).check()
        if self._wire.state is OPEN:
            self._wire.send_close(code, reason)
            self._flush()

    def _flush(self) -> None:
        for data in self._wire.data_to_send():
            if data is SEND_EOF:
                # The peer closes next; if it goes on sending instead, it is cut off rather than waited for.
                self._transport.write_eof()
                self._server.loop.call_later(LINGER_SECONDS, self._transport.close)
            else:
                self._transport.write(data)


def _first_subprotocol(_: ServerProtocol, offered: object) -> Subprotocol | None:
    """Agree to whatever the client prefers: an echo speaks every subprotocol equally well."""
    return next(iter(cast("list[Subprotocol]", offered)), None)


# --- the process ----------------------------------------------------------------------------------------------------


class EchoServer:
    """What the connections of one process share."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pid = os.getpid()
        self.stopping = False
        self.connections: set[EchoConnection | WebSocketEcho] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._emptied = asyncio.Event()
        self._second = 0
        self._date = ""

    def remember(self, connection: EchoConnection | WebSocketEcho) -> None:
        """Count a connection as open."""
        self.connections.add(connection)

    def forget(self, connection: EchoConnection | WebSocketEcho) -> None:
        """Count a connection as gone; the last one lets a stop end early."""
        self.connections.discard(connection)
        if not self.connections:
            self._emptied.set()

    async def _without_connections(self) -> None:
        while self.connections:
            self._emptied.clear()
            await self._emptied.wait()

    def date(self) -> str:
        """Return the Date field's value, formatted at most once a second."""
        now = int(time.time())
        if now != self._second:
            self._second, self._date = now, formatdate(now, usegmt=True)
        return self._date

    def note_waiting(self, task: asyncio.Task[None], waits: bool) -> None:
        """Remember the tasks that only wait for time to pass."""
        if waits:
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    def is_waiting(self, task: asyncio.Task[None]) -> bool:
        """Tell whether a task only waits for time to pass."""
        return task in self._waiting

    async def run(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish what is in flight for at most `DRAIN_SECONDS`."""
        server = await self.loop.create_server(lambda: EchoConnection(self), sock=listener, backlog=BACKLOG)
        await stop.wait()
        self.stopping = True
        server.close()
        for connection in tuple(self.connections):
            connection.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._without_connections()
        for connection in tuple(self.connections):
            connection.abort()


def serve(listener: socket.socket, stop_on_parent_exit: bool = True, *, parent: int | None = None) -> None:
    """Serve on a bound socket until SIGTERM, then return; takes ownership of `listener` in this process.

    With `stop_on_parent_exit` the process belongs to a master: it ends when its parent does, leaves SIGINT and the
    signals that a terminal or an operator sends to the whole group to the master, and stops at once on SIGQUIT.
    `parent` is the master's pid, for a caller that forked: read after the fork, the parent may already be another.
    Without it the process stands alone and SIGINT stops it like SIGTERM.
    """
    expected = os.getppid() if parent is None else parent
    setproctitle.setproctitle(f"devhost-server: echo {_bound(listener)}")
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
    await EchoServer(loop).run(listener, stop)
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


def _bound(listener: socket.socket) -> str:
    name = listener.getsockname()
    return _address(name) if isinstance(name, tuple) else f"unix:{name}"


@click.command()
@click.argument("bind", metavar="[HOST:PORT|unix:/PATH]", default=DEFAULT_BIND)
def main(bind: str) -> None:
    """Run the echo upstream alone, by default on 127.0.0.1:7779; port 0 takes a free one."""
    try:
        listener = listen(parse_bind(bind))
    except (ValueError, ListenError) as error:
        raise click.ClickException(str(error)) from error
    where = _bound(listener)
    click.echo(f"echo upstream on {where if where.startswith('unix:') else f'http://{where}'}")
    serve(listener, stop_on_parent_exit=False)


if __name__ == "__main__":
    main()
