"""The worker's connections as an httpx transport (`httpx.AsyncBaseTransport`).

To the connection that carries it, a call is a caller like any other; only what waits for its events is a task instead
of the gateway's coroutine, and what takes its body is a queue instead of a client's connection.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, cast

import httpx

from devhost_server.failures import CONNECT_TIMEOUT, POOL_FULL, READ_TIMEOUT, RESPONSE_TIMEOUT, UPSTREAM_PROTOCOL, Fault
from devhost_server.messages import reuse
from devhost_server.messages.fields import HOP_BY_HOP, TOKEN, VALUE_BYTES, binds_connection, parse_length
from devhost_server.messages.request_head import RequestFields
from devhost_server.messages.response_head import ResponseHead
from devhost_server.messages.reuse import Reason
from devhost_server.upstream.caller import Event
from devhost_server.upstream.http1 import ServerConnection
from devhost_server.upstream.line import Waiter
from devhost_server.upstream.target import Target
from devhost_server.upstream.upstream import Upstream

# What may wait for the reader of a response before the target is paused.
_BUFFERED: Final = 256 * 1024

# The caller's hop is none of the target's business (RFC 9110 §7.6.1); an upgrade could not be answered here either.
_NOT_SENT: Final = HOP_BY_HOP | {b"host", b"connection", b"upgrade", b"te", b"trailer", b"expect"}

_ERRORS: Final = {
    CONNECT_TIMEOUT: httpx.ConnectTimeout,
    POOL_FULL: httpx.PoolTimeout,
    RESPONSE_TIMEOUT: httpx.ReadTimeout,
    READ_TIMEOUT: httpx.ReadTimeout,
    UPSTREAM_PROTOCOL: httpx.RemoteProtocolError,
}


def _error(fault: Fault, request: httpx.Request) -> httpx.TransportError:
    """Return a fault as the exception that httpx has for it."""
    flag = fault.failure.flag
    kind: type[httpx.TransportError] = _ERRORS.get(
        fault.failure, httpx.ConnectError if flag == "UF" else httpx.RemoteProtocolError
    )
    return kind(fault.detail, request=request)


class _Call:
    """A call, as the connection that carries it sees it (`Caller`); a task waits for what is told."""

    def __init__(self, request: httpx.Request, method: bytes, framing: RequestFields) -> None:
        self.request = request
        self.method = method
        self.framing = framing
        self.request_complete = not framing.has_body
        self.connect_seconds = 0.0
        self.connection: ServerConnection | None = None
        self.response: ResponseHead | None = None
        self.pieces: list[bytes] = []  # of the answer, and how many bytes they are
        self.size = 0
        self.complete = False  # the answer has come to its end
        self.over = False
        self.news = asyncio.Event()
        self.events: list[object] = []
        self._room = asyncio.Event()  # to send more of the request
        self._room.set()

    # -- what the connection tells ------------------------------------------------------------------------------------

    def post(self, event: object) -> None:
        """Wake the task."""
        self.events.append(event)
        self.news.set()

    def interim(self, head: ResponseHead) -> None:
        """Ignore interim responses: httpx has no place for them."""

    def answered(self, head: ResponseHead, pieces: Sequence[bytes], seconds: float, *, complete: bool) -> None:
        """Take the head."""
        self.response, self.complete = head, complete
        self.content(pieces)
        self.post(Event.RESPONSE)

    def content(self, pieces: Sequence[bytes]) -> None:
        """Gather content of the response, and hold the target back where nobody reads it."""
        self.pieces += pieces
        self.size += sum(map(len, pieces))
        if self.size > _BUFFERED and self.connection is not None:
            self.connection.pause_reading()
        self.news.set()

    def pause_upload(self) -> None:
        """Send no more of the request until there is room."""
        self._room.clear()

    def resume_upload(self) -> None:
        """Send on."""
        self._room.set()

    def owner(self) -> None:
        """Keep no connection that a call has authenticated: there is no client whose next call could be told."""

    # -- what the task does -------------------------------------------------------------------------------------------

    async def next(self) -> object:
        """Wait for the next event."""
        while not self.events:
            self.news.clear()
            await self.news.wait()
        return self.events.pop(0)

    def checked(self, event: object) -> object:
        """Return an event; raise httpx's exception for a fault, and what the request's body raised."""
        if isinstance(event, Fault):
            raise _error(event, self.request)
        if isinstance(event, Exception):
            raise event
        return event

    def send(self, target: Target, connection: ServerConnection, lines: list[bytes]) -> None:
        """Send the head on a connection."""
        framing = self.framing
        reasons = reuse.of_request(
            self.method,
            body=framing.has_body,
            upgrade=False,
            credentials=framing.credentials,
            bodies_read=target.pool.options.reuse_after_body,
            challenged=False,
        )
        if reasons & Reason.BODY:
            lines.append(b"Connection: close")
        self.connection = connection
        connection.begin(self, b"\r\n".join(lines) + b"\r\n\r\n", None, reasons, chunked_body=framing.chunked)

    async def upload(self, connection: ServerConnection) -> None:
        """Send the body of the request, as fast as the target takes it; what it raises becomes an event."""
        if self.request_complete:
            return
        try:
            async for piece in cast("httpx.AsyncByteStream", self.request.stream):
                await self._room.wait()
                if piece:
                    connection.send_body(piece)
            self.request_complete = True
            connection.end_body(b"")
        except Exception as error:
            self.post(error)

    async def response_head(self) -> ResponseHead:
        """Wait for the head of the response. Raises what `checked` does."""
        self.checked(await self.next())
        head = self.response
        if head is None or head.status == 101:
            raise httpx.RemoteProtocolError("the target switched protocols unasked", request=self.request)
        return head


class _Body(httpx.AsyncByteStream):
    """The body of a response; closing it gives the connection back."""

    def __init__(self, call: _Call, target: Target, connection: ServerConnection, upload: asyncio.Task[None]) -> None:
        self._call = call
        self._target = target
        self._connection = connection
        self._upload = upload
        self._complete = call.complete
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        call = self._call
        while True:
            while call.pieces:
                piece = call.pieces.pop(0)
                call.size -= len(piece)
                yield piece
            self._connection.resume_reading()
            if self._complete:
                return
            if not call.events:
                call.news.clear()
                await call.news.wait()
                continue
            self._complete = call.checked(call.events.pop(0)) is Event.FINISHED

    async def aclose(self) -> None:
        """Return the connection back, or destroy it if the body was not read to its end."""
        if not self._closed:
            self._closed = True
            self._upload.cancel()
            _give_back(self._call, self._target, self._connection, whole=self._complete)


def _give_back(call: _Call, target: Target, connection: ServerConnection, *, whole: bool) -> None:
    """End a call; its connection may be used again if the exchange was `whole` and nothing else speaks against it."""
    call.over = True
    if not whole or not call.request_complete:
        connection.reasons |= Reason.UNFINISHED
    target.pool.release(connection)


class PoolTransport(httpx.AsyncBaseTransport):
    """Sends requests over the worker's own connections; the host of the URL names the upstream."""

    def __init__(self, find: Callable[[str], Upstream | None]) -> None:
        self._find = find

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and give its response as soon as its head is there."""
        upstream = self._find(request.url.host)
        call, fields = _prepare(request)
        target = None if upstream is None else upstream.pick(call)
        if target is None:
            raise httpx.UnsupportedProtocol(f"there is no upstream called {request.url.host}", request=request)
        path = target.base_path + request.url.raw_path
        lines = [call.method + b" " + path + b" HTTP/1.1", b"Host: " + target.authority, *fields]
        connection = await self._acquire(call, target)
        upload: asyncio.Task[None] | None = None
        try:
            call.send(target, connection, lines)
            upload = asyncio.create_task(call.upload(connection))
            head = await call.response_head()
        except BaseException:
            if upload is not None:
                upload.cancel()
            _give_back(call, target, connection, whole=False)
            raise
        return _response(head, _Body(call, target, connection, upload))

    async def _acquire(self, call: _Call, target: Target) -> ServerConnection:
        connection = target.pool.take()
        if connection is not None:
            return connection
        waiter = target.pool.wait_for(call)
        event: object = waiter
        if isinstance(waiter, Waiter):
            try:
                event = await call.next()
            except BaseException:
                call.over = True
                waiter.leave()
                for late in call.events:
                    if isinstance(late, ServerConnection):
                        target.pool.release(late)
                raise
        if isinstance(event, ServerConnection):
            return event
        call.over = True
        raise _error(cast("Fault", event), call.request)


def _prepare(request: httpx.Request) -> tuple[_Call, list[bytes]]:
    """Return a call and the lines of its head; httpx has framed it, and its Host becomes the target's.

    What belongs to a hop stays on the caller's. Raises `httpx.LocalProtocolError` for what is no valid request.
    """
    fields = RequestFields([])
    method = request.method.encode()
    lines = []
    for name, value in request.headers.raw:
        lowered = name.lower()
        if lowered in _NOT_SENT:
            continue
        if TOKEN.fullmatch(name) is None or value.translate(None, VALUE_BYTES):
            raise httpx.LocalProtocolError(f"{name!r} is not a valid header", request=request)
        if lowered in (b"content-length", b"transfer-encoding") and not _frames(fields, lowered, value):
            raise httpx.LocalProtocolError("the request is not framed by one length or by chunks", request=request)
        fields.credentials |= lowered == b"authorization" and binds_connection(value)
        lines.append(name + b": " + value)
    if TOKEN.fullmatch(method) is None:
        raise httpx.LocalProtocolError(f"{method!r} is not a valid method", request=request)
    return _Call(request, method, fields), lines


def _frames(fields: RequestFields, name: bytes, value: bytes) -> bool:
    """Take in what frames the body; False if it does not, or not alone."""
    if fields.chunked or fields.length is not None:
        return False
    if name == b"content-length":
        fields.length = parse_length(value)
        return fields.length is not None
    fields.chunked = value.lower() == b"chunked"
    return fields.chunked


def _response(head: ResponseHead, body: _Body) -> httpx.Response:
    lines = [line.partition(b":") for line in head.forward.split(b"\r\n") if line]
    return httpx.Response(
        head.status,
        headers=[(name, value.strip(b" \t")) for name, _, value in lines],
        stream=body,
        extensions={"http_version": b"HTTP/1.0" if head.old else b"HTTP/1.1", "reason_phrase": head.line[4:]},
    )
