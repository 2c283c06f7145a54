"""An HTTP client of the echo upstream."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator
from typing import cast

import httptools
import orjson

from devhost_server.echo.answers import (
    Bulk,
    Delayed,
    Events,
    Reply,
    Request,
    content,
    decide,
    encode_head,
    malformed,
    origin_form,
    refuse,
    wants_websocket,
)
from devhost_server.echo.state import State, address
from devhost_server.echo.websocket import WebSocketEcho

MAX_HEAD = 1 << 20
"""Far above any gateway's own limit (nginx 32 KiB, Envoy 60 KiB), so that it is the gateway's limit a test meets."""
MAX_PIPELINED = 64
"""Requests that may wait behind the one being answered before reading from the client pauses."""

_WRITE_HIGH_WATER = 256 * 1024
# How long a refused client may go on sending: closing with unread input makes the kernel send a reset, which can
# destroy the refusal before it is read (RFC 9112 §9.6).
_LINGER_SECONDS = 1.0


class EchoConnection(asyncio.Protocol):
    """A client's connection: bytes in, requests queued in order, one answered at a time.

    Parser callbacks only record; nothing is written until `feed_data` has returned, because a callback that raises
    is reported as a parse error and llhttp calls back for several pipelined requests within one feed.
    """

    def __init__(self, state: State) -> None:
        self._state = state
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
        self._only_waits = False  # of the answer under way
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
        self._client = address(self._transport.get_extra_info("peername"))
        self._state.remember(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what is under way: nobody is left to read it."""
        self._state.forget(self)
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
        if self._answering is not None and self._only_waits:
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
        if origin_form(request.target).partition(b"?")[0] == b"/ws" and wants_websocket(request):
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
        if not self._busy() and (self._eof or (self._state.stopping and not self._receiving)):
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
        answer = request.refusal or decide(request, self._client, self._state.pid)
        if isinstance(answer, Reply):
            self._send(request, answer)
            self._end(request, close=answer.close, linger=answer.close)
            return
        self._answering = self._state.loop.create_task(self._take_time(request, answer), name=repr(request))
        self._only_waits = isinstance(answer, Delayed | Events)
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
        return encode_head(request, reply, length, date=self._state.date(), close=close)

    def _keeps(self, request: Request) -> bool:
        return request.keep_alive and not self._state.stopping

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
        async for event in _tick(events, self._state.pid):
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
            self._writable = self._state.loop.create_future()
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
        self._state.loop.call_later(_LINGER_SECONDS, self._transport.close)

    def stop(self) -> None:
        """Close now if idle, else after the answers that are due."""
        self._pump()

    def abort(self) -> None:
        """Close now, whatever is under way."""
        self._transport.abort()

    def _switch_to_websocket(self, request: Request) -> None:
        self._hung_up = True
        self._state.forget(self)
        self._handshake = None
        websocket = WebSocketEcho(self._state, self._transport, request)
        self._transport.set_protocol(websocket)
        if self._read_paused:
            self._transport.resume_reading()
        websocket.begin()
        if self._eof:
            websocket.eof_received()
            self._transport.close()


async def _tick(events: Events, worker: int) -> AsyncIterator[bytes]:
    number = 0
    while events.count is None or number < events.count:
        if number:
            await asyncio.sleep(events.interval)
        number += 1
        data = orjson.dumps({"n": number, "worker": worker})
        yield b"id: %d\nevent: tick\ndata: %b\n\n" % (number, data)
