"""A connection to a target: requests out, responses in, and what speaks against using it again.

After a response, a connection with a byte too many, or readable while idle, is destroyed: reused, it would answer the
next request with the last one's bytes, whoever sent it.
"""

import asyncio
import contextlib
import fcntl
import os
import select
import ssl
import termios
import time
from collections.abc import Callable
from typing import Final, Protocol, cast

from devhost_server.failures import (
    READ_TIMEOUT,
    RESPONSE_TIMEOUT,
    UPSTREAM_HEAD_SIZE,
    UPSTREAM_INCOMPLETE,
    UPSTREAM_PROTOCOL,
    UPSTREAM_RESET,
    Fault,
)
from devhost_server.messages import chunked, reuse
from devhost_server.messages.fields import is_clean
from devhost_server.messages.response_head import ResponseHead, parse_response
from devhost_server.messages.reuse import Reason
from devhost_server.sockets import goodbye
from devhost_server.sockets.resets import reset_when_closed
from devhost_server.states import row
from devhost_server.timing.deadlines import NEVER, Wheel
from devhost_server.upstream.caller import Caller, Event, Owner
from devhost_server.upstream.http1_states import TRANSITIONS, Cue, State
from devhost_server.upstream.options import PoolOptions, UpstreamTimeouts

# Bounds of a response head. Envoy allows 60 KiB and 100 lines, Go 1 MiB, nginx 4 to 8 KiB; twice what we take from a
# client leaves room for applications that set many cookies.
_HEAD_LIMIT: Final = 128 * 1024
_LINES_LIMIT: Final = 512
# RFC 9110 §15.2 sets no bound to interim responses; a handful is real, more is a fault or an attack.
_INTERIM_LIMIT: Final = 32
_WRITE_HIGH: Final = 128 * 1024
_COPY_LIMIT: Final = 16 * 1024
_RESCUE_BYTES: Final = 256 * 1024
# How much of TLS is taken in while reading is paused, beyond the one read that goes over it.
_TLS_READ_HIGH: Final = 64 * 1024
# Chunks in one read beyond which the rest has to wait until everybody else has had a turn.
_DENSE: Final = 4096
# Heads up to this size are remembered, unless they hold a cookie: secrets are not kept longer than they are needed.
_KNOWN_LIMIT: Final = 2048

# RFC 8446 §5.1: the beginning of a TLS record with an alert, which is how some servers answer plain HTTP.
_TLS_ALERT: Final = b"\x15\x03"

_IDLE, _HEAD, _BODY, _DONE, _TUNNEL, _CLOSED = map(int, State)
# What each cue makes of a state (see `http1_states`).
_BEGIN: Final = row(TRANSITIONS, Cue.BEGIN)
_FINAL_HEAD: Final = row(TRANSITIONS, Cue.FINAL_HEAD)
_WHOLE: Final = row(TRANSITIONS, Cue.WHOLE)
_END: Final = row(TRANSITIONS, Cue.END)
_DETACH: Final = row(TRANSITIONS, Cue.DETACH)
_SWITCH: Final = row(TRANSITIONS, Cue.SWITCH)
_NO_BODY, _LENGTH, _CHUNKED, _UNTIL_CLOSE = range(4)


class Home(Protocol):
    """The pool that a connection belongs to, as the connection sees it."""

    options: PoolOptions
    timeouts: UpstreamTimeouts
    # The last response head with its empty line, and what it says; the connections read and write it.
    known_head_text: bytes
    known_head: ResponseHead | Fault

    @property
    def address(self) -> str:
        """Where the server is."""

    def gone(self, connection: "ServerConnection") -> None:
        """Note that a connection has been closed, by whichever side."""

    def set_apart(self, connection: "ServerConnection") -> None:
        """Free the room of a connection that carries an event stream."""


class ServerConnection(asyncio.Protocol):
    """One connection to a target. `deadline` and `visit` belong to the wheel (`timing.deadlines`)."""

    __slots__ = (
        "_began",
        "_buffer",
        "_chunked_out",
        "_decoder",
        "_descriptor",
        "_framing",
        "_idle_seconds",
        "_interim",
        "_left",
        "_partial",
        "_paused",
        "_sent_body",
        "_silence",
        "_spare",
        "_state",
        "_tls",
        "_wheel",
        "_write_paused",
        "apart",
        "caller",
        "deadline",
        "head_seconds",
        "look",
        "owner",
        "pool",
        "reasons",
        "served",
        "timeouts",
        "transport",
        "visit",
    )

    def __init__(self, pool: Home, wheel: Wheel) -> None:
        self.pool = pool
        self.timeouts = pool.timeouts  # of the exchange that it carries
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set by connection_made, before any use
        self.caller: Caller | None = None
        self.deadline = NEVER
        self.visit = NEVER
        self.reasons = 0  # that speak against using it again (see `reuse`)
        self.owner: Owner | None = None  # of the only client whose requests it may carry
        self._descriptor = -1
        self._tls: ssl.SSLObject | None = None
        self._spare = -1  # a second descriptor, which is there while a body is sent over TLS
        self.look: Callable[[int], object] = _nothing_to_read
        self.head_seconds = 0.0  # how long the last answer took to begin
        self.served = 0  # requests begun on it
        self.apart = False  # it carries an event stream, and takes up no room in the pool
        self._wheel = wheel
        self._state = _IDLE
        self._began = 0.0  # when the last request was sent, in monotonic seconds
        self._chunked_out = False  # its body goes in the chunked coding
        self._sent_body = False  # something of its body has been sent
        self._buffer = b""  # behind a 101
        self._partial = bytearray()  # of a response head
        self._framing = _NO_BODY
        self._left = 0
        self._decoder: chunked.ChunkedDecoder | None = None
        self._interim = 0
        self._paused = False
        self._idle_seconds = pool.options.idle_expiry  # how long it may be idle, which an answer can shorten
        self._silence = 0.0  # how long an unfinished body may say nothing
        self._write_paused = False

    def __repr__(self) -> str:
        state = State(self._state).name.lower()
        against = f": {reuse.sentences(self.reasons)}" if self.reasons else ""
        return f"<ServerConnection {self.pool.address} {state} served={self.served}{against}>"

    # -- the transport's calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self._tls = goodbye.tls_of(transport)
        if self._tls is not None:
            transport.set_read_buffer_limits(high=_TLS_READ_HIGH)  # type: ignore[attr-defined]
        sock = transport.get_extra_info("socket")
        if sock is not None:
            # Registered once and for all: then a look costs one system call, and poll(2) is the cheapest there is.
            self._descriptor = sock.fileno()
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            self.look = poll.poll

    def data_received(self, data: bytes) -> None:
        """Read a response; anything that comes when none is awaited makes the connection useless."""
        state = self._state
        if state == _BODY:
            self._read_body(data)
        elif state == _HEAD:
            self._read_head(data)
        else:
            self.reasons |= Reason.SURPLUS
            self.destroy()

    def eof_received(self) -> bool | None:
        """Treat the end of what the target sends: the end of a response, or of the connection."""
        clean = True
        if self._tls is not None and self._state == _BODY and self._framing == _UNTIL_CLOSE:
            # asyncio takes a FIN without close_notify for an end as well.
            clean = goodbye.remains(self._tls)[1]
        self._lost(None, clean=clean)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the loss to an exchange that does not have its whole response."""
        try:
            clean = False
            if self._tls is not None:
                clean = self._rescue_tls(self._tls)
            elif exc is not None and self._state == _HEAD:
                self._rescue()
            self._lost(exc, clean=clean)
        finally:  # whatever went wrong: what is gone takes up no room
            self._close_spare()
            self._state = _CLOSED
            self._wheel.forget(self)
            self.pool.gone(self)

    def pause_writing(self) -> None:
        """Pause the client until the target has taken what was sent."""
        self._write_paused = True
        if self.caller is not None:
            self.caller.pause_upload()

    def resume_writing(self) -> None:
        """Resume the client."""
        self._write_paused = False
        if self.caller is not None:
            self.caller.resume_upload()

    # -- what an exchange asks for ------------------------------------------------------------------------------------

    def begin(
        self,
        caller: Caller,
        head: bytes,
        timeouts: UpstreamTimeouts | None = None,
        reasons: int = 0,
        *,
        chunked_body: bool = False,
    ) -> None:
        """Send the head of a request; from now on what comes is its response.

        `timeouts` are those of a route that has its own; `reasons` are what the request leaves on the connection;
        `chunked_body` says that the head announces a body in the chunked coding.
        """
        self.caller = caller
        if timeouts is None:
            timeouts = self.pool.timeouts
        self.timeouts = timeouts
        if reasons:
            self._note(reasons, caller)
        self.served += 1
        self._state = _BEGIN[self._state]
        self._interim = 0
        self._chunked_out = chunked_body
        self._sent_body = False
        self._began = time.monotonic()
        wheel = self._wheel
        self.deadline = wheel.now + timeouts.response
        if self.deadline < self.visit:
            wheel.watch(self)
        self.transport.write(head)

    def _note(self, reasons: int, caller: Caller) -> None:
        """Note reasons against using the connection again."""
        self.reasons |= reasons
        if reasons & reuse.PRIVATE and self.owner is None:
            self.owner = caller.owner()

    def send_body(self, piece: bytes) -> None:
        """Send a piece of the request body, framed as the head announced it."""
        if self.caller is None or self.transport.is_closing():
            return
        self._sent_body = True
        if self._state == _HEAD:
            self._arm(self.timeouts.response)
        if self._tls is not None and self._spare < 0 and self._descriptor >= 0:
            self._open_spare()
        if not self._chunked_out:
            self.transport.write(piece)
        elif len(piece) <= _COPY_LIMIT:
            self.transport.write(chunked.encode(piece))
        else:
            self.transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))

    def end_body(self, trailers: bytes) -> None:
        """End the request body, with a block of trailers if it is chunked."""
        if self.caller is None or self.transport.is_closing():
            return
        if self._chunked_out:
            end = chunked.LAST_CHUNK + trailers[2:] + b"\r\n\r\n" if trailers else chunked.END
            self.transport.write(end)

    def pause_reading(self) -> None:
        """Take nothing more from the target until `resume_reading`."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    @property
    def doing(self) -> str:
        """What the connection is in use for, for people."""
        if self.caller is None:
            return "idle"
        if not self.caller.request_complete:
            return "upload"
        return "wait" if self._state == _HEAD else "answer"

    @property
    def congested(self) -> bool:
        """Whether the target does not take what is sent to it."""
        return self._write_paused

    @property
    def heard(self) -> bool:
        """Whether anything of an answer has come since the last request was sent."""
        return self._interim > 0 or bool(self._partial)

    def detach(self) -> int:
        """Part from the caller; return the reasons against using the connection again, 0 for none.

        One that can be used lives until it has been idle too long.
        """
        self.caller = None
        decoder, self._decoder = self._decoder, None  # its trailers may be large
        if self._spare >= 0:
            self._close_spare()
        reasons = self.reasons
        if self._state != _DONE or self.transport.is_closing():
            self.reasons = reasons = reasons | Reason.UNFINISHED
        if reasons and reuse.ends(reasons):
            self.deadline = NEVER
            return reasons
        self._state = _DETACH[self._state]
        if self._paused:
            self.resume_reading()
            if self._tls is not None:
                reasons |= Reason.HELD  # what TLS has taken in meanwhile is seen by no look at the socket
        self.deadline = self._wheel.now + self._idle_seconds
        if self.deadline < self.visit:
            self._wheel.watch(self)
        if self._framing == _NO_BODY or (decoder is not None and decoder.empty):
            reasons |= Reason.BARE
        return reasons

    @property
    def usable(self) -> bool:
        """Whether an idle connection may be used now: nothing has come that was not asked for, nor its end.

        The event loop tells of what comes with its next turn; this looks at what has come since the last.
        """
        return not self.transport.is_closing() and not self.look(0)

    @property
    def is_private(self) -> bool:
        """Whether it carries what authenticates one client."""
        return bool(self.reasons & reuse.PRIVATE)

    def rest(self) -> None:
        """Wait in the pool for a first request."""
        self._arm(self.pool.options.idle_expiry)

    def destroy(self) -> None:
        """Close at once."""
        self._state = _CLOSED
        self.transport.abort()

    def discard(self) -> None:
        """Close at once after an exchange that is over, so that no port waits for bytes that may still be under way.

        Where every request ends its connection, the minute that TCP waits after a FIN would use up all ports.
        """
        reset_when_closed(self.transport)
        self.destroy()

    def become_tunnel(self) -> bytes:
        """Leave the transport to a tunnel; give what has come already behind the response head."""
        self._state = _SWITCH[self._state]
        self.deadline = NEVER
        self._wheel.forget(self)
        early, self._buffer = self._buffer, b""
        return early

    # -- deadlines ----------------------------------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        self.deadline = self._wheel.now + seconds
        if self.deadline < self.visit:
            self._wheel.watch(self)

    def expire(self, now: float) -> None:
        """Act on a passed deadline according to what the target was to do."""
        self.deadline = NEVER
        caller = self.caller
        if caller is None:
            self.destroy()
        elif self._state == _HEAD:
            if not caller.request_complete and not self._write_paused:
                self._arm(self.timeouts.response)  # it is the client that keeps us waiting
                return
            seconds = self.timeouts.response
            caller.post(RESPONSE_TIMEOUT(f"The target accepted the request but sent no answer within {seconds:g} s."))
        elif self._state == _BODY:
            if self._paused:
                self._arm(self._silence)  # it is the client that does not read
                return
            caller.post(READ_TIMEOUT(f"The target sent nothing for {self._silence:g} s in the middle of its answer."))

    # -- the response head --------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        if self._partial:
            seen = len(self._partial)
            self._partial += data
            if self._partial.find(b"\r\n\r\n", max(seen - 3, 0)) < 0:
                self._judge_partial(seen)
                return
            data = bytes(self._partial)
            self._partial.clear()
        while self._state == _HEAD:
            pool = self.pool
            if data.startswith(pool.known_head_text):
                head: ResponseHead | Fault = pool.known_head
                end = len(pool.known_head_text) - 4
            else:
                end = data.find(b"\r\n\r\n")
                if end < 0 or end > _HEAD_LIMIT:
                    self._partial += data
                    self._judge_partial(0)
                    return
                head = self._analyse(data[:end])
            if isinstance(head, Fault):
                self._fail(head)
                return
            data = data[end + 4 :]
            if head.status >= 200:
                self._open_body(head, data)
                return
            if not self._interim_response(head, data):
                return

    def _analyse(self, text: bytes) -> ResponseHead | Fault:
        """Find out what a head says, and remember it: within a second, a target says the same over and over."""
        line_end = text.find(b"\r\n")
        if line_end < 0:
            line_end = len(text)
        block = text[line_end:]
        if len(block) > _HEAD_LIMIT // 8 and block.count(b"\r\n") > _LINES_LIMIT:
            return UPSTREAM_HEAD_SIZE(f"The answer has more than {_LINES_LIMIT} header lines.")
        head = parse_response(text[:line_end], block)
        if isinstance(head, ResponseHead) and len(text) <= _KNOWN_LIMIT and b"cookie" not in text.lower():
            self.pool.known_head_text, self.pool.known_head = text + b"\r\n\r\n", head
        return head

    def _judge_partial(self, seen: int) -> None:
        """Refuse a head that has not fully come, and never will as it should; `seen` of its bytes have been judged."""
        if len(self._partial) > _HEAD_LIMIT:
            self._fail(UPSTREAM_HEAD_SIZE(f"The answer's head is larger than {_HEAD_LIMIT} bytes."))
        elif self._partial.startswith(_TLS_ALERT):
            self._fail(UPSTREAM_PROTOCOL("The target answered in TLS: write https:// to speak to it."))
        elif not b"HTTP/1.".startswith(self._partial[:7]) or not is_clean(self._partial, max(seen - 1, 0)):
            self._fail(UPSTREAM_PROTOCOL("The answer does not begin as HTTP/1.1 does."))

    def _interim_response(self, head: ResponseHead, rest: bytes) -> bool:
        """Act on a 1xx; True if the final response is still awaited."""
        caller = self.caller
        if caller is None:
            return False
        if head.status == 101:
            self._buffer = rest
            caller.answered(head, (), time.monotonic() - self._began, complete=False)
            return False
        self._interim += 1
        if self._interim > _INTERIM_LIMIT:
            self._fail(UPSTREAM_PROTOCOL(f"The target sent over {_INTERIM_LIMIT} interim answers and no final one."))
            return False
        caller.interim(head)
        return True

    def _open_body(self, head: ResponseHead, rest: bytes) -> None:
        """Decide how the body is framed (RFC 9112 §6.3), take what has come of it, and tell the caller."""
        caller = self.caller
        if caller is None:
            return
        self.head_seconds = seconds = time.monotonic() - self._began
        if (
            head.plain
            and len(rest) == head.length
            and caller.request_complete
            and not self._sent_body
            and caller.method != b"HEAD"
        ):
            # Nearly every answer comes like this: head and body in one piece, and nothing behind.
            self._framing = _LENGTH
            self._state = _WHOLE[self._state]
            caller.answered(head, (rest,), seconds, complete=True)
            return
        if head.reasons or head.idle_seconds is not None:
            self._heed(head, caller)
        if not caller.request_complete or (self._sent_body and self._unsent()):
            self.reasons |= Reason.EARLY  # the target may never read the rest
        self._state = _FINAL_HEAD[self._state]
        self._frame(head, has_content=head.allows_body(caller.method))
        pieces = self._decode(rest)
        if isinstance(pieces, Fault):
            self._fail(pieces)
            return
        if self._state == _BODY:
            self._await_more(head)
        caller.answered(head, pieces, seconds, complete=self._state == _DONE)

    def _frame(self, head: ResponseHead, *, has_content: bool) -> None:
        """Decide where the body ends."""
        if not has_content or head.length == 0:
            self._framing = _NO_BODY
        elif head.chunked:
            self._framing = _CHUNKED
            self._decoder = chunked.ChunkedDecoder(_HEAD_LIMIT, _LINES_LIMIT, padded=True)
        elif head.length is not None:
            self._framing = _LENGTH
            self._left = head.length
        else:
            self._framing = _UNTIL_CLOSE
            self.reasons |= Reason.CLOSE

    def _heed(self, head: ResponseHead, caller: Caller) -> None:
        """Note what a head means for using the connection again, and how soon that has to be."""
        if head.reasons:
            self._note(head.reasons, caller)
        if head.idle_seconds is not None:
            self._idle_seconds = min(head.idle_seconds, self.pool.options.idle_expiry)

    def _await_more(self, head: ResponseHead) -> None:
        self._silence = self.timeouts.tunnel_idle if head.event_stream else self.timeouts.read_idle
        self._arm(self._silence)
        if head.event_stream:
            self.pool.set_apart(self)

    # -- the response body --------------------------------------------------------------------------------------------

    def _read_body(self, data: bytes) -> None:
        caller = self.caller
        if caller is None:
            self.destroy()
            return
        pieces = self._decode(data)
        if isinstance(pieces, Fault):
            caller.post(pieces)
            return
        if pieces:
            caller.content(pieces)
        if self._state == _DONE:
            caller.post(Event.FINISHED)
        else:
            self._arm(self._silence)

    def _decode(self, data: bytes) -> list[bytes] | Fault:
        """Return the content in `data`; the state is `_DONE` once the body has ended."""
        if self._framing == _LENGTH:
            return self._decode_length(data)
        if self._framing == _CHUNKED:
            return self._decode_chunked(data)
        if self._framing == _UNTIL_CLOSE:
            return [data] if data else []
        self._done(data)
        return []

    def _decode_length(self, data: bytes) -> list[bytes]:
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return [data] if data else []
        self._left = 0
        if len(data) == left:
            self._done(b"")
            return [data] if data else []
        self._done(data[left:])
        return [data[:left]] if left else []

    def _decode_chunked(self, data: bytes) -> list[bytes] | Fault:
        decoder = self._decoder
        if decoder is None or not data:
            return []
        try:
            pieces = decoder.feed(data)
        except chunked.ChunkedError as error:
            return UPSTREAM_PROTOCOL(f"The answer's body is not in the chunked coding: {error}")
        if decoder.done:
            self._done(decoder.rest)
        elif len(pieces) > _DENSE:
            self._give_way()
        # Small chunks are put together: framed anew each for itself, they would cost a write each.
        return pieces if len(pieces) < 2 else [b"".join(pieces)]

    def _give_way(self) -> None:
        """Read on with the loop's next turn: a loop reads on from one connection for as long as there is something."""
        self.transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _done(self, surplus: bytes) -> None:
        self._state = _END[self._state]
        self.deadline = NEVER
        if surplus:
            self.reasons |= Reason.SURPLUS

    @property
    def trailers(self) -> bytes:
        """The trailers of a response that has ended, as a block."""
        return self._decoder.trailers if self._decoder is not None and self._framing == _CHUNKED else b""

    # -- the end ------------------------------------------------------------------------------------------------------

    def _fail(self, fault: Fault) -> None:
        self.reasons |= Reason.UNFINISHED
        self.deadline = NEVER
        if self.caller is not None:
            self.caller.post(fault)

    def _lost(self, exc: Exception | None, *, clean: bool) -> None:
        """Say what the end of the connection means to the caller, the first time it is noticed.

        `clean` says that the target has ended what it sends: by a FIN, over TLS by close_notify. A connection that is
        merely gone has been cut, by whoever (RFC 9112 §9.8).
        """
        state, self._state = self._state, _CLOSED
        self.reasons |= Reason.CLOSE
        caller = self.caller
        if caller is None:
            return
        if state == _BODY and self._framing == _UNTIL_CLOSE and clean:
            self._state = _END[state]
            caller.post(Event.FINISHED)
        elif state == _BODY:
            caller.post(UPSTREAM_INCOMPLETE("The target closed the connection before its answer was complete."))
        elif state == _HEAD and self._interim:
            caller.post(UPSTREAM_INCOMPLETE("The target sent an interim answer and closed without a final one."))
        elif state == _HEAD:
            how = "reset" if exc is not None else "closed"
            begun = " in the middle of its head" if self._partial else " without an answer"
            caller.post(UPSTREAM_RESET(f"The target {how} the connection{begun}."))

    def _unsent(self) -> bool:
        """Whether the target's kernel has not confirmed all that was written to it.

        An answer confirms what had come by then, so what is left over really was not there when it was made.
        """
        if self.transport.get_write_buffer_size():
            return True
        if self._descriptor < 0 or self.transport.is_closing():
            return False
        try:
            queued = fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return False
        return queued != b"\0\0\0\0"

    def _rescue(self) -> None:
        """Read what the target sent before it reset the connection.

        A target that refuses a large upload (413) answers and closes with our bytes unread. The reset that follows
        makes our next write fail, and the transport gives up without reading; the kernel still has the answer.
        """
        socket = self.transport.get_extra_info("socket")
        if socket is None:
            return
        try:
            data = os.read(socket.fileno(), _RESCUE_BYTES)
        except OSError:
            return
        if data:
            self._read_head(data)

    def _rescue_tls(self, tls: ssl.SSLObject) -> bool:
        """Read what has come of an answer and was not read before the end; return whether the end was a proper one."""
        if self._state not in (_HEAD, _BODY):
            return False
        if self._spare >= 0 and self._state == _HEAD:
            goodbye.read_on(self.transport, self._spare)
        data, clean = goodbye.remains(tls)
        if data:
            self.data_received(data)
        return clean

    def _open_spare(self) -> None:
        """Keep the socket open beyond its transport, which closes it before we hear of a reset."""
        with contextlib.suppress(OSError):
            self._spare = os.dup(self._descriptor)

    def _close_spare(self) -> None:
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)


def _nothing_to_read(_milliseconds: int) -> object:
    """Look at a transport that has no socket, as those of the benchmarks."""
    return None
