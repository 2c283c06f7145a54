"""The worker's connections as an httpx transport (`httpx.AsyncBaseTransport`).

A call is an exchange like any other to the connection that carries it; only what waits for its events is a task instead
of the gateway's coroutine, and what takes its body is a queue instead of a client's connection.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final, cast

import httpx

from devhost_server.exchange import Event, Exchange
from devhost_server.failures import CONNECT_TIMEOUT, POOL_FULL, READ_TIMEOUT, RESPONSE_TIMEOUT, UPSTREAM_PROTOCOL, Fault
from devhost_server.http.request_head import RequestFields
from devhost_server.http.server_connection import ServerConnection
from devhost_server.upstream.target import Target, Waiter
from devhost_server.upstream.upstream import Upstream

# What may wait for the reader of a response before the target is paused.
_BUFFERED: Final = 256 * 1024

_ERRORS: Final = {
    CONNECT_TIMEOUT: httpx.ConnectTimeout,
    POOL_FULL: httpx.PoolTimeout,
    RESPONSE_TIMEOUT: httpx.ReadTimeout,
    READ_TIMEOUT: httpx.ReadTimeout,
    UPSTREAM_PROTOCOL: httpx.RemoteProtocolError,
}


def _error(fault: Fault, request: httpx.Request) -> httpx.TransportError:
    """Give a fault as the exception that httpx has for it."""
    flag = fault.failure.flag
    kind: type[httpx.TransportError] = _ERRORS.get(
        fault.failure, httpx.ConnectError if flag == "UF" else httpx.RemoteProtocolError
    )
    return kind(fault.detail, request=request)


class _Reader:
    """What a connection takes for the client of a call: it gathers the body, and holds the target back."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self.room = asyncio.Event()  # to send more of the request
        self.room.set()
        self.transport = self

    def write(self, _data: bytes) -> None:
        """Ignore interim responses."""

    def pause_body(self) -> None:
        """Send no more of the request until there is room."""
        self.room.clear()

    def resume_body(self) -> None:
        """Send on."""
        self.room.set()

    def send_body(self, exchange: Exchange, pieces: list[bytes]) -> None:
        """Take content of the response."""
        self.pieces += pieces
        self.size += sum(map(len, pieces))
        call = cast("_Call", exchange)
        if self.size > _BUFFERED and call.connection is not None:
            call.connection.pause_reading()
        call.news.set()


class _Call(Exchange):
    """An exchange whose events a task waits for."""

    __slots__ = ("closed", "events", "news", "reader")

    def __init__(self, method: bytes, path: bytes, fields: RequestFields) -> None:
        self.reader = _Reader()
        super().__init__(cast("Any", self.reader), method, path, fields, 0.0)
        self.events: list[object] = []
        self.news = asyncio.Event()
        self.closed = False

    def post(self, event: object) -> None:
        """Wake the task."""
        self.events.append(event)
        self.news.set()

    @property
    def over(self) -> bool:
        """Whether nobody waits any more."""
        return self.closed

    async def next(self) -> object:
        """Wait for the next event."""
        while not self.events:
            self.news.clear()
            await self.news.wait()
        return self.events.pop(0)

    async def response_head(self, request: httpx.Request) -> None:
        """Wait for the head of the response. Raises httpx's exception for a fault."""
        event = await self.next()
        if isinstance(event, Fault):
            raise _error(event, request)


class _Body(httpx.AsyncByteStream):
    """The body of a response; closing it gives the connection back."""

    def __init__(self, call: _Call, target: Target, connection: ServerConnection, request: httpx.Request) -> None:
        self._call = call
        self._target = target
        self._connection = connection
        self._request = request
        self._complete = call.finished_early

    async def __aiter__(self) -> AsyncIterator[bytes]:
        call, reader = self._call, self._call.reader
        for piece in call.first_pieces:
            yield piece
        while True:
            while reader.pieces:
                piece = reader.pieces.pop(0)
                reader.size -= len(piece)
                yield piece
            self._connection.resume_reading()
            if self._complete:
                return
            if not call.events:
                call.news.clear()
                await call.news.wait()
                continue
            event = call.events.pop(0)
            if isinstance(event, Fault):
                raise _error(event, self._request)
            self._complete = event is Event.FINISHED

    async def aclose(self) -> None:
        """Give the connection back, or destroy it if the body was not read to its end."""
        if not self._call.closed:
            self._call.closed = True
            if not self._complete or not self._call.request_complete:
                self._connection.reusable = False
            self._target.release(self._connection)


class PoolTransport(httpx.AsyncBaseTransport):
    """Sends requests over the worker's own connections; the host of the URL names the upstream."""

    def __init__(self, find: Callable[[str], Upstream | None]) -> None:
        self._find = find

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and give its response as soon as its head is there."""
        upstream = self._find(request.url.host)
        target = upstream.pick() if upstream is not None else None
        if target is None:
            raise httpx.UnsupportedProtocol(f"there is no upstream called {request.url.host}", request=request)
        call, head = _prepare(request, target)
        connection = await self._acquire(call, target, request)
        uploading: asyncio.Task[None] | None = None
        try:
            connection.begin(call, head)
            call.connection = connection
            uploading = asyncio.create_task(_upload(request, call, connection))
            await call.response_head(request)
        except BaseException:
            if uploading is not None:
                uploading.cancel()
            call.closed = True
            connection.reusable = False
            target.release(connection)
            raise
        return _response(call, _Body(call, target, connection, request))

    async def _acquire(self, call: _Call, target: Target, request: httpx.Request) -> ServerConnection:
        connection = target.take()
        if connection is not None:
            return connection
        waiter = target.wait_for(call)
        event: object = waiter
        if isinstance(waiter, Waiter):
            try:
                event = await call.next()
            except BaseException:
                call.closed = True
                waiter.leave()
                for late in call.events:
                    if isinstance(late, ServerConnection):
                        target.release(late)
                raise
        if isinstance(event, ServerConnection):
            return event
        raise _error(cast("Fault", event), request)


def _prepare(request: httpx.Request, target: Target) -> tuple[_Call, bytes]:
    """Build the head of a call; httpx has framed it, and its Host becomes the target's."""
    fields = RequestFields([])
    lines = []
    for name, value in request.headers.raw:
        lowered = name.lower()
        if lowered == b"content-length":
            fields.length = int(value)
        elif lowered == b"transfer-encoding":
            fields.chunked = True
        elif lowered in (b"host", b"connection"):
            continue
        lines.append(name + b": " + value)
    path = target.base_path + request.url.raw_path
    method = request.method.encode()
    head = b"\r\n".join((method + b" " + path + b" HTTP/1.1", b"Host: " + target.authority, *lines)) + b"\r\n\r\n"
    call = _Call(method, path, fields)
    call.request_complete = not fields.has_body
    return call, head


async def _upload(request: httpx.Request, call: _Call, connection: ServerConnection) -> None:
    """Send the body of a request, as fast as the target takes it."""
    if call.request_complete:
        return
    with suppress(asyncio.CancelledError):
        async for piece in cast("httpx.AsyncByteStream", request.stream):
            await call.reader.room.wait()
            if piece:
                connection.send_body(piece)
        call.request_complete = True
        connection.end_body(b"")


def _response(call: _Call, body: _Body) -> httpx.Response:
    head = call.response
    if head is None:
        raise ValueError(call)
    lines = [line.partition(b":") for line in head.forward.split(b"\r\n") if line]
    return httpx.Response(
        head.status,
        headers=[(name, value.strip(b" \t")) for name, _, value in lines],
        stream=body,
        extensions={"http_version": b"HTTP/1.0" if head.old else b"HTTP/1.1", "reason_phrase": head.line[4:]},
    )
