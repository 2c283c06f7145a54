"""A client's connection: bytes in, requests out, and the way back.

This is the protocol class that uvicorn is given as `http=`. It reads one request at a time, judges its head before
anybody else sees it, feeds the body to the exchange as it comes, and keeps what is pipelined behind until its turn. It
knows nothing of upstreams.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from devhost_server.doors import framing
from devhost_server.doors.http1_states import TRANSITIONS, Cue, State
from devhost_server.doors.tunnel import Tunnel
from devhost_server.exchange import Exchange
from devhost_server.failures import (
    BAD_EXPECTATION,
    BAD_HOST,
    BAD_REQUEST,
    BODY_TIMEOUT,
    BODY_TOO_LARGE,
    CLIENT_GONE,
    CLIENT_STALLED,
    HEAD_TIMEOUT,
    HEAD_TOO_LARGE,
    TARGET_TOO_LONG,
    Fault,
)
from devhost_server.messages import chunked
from devhost_server.messages.forwarding import informational_head, response_head
from devhost_server.messages.head_memory import ParsedLine
from devhost_server.messages.host import parse_host
from devhost_server.messages.partial_head import PartialHead
from devhost_server.messages.replies import Reply, build, date_line
from devhost_server.messages.request_head import RequestFields, protocols, seeming, split_absolute
from devhost_server.messages.response_head import ResponseHead
from devhost_server.messages.trust import Peer
from devhost_server.sockets.keepalive import keep_alive
from devhost_server.sockets.resets import reset_when_closed
from devhost_server.states import row
from devhost_server.timing.deadlines import NEVER
from devhost_server.timing.pace import Pace
from devhost_server.timing.progress import Progress
from devhost_server.upstream.caller import Event, Owner
from devhost_server.upstream.http1 import ServerConnection
from devhost_server.upstream.private import PrivateConnections

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

    from devhost_server.gateway import Gateway

# What may wait behind the request that is being served, and what a write buffer may hold before its source is paused.
_PIPELINE_LIMIT: Final = 64 * 1024
WRITE_HIGH: Final = 128 * 1024
# Above this, the parts of a chunk are handed over one by one rather than copied together.
_COPY_LIMIT: Final = 16 * 1024
# A head up to this size is remembered whole: polls and health checks are short.
_REPEATED_LIMIT: Final = 512
# A line and a block up to these sizes are remembered by the connection: a browser's with its cookies are. What is known
# of a block takes four times its size, which is given up when nothing has come for a while.
_LINE_LIMIT: Final = 1024
_BLOCK_LIMIT: Final = 4096
_FORGET_SECONDS: Final = 5.0
# RFC 9112 §9.6: how long, and how much, is still read after the last response, so that the client sees it before a
# reset. Two seconds is what nginx waits between two reads; it bounds the whole at 30.
_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 1024 * 1024

_IDLE, _IN_LINE, _BODY, _BUSY, _LINGER, _CLOSED, _TUNNEL = map(int, State)
# What each cue makes of a state (see `http1_states`).
_WAIT: Final = row(TRANSITIONS, Cue.WAIT)
_TURN: Final = row(TRANSITIONS, Cue.TURN)
_REQUEST: Final = row(TRANSITIONS, Cue.REQUEST)
_CONTENT: Final = row(TRANSITIONS, Cue.CONTENT)
_WHOLE: Final = row(TRANSITIONS, Cue.WHOLE)
_NEXT: Final = row(TRANSITIONS, Cue.NEXT)
_LAST: Final = row(TRANSITIONS, Cue.LAST)
_SWITCH: Final = row(TRANSITIONS, Cue.SWITCH)

_EMPTY_LINES: Final = re.compile(rb"\A(?:\r\n)+")

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_ABSENT_HOST: Final = BAD_REQUEST("There is no Host header, or it is empty.")
_OLD_CHUNKED: Final = BAD_REQUEST("HTTP/1.0 has no transfer codings, so where this request ends is anybody's guess.")
_GONE: Final = CLIENT_GONE("The client closed the connection before the answer was complete.")


class ClientConnection(asyncio.Protocol):
    """One client connection. `deadline` and `visit` belong to the wheel (`timing.deadlines`)."""

    __slots__ = (
        "_block",
        "_buffer",
        "_came",
        "_chunked_out",
        "_decoder",
        "_fields",
        "_handed",
        "_left",
        "_line",
        "_lingered",
        "_pace",
        "_parsed",
        "_partial",
        "_paused_for",
        "_persists",
        "_progress",
        "_repeated",
        "_state",
        "_write_paused",
        "counted_as",
        "deadline",
        "exchange",
        "gateway",
        "listener",
        "peer",
        "private",
        "transport",
        "visit",
    )

    def __init__(
        self,
        config: "Config",
        server_state: "ServerState",
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.gateway = cast("Gateway", config.app)
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set by connection_made, before any use
        self.peer: Peer = None  # type: ignore[assignment] # likewise
        self.listener = 0
        self.exchange: Exchange | None = None
        self.private: Owner | None = None  # made when there is the first
        self.deadline = NEVER
        self.visit = NEVER
        self._state = _IDLE
        self._came = 0.0  # when the request that stood in line did, in monotonic seconds
        self._buffer = b""
        self._partial: PartialHead | None = None  # of the next request
        self._left = 0  # of the body, when it has a length
        self._decoder: chunked.ChunkedDecoder | None = None
        self._chunked_out = False
        self._persists = False  # it outlives the answer that has begun
        self._write_paused = False
        self._paused_for = 0  # why reading is paused: a set of the bits below
        self._progress: Progress | None = None  # of the client, while it is to take what waits for it
        self._pace: Pace | None = None  # of the body that the client sends, or is slow to take
        self._handed = 0  # bytes of the answer that had been handed to the transport when that was looked at
        self.counted_as: bytes | None = None  # for `limits.connections_per_client`
        self._lingered = 0
        # What said what, last time: polls and health checks repeat the line, and nearly every client the fields.
        self._line = b""
        self._parsed: ParsedLine = (b"", b"", False)
        self._block = b""
        self._fields: RequestFields | None = None
        self._repeated: tuple[bytes, bytes, bytes, RequestFields] | None = None  # the whole of it, where it is short

    def __repr__(self) -> str:
        peer = self.peer.address.decode() if self.peer is not None else "?"
        state = State(self._state).name.lower().replace("_", " ")
        return f"<ClientConnection {peer} {state}>"

    # -- the transport's calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection in, if there is room."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        self.arm(self.gateway.timeouts.head)
        self.gateway.clients.connected(self)

    def data_received(self, data: bytes) -> None:
        """Pass bytes to whoever is due them."""
        state = self._state
        if state == _IDLE:
            if self._write_paused:
                self._queue(data)  # a client that does not take its answers gets no more of them
            elif self.gateway.admission.room > 0 or self._buffer or self._partial is not None:
                self._read_head(data)
            else:
                self._queue(data)
                self._stand_in_line()
        elif state == _BODY:
            if self._pace is None:
                self._await_body()
            else:
                self._pace.moved(len(data), self.gateway.wheel.now)
                self._arm_body(self._pace)
            self._read_body(data)
        elif state == _BUSY or state == _IN_LINE:  # noqa: PLR1714, SIM109 -- speed
            self._queue(data)
        elif state == _LINGER:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self.transport.abort()

    def eof_received(self) -> bool | None:
        """Treat the end of what a client sends as its leaving, as Go and nginx do: a full close looks the same."""
        self._leave()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; an exchange in flight is told."""
        self._leave()
        self._state = _CLOSED
        if self.private is not None:
            self.private.close()
        self.deadline = NEVER
        self.gateway.wheel.forget(self)
        self.gateway.hangups.forget(self.transport)
        self.gateway.clients.disconnected(self)

    def pause_writing(self) -> None:
        """Note that the client reads too slowly: nothing more is taken from the upstream until it has caught up."""
        self._write_paused = True
        self._pace = None
        self._handed = 0 if self.exchange is None else self.exchange.bytes_out
        self._watch_writing()
        exchange = self.exchange
        if exchange is not None and exchange.connection is not None:
            exchange.connection.pause_reading()

    def resume_writing(self) -> None:
        """Resume the upstream, or read the next request."""
        self._write_paused = False
        self._progress = None
        exchange = self.exchange
        if exchange is None:
            if self._state == _IDLE:
                self.arm(self.gateway.clients.idle_seconds)
                self.resume_body()
                if self._buffer:
                    self._stand_in_line()
            return
        self.deadline = NEVER
        self._pace = None
        if self._state == _BODY:
            self._await_body()
        if exchange.connection is not None:
            exchange.connection.resume_reading()

    # -- deadlines ----------------------------------------------------------------------------------------------------

    def arm(self, seconds: float) -> None:
        """Move the deadline to `seconds` from now."""
        wheel = self.gateway.wheel
        self.deadline = wheel.now + seconds
        if self.deadline < self.visit:
            wheel.watch(self)

    def expire(self, now: float) -> None:
        """Act on a passed deadline according to what the client was to do."""
        due, self.deadline = self.deadline, NEVER
        exchange = self.exchange
        if self._write_paused or self._state == _CLOSED:
            self._expire_write(now)
        elif exchange is not None and self._state == _BODY:
            self._expire_body(exchange, now)
        elif self._state == _IDLE and self._partial is not None:
            began = time.monotonic() - (now - due) - self.gateway.timeouts.head  # the wheel has a clock of its own
            self._refuse(HEAD_TIMEOUT("The request head was not complete in time."), bytes(self._partial.data), began)
        elif self._state in (_IDLE, _LINGER):
            self.close()

    def _await_body(self) -> None:
        """Begin to time the request body."""
        timeouts = self.gateway.timeouts
        self._pace = Pace(self.gateway.wheel.now, timeouts.body_rate, timeouts.body_idle, timeouts.body)
        self._arm_body(self._pace)

    def _arm_body(self, pace: Pace) -> None:
        if not self._write_paused:
            wheel = self.gateway.wheel
            self.deadline = min(wheel.now + self.gateway.timeouts.body_idle, pace.due, pace.until)
            if self.deadline < self.visit:
                wheel.watch(self)

    def _expire_body(self, exchange: Exchange, now: float) -> None:
        pace, timeouts = self._pace, self.gateway.timeouts
        if self._paused_for:
            self.arm(timeouts.body_idle)  # it is we who do not read
        elif pace is None and exchange.continued:
            self._await_body()  # it was told to go on, and says nothing
        elif pace is not None and pace.until <= now:
            exchange.post(BODY_TIMEOUT(f"The request body was not complete within {timeouts.body:g} s."))
        elif pace is not None and pace.due <= now:
            exchange.post(BODY_TIMEOUT(f"The request body came slower than {timeouts.body_rate} bytes a second."))
        else:
            exchange.post(BODY_TIMEOUT("The request body stopped coming before it was complete."))

    def _watch_writing(self) -> None:
        """Begin to time how the client takes what waits for it, from the last byte that it took."""
        if self._progress is None:
            wheel = self.gateway.wheel
            self._progress = Progress(self.transport, self.gateway.timeouts.write_idle, wheel.clock())
            self.arm(self._progress.step)

    def _expire_write(self, now: float) -> None:
        """Look whether the client takes what waits for it: a byte within `write_idle`, and enough of them."""
        fault = self._too_slow(now)
        if fault is None:
            return
        if self.exchange is not None:
            self.exchange.post(fault)
        self.transport.abort()

    def _too_slow(self, now: float) -> Fault | None:
        """Return in what the client is too slow; if it is not, set when to look next."""
        progress, timeouts = self._progress, self.gateway.timeouts
        if progress is None or progress.has_stalled(now):
            return CLIENT_STALLED("The client did not take a byte of the answer for too long.")
        handed = self._handed if self.exchange is None else self.exchange.bytes_out
        if self._pace is None:
            self._pace = Pace(now, timeouts.body_rate, timeouts.write_idle)
            self._pace.moved(self._handed, now)  # what it took before
        self._pace.moved(max(progress.moved + handed - self._handed, 0), now)
        self._handed = handed
        if self._pace.due <= now:
            return CLIENT_STALLED(f"The client took the answer slower than {timeouts.body_rate} bytes a second.")
        self.arm(progress.step)
        return None

    @property
    def has_address(self) -> bool:
        """Whether clients can be told apart by address: not over a unix socket."""
        return isinstance(self.transport.get_extra_info("peername"), tuple)

    # -- the head -----------------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        """Begin a request if its head is there as a whole."""
        self.gateway.admission.room -= 1
        repeated = self._repeated
        if repeated is not None and data == repeated[0] and not self._buffer and self._partial is None:
            # A poll or a health check: what was found out about the last request holds for this one.
            _, method, target, fields = repeated
            exchange = Exchange(self, method, target, fields, self._came or time.monotonic())
            exchange.host = fields.host or b""
            self._begin(exchange, fields, b"")
            return
        if self._partial is not None:
            self._read_on(self._partial, data)
            return
        if self._buffer:  # half an empty line
            data = self._buffer + data
            self._buffer = b""
        if data[:2] == b"\r\n":
            data = _EMPTY_LINES.sub(b"", data, 1)  # RFC 9112 §2.2: empty lines before a request are ignored
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > self.gateway.limits.head:
            self._begin_partial(data)
        else:
            self._take_head(data, end)

    def _take_head(self, data: bytes, end: int) -> None:
        """Judge the head that ends at `end`, and begin its request or refuse it."""
        line_end = data.find(b"\r\n")
        line = data[:line_end]
        parsed = self._parsed if line == self._line else self._parse_line(line)
        if isinstance(parsed, Fault):
            self._refuse(parsed, data[:end])
            return
        method, target, old = parsed
        block = data[line_end:end]
        if block == self._block and self._fields is not None:
            fields = self._fields
        else:
            found = self._analyse(method, block)
            if isinstance(found, Fault):
                self._refuse(found, data[:end])
                return
            fields = found
        is_path = target[:1] == b"/"
        if fields.suspect or not is_path or old or len(target) > self.gateway.limits.target:
            fault = self._judge(target, fields, old=old)
            if fault is not None:
                self._refuse(fault, data[:end])
                return
        exchange = Exchange(self, method, target, fields, self._came or time.monotonic())
        exchange.old = old
        if is_path or target == b"*":
            exchange.host = fields.host or b""
        else:
            exchange.host, exchange.target_path = split_absolute(method, target)
        rest = data[end + 4 :]
        if end <= _REPEATED_LIMIT and is_path and not (rest or old or fields.length or fields.chunked):
            self._repeated = data, method, target, fields
        self._begin(exchange, fields, rest)

    def _parse_line(self, line: bytes) -> ParsedLine | Fault:
        known = self.gateway.clients.heads.line(line)
        if isinstance(known, Fault):
            return known
        if len(line) <= _LINE_LIMIT:
            self._line, self._parsed = known
        return known[1]

    def _judge(self, target: bytes, fields: RequestFields, *, old: bool) -> Fault | None:
        """Return what is wrong with a head whose parts are sound, or None."""
        if len(target) > self.gateway.limits.target:
            return TARGET_TOO_LONG(f"The request target is longer than {self.gateway.limits.target} bytes.")
        if not fields.host and (fields.host is not None or not old):
            return _ABSENT_HOST
        if fields.host and parse_host(fields.host) is None:
            return BAD_HOST  # RFC 9112 §3.2: also where the target in absolute form overrules it
        if fields.odd_expectation and not old:
            return BAD_EXPECTATION("The only expectation there is, is 100-continue (RFC 9110 §10.1.1).")
        return _OLD_CHUNKED if old and fields.chunked else None

    def _analyse(self, method: bytes, block: bytes) -> RequestFields | Fault:
        limits = self.gateway.limits
        if block.count(b"\r\n") > limits.headers:
            return HEAD_TOO_LARGE(f"The request has more than {limits.headers} header lines.")
        known = self.gateway.clients.heads.block(block, method, self.peer)
        if isinstance(known, Fault):
            return known
        if known[1].upgrade is None and len(block) <= _BLOCK_LIMIT:  # with one, it depends on the method too
            self._block, self._fields = known
        return known[1]

    def _begin_partial(self, data: bytes) -> None:
        """Keep a head that has not fully come; half an empty line is no beginning of one."""
        if data in (b"", b"\r"):
            self._buffer = data
            return
        self.arm(self.gateway.timeouts.head)
        self._partial = PartialHead(self.gateway.limits)
        self._read_on(self._partial, data)

    def _read_on(self, partial: PartialHead, data: bytes) -> None:
        """Take in more of a head, unless it is already too large or beyond mending."""
        end = partial.feed(data)
        if 0 <= end <= self.gateway.limits.head:
            self._partial = None
            self._take_head(bytes(partial.data), end)
            return
        fault = partial.judge()
        if fault is not None:
            self._refuse(fault, bytes(partial.data))

    def _refuse(self, fault: Fault, head: bytes = b"", started: float | None = None) -> None:
        """Answer a request that has no exchange yet; nothing that follows it on this connection can be trusted.

        `head` is what came of it, for the log and the answer: what it seems to say, not what it says.
        """
        method, target, host = seeming(head)
        exchange = Exchange(self, method, target, None, time.monotonic() if started is None else started)
        exchange.host = host
        exchange.request_complete = False  # there may be more of it: linger, do not reset
        self._buffer = b""
        self._partial = None
        self.exchange = exchange
        self._state = _REQUEST[self._state]
        self._persists = False
        self.deadline = NEVER
        self.gateway.refuse_head(exchange, fault)

    def meet(self, peer: Peer) -> None:
        """Take the peer for who it is (now): what its fields meant before may have rested on trust."""
        self.peer = peer
        self.judge_anew()

    def judge_anew(self) -> None:
        """Forget what was found sound: the limits, or whom to trust, may have changed."""
        self._line = self._block = b""
        self._fields = self._repeated = None

    def save_memory(self) -> bool:
        """Forget the last head of a connection that has been idle for a while, and say so; called now and then."""
        if not self._line or self._state != _IDLE:
            return False
        idle_since = self.deadline - self.gateway.clients.idle_seconds
        forgets = self.gateway.wheel.now - idle_since > _FORGET_SECONDS
        if forgets:
            self._line = self._block = b""
            self._parsed = (b"", b"", False)
            self._fields = self._repeated = None
        return forgets

    def refuse_connection(self, fault: Fault) -> None:
        """Answer before anything was asked: there is no room for this connection."""
        self._refuse(fault)

    def _begin(self, exchange: Exchange, fields: RequestFields, rest: bytes) -> None:
        """Take in what has come of the body, then let the gateway begin."""
        self.exchange = exchange
        self._state = _REQUEST[self._state]
        self._persists = False
        self.deadline = NEVER
        if fields.chunked or fields.length:
            fault = self._open_body(exchange, fields, rest)
            if fault is not None:
                self.gateway.refuse_unhandled(exchange, fault)
                return
        elif rest:
            self._queue(rest)
        exchange.run(self.gateway.handle(exchange))

    # -- the body -----------------------------------------------------------------------------------------------------

    def _open_body(self, exchange: Exchange, fields: RequestFields, rest: bytes) -> Fault | None:
        exchange.body = []
        exchange.request_complete = False
        limit = self.gateway.limits.body
        if limit is not None and (fields.length or 0) > limit:
            return BODY_TOO_LARGE(f"The request body is larger than {limit} bytes.")
        self._left = fields.length or 0
        self._decoder = None
        if fields.chunked:
            self._decoder = chunked.ChunkedDecoder(self.gateway.limits.head, self.gateway.limits.headers)
        self._state = _CONTENT[self._state]
        self._pace = None
        if fields.expect_continue:
            self.arm(self.gateway.timeouts.body_idle)  # it waits for a 100, which may take the target a while
        else:
            self._await_body()
        return self._take_body(exchange, rest) if rest else None

    def _read_body(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        fault = self._take_body(exchange, data)
        if fault is not None:
            self._state = _WHOLE[self._state]
            exchange.post(fault)

    def _take_body(self, exchange: Exchange, data: bytes) -> Fault | None:
        """Hand the body in `data` to the exchange; give what is wrong with it, if anything is."""
        if self._decoder is not None:
            return self._take_chunked(exchange, self._decoder, data)
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            self._hand(exchange, data)
            return None
        self._left = 0
        if len(data) > left:
            self._queue(data[left:])  # before anybody can answer and look for it
        self._end_body(exchange, data[:left], b"")
        return None

    def _take_chunked(self, exchange: Exchange, decoder: chunked.ChunkedDecoder, data: bytes) -> Fault | None:
        try:
            pieces = decoder.feed(data)
        except chunked.ChunkedError as error:
            return BAD_REQUEST(f"The request body is not in the chunked coding: {error}")
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        limit = self.gateway.limits.body
        if limit is not None and exchange.bytes_in + len(piece) > limit:
            return BODY_TOO_LARGE(f"The request body is larger than {limit} bytes.")
        if decoder.done:
            self._decoder = None
            if decoder.rest:
                self._queue(decoder.rest)
            self._end_body(exchange, piece, decoder.trailers)
        elif piece:
            self._hand(exchange, piece)
        return None

    def _hand(self, exchange: Exchange, piece: bytes) -> None:
        if not exchange.upload(piece):
            self.pause_body()

    def _end_body(self, exchange: Exchange, piece: bytes, trailers: bytes) -> None:
        self._state = _WHOLE[self._state]
        if not self._write_paused:
            self.deadline = NEVER
        if piece:
            self._hand(exchange, piece)
        exchange.upload_complete(trailers)
        self.resume_body()  # to notice if the client leaves

    def pause_body(self) -> None:
        """Read no more until there is room where the body goes."""
        if self._state == _BODY and not self._paused_for:
            self._pause()

    def invite_body(self, exchange: Exchange) -> None:
        """Read on; a client that waits for a 100 gets ours, once (RFC 9110 §10.1.1)."""
        self.resume_body()
        fields = exchange.fields
        if fields is not None and fields.expect_continue and not exchange.continued:
            exchange.continued = True
            self.transport.write(_CONTINUE)
            self._await_body()

    def resume_body(self) -> None:
        """Read on."""
        if self._paused_for:
            self._paused_for = 0
            if self._pace is not None and self._state == _BODY:
                self._pace.go(self.gateway.wheel.now)
                self._arm_body(self._pace)
            self.gateway.hangups.forget(self.transport)
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def _pause(self) -> None:
        self._paused_for = 1
        if self._pace is not None and self._state == _BODY:
            self._pace.stop(self.gateway.wheel.now)
        self.transport.pause_reading()
        self.gateway.hangups.watch(self.transport)

    def _queue(self, data: bytes) -> None:
        """Keep what is pipelined behind the running exchange; past the limit the client has to wait."""
        self._buffer += data
        if len(self._buffer) > _PIPELINE_LIMIT and not self._paused_for:
            self._pause()

    # -- the way back -------------------------------------------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        """Whether nobody listens any more."""
        return self.transport.is_closing()

    def send_interim(self, head: ResponseHead) -> None:
        """Send a 1xx."""
        self.transport.write(informational_head(head))

    def respond(self, x: Exchange, response: ResponseHead, pieces: Sequence[bytes], *, complete: bool) -> None:
        """Send a final head and what there is of its content."""
        persists = framing.client_persists(x) and not self.gateway.clients.draining
        lines = b"" if response.dated else b"\r\n" + date_line()  # RFC 9110 §6.6.1
        self._chunked_out = False
        if not (response.plain and persists and x.request_complete) or x.old:
            persists = persists and not framing.ends_connection(x, response)
            self._chunked_out = framing.sends_chunks(x, response)
            lines += framing.framing_lines(x, response, chunked_body=self._chunked_out, keep_alive=persists)
            if response.event_stream:
                keep_alive(self.transport)
        self._persists = persists
        head = response_head(response, x.request_id, lines)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(body) > _COPY_LIMIT:
            self.transport.write(head)
            self.send_body(x, (body,))
            if complete:
                self.end_body(b"")
            return
        # What is small goes out in one write: a system call costs as much as all of our parsing.
        x.bytes_out += len(body)
        if not self._chunked_out:
            self.transport.write(head + body if body else head)
            return
        head += chunked.encode(body) if body else b""
        self.transport.write(head + chunked.END if complete else head)

    def reply(self, x: Exchange, reply: Reply) -> None:
        """Send an answer of the gateway's own."""
        ends = self.gateway.clients.draining or (x.fault is not None and x.fault.failure.ends_connection)
        self._persists = framing.client_persists(x) and x.request_complete and not ends
        with_body = x.method != b"HEAD"
        x.bytes_out = len(reply.body) if with_body else 0
        hop = framing.connection_lines(x, keep_alive=self._persists)
        self.transport.write(build(reply, with_body=with_body, hop=hop))

    def send_body(self, exchange: Exchange, pieces: Sequence[bytes]) -> None:
        """Send content of the response."""
        transport = self.transport
        for piece in pieces:
            exchange.bytes_out += len(piece)
            if not self._chunked_out:
                transport.write(piece)
            elif len(piece) <= _COPY_LIMIT:
                transport.write(chunked.encode(piece))
            else:
                transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))

    def end_body(self, trailers: bytes) -> None:
        """End the response body, with a block of trailers where they can be sent."""
        if self._chunked_out:
            self.transport.write(chunked.LAST_CHUNK + trailers[2:] + b"\r\n\r\n" if trailers else chunked.END)

    def finish(self) -> None:
        """End the exchange; what follows on this connection is the next request, or its end."""
        exchange, self.exchange = self.exchange, None
        if self._state >= _CLOSED or self.transport.is_closing():
            if self._state == _TUNNEL:
                self.gateway.clients.disconnected(self)
            return
        if not self._persists or not (exchange is None or exchange.request_complete):
            self._hang_up(complete=exchange is None or exchange.request_complete)
            return
        self._state = _NEXT[self._state]
        if self._write_paused:
            return  # the deadline is that of writing; reading and the next request wait for `resume_writing`
        gateway = self.gateway
        self.deadline = gateway.wheel.now + gateway.clients.idle_seconds  # `arm`, without the call
        if self.deadline < self.visit:
            gateway.wheel.watch(self)
        if self._buffer:
            self._stand_in_line()
        elif self._paused_for:
            self.resume_body()

    def cut(self, *, reset: bool = False) -> None:
        """End the connection without a clean end, so that a cut body never looks whole.

        `reset` is for a body that the end of the connection would complete: a FIN would be its clean end.
        """
        self.exchange = None
        self._state = _CLOSED
        if reset:
            reset_when_closed(self.transport)
        self.transport.abort()

    def close(self) -> None:
        """Close once what was written has been sent, for as long as the client goes on taking it."""
        if self._state != _CLOSED:
            self._state = _CLOSED
            if self.transport.get_write_buffer_size():
                self._watch_writing()
            self.transport.close()

    def drain(self) -> None:
        """Close an idle connection after a moment, in which a request that is under way may still come."""
        if self._state == _IDLE:
            self.arm(self.gateway.clients.idle_seconds)

    def join(self, x: Exchange, response: ResponseHead, connection: ServerConnection, idle: float) -> Tunnel:
        """Send a 101 and leave the transport to a tunnel, with what has come already behind the request."""
        gateway = self.gateway
        hop = b"\r\nConnection: Upgrade\r\nUpgrade: " + (response.upgrade or b"")
        self.transport.write(response_head(response, x.request_id, hop))
        self._state = _SWITCH[self._state]
        if self.private is not None:
            self.private.close()
        self.deadline = NEVER
        gateway.wheel.forget(self)
        gateway.hangups.forget(self.transport)
        early, self._buffer = self._buffer, b""
        tunnel = Tunnel(
            self.transport,
            connection.transport,
            websocket=b"websocket" in protocols(response.upgrade or b""),
            idle=idle,
            wheel=gateway.wheel,
            hangups=gateway.hangups,
            ended=lambda: x.post(Event.ENDED),
            write_idle=gateway.timeouts.write_idle,
        )
        keep_alive(self.transport)
        keep_alive(connection.transport)
        tunnel.open(early, connection.become_tunnel())
        return tunnel

    def private_connections(self) -> Owner:
        """Give what holds the connections to targets that only this client may use."""
        if self.private is None:
            self.private = PrivateConnections()
        return self.private

    def _stand_in_line(self) -> None:
        """Queue what is in the buffer for a later turn of the loop."""
        self._state = _WAIT[self._state]
        self._came = time.monotonic()
        self.deadline = NEVER
        self.gateway.admission.join(self)

    def take_turn(self) -> None:
        """Begin the request that stood in line, if the client is still there."""
        if self._state == _IN_LINE:
            self._state = _TURN[self._state]
            data, self._buffer = self._buffer, b""
            self.resume_body()
            self._read_head(data)
            if self._state != _IN_LINE:  # again, with what is pipelined behind
                self._came = 0.0

    def _hang_up(self, *, complete: bool) -> None:
        """Close; if the client may still be sending, end our side first and read on a little (RFC 9112 §9.6)."""
        if complete and not self._buffer:
            self.close()
            return
        self._state = _LAST[self._state]
        self._buffer = b""
        self.resume_body()
        self.arm(_LINGER_SECONDS)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _leave(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None and self._state != _TUNNEL:
            exchange.post(_GONE)
