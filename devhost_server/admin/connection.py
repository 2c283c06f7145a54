"""A connection to the admin listener: uvicorn's, with bounds on what a stranger can make it hold.

uvicorn reads heads of any length for any time, and keeps what a client does not read. Before a token is looked at, that
is anybody's to use, so here everything has a bound: heads and bodies in size and time, requests in line, connections in
all and of one peer, answers that nobody takes.

Connections beyond the bound push out those that have waited longest without a whole request: whoever asks something is
served however many others ask nothing.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from devhost_server.admin.replies import problem_bytes

# How much is given to the parser at once: the head may be longer than its bound by so much before that is noticed.
_SLICE: Final = 4096
_SEND_BUFFER: Final = 128 * 1024
# How often slow readers are looked at (seconds), and how many bytes one must take meanwhile to count as reading.
_LOOK: Final = 1.0
_LEAST_READ: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """Sizes in bytes, times in seconds. The precedents are the public listener's defaults, some of them smaller."""

    head: int = 16 * 1024
    target: int = 8 * 1024
    fields: int = 100
    body: int = 1024 * 1024
    pipelined: int = 32  # requests that wait in line on a connection
    head_time: float = 10.0
    body_time: float = 10.0
    write_time: float = 60.0  # for an answer of more than the 64 KiB that the transport takes at once
    linger: float = 1.0  # how long is read on after a refusal, so that the client gets to read it
    connections: int = 512
    connections_of_peer: int = 128
    unsent: int = 32 * 1024 * 1024  # of all answers together
    tasks: int = 1024


class _Refused(Exception):  # noqa: N818 -- not an error but the way out of the parser
    """Ends the parsing: the request is refused."""


class _State(Enum):
    """What a connection is waiting for."""

    IDLE = "the first byte of a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    ANSWERING = "nothing: the request is whole"
    REFUSED = "the client to leave"


class AdminConnection(HttpToolsProtocol):
    """One connection. `bounds` are shared by all of a listener."""

    transport: asyncio.Transport

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], *, bounds: Bounds, **rest: Any
    ) -> None:
        super().__init__(config, server_state, app_state, **rest)
        self._bounds = bounds
        self._state = _State.IDLE
        self._head = self._body = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._slow: asyncio.TimerHandle | None = None
        self.waiting_since = self.loop.time()
        self._paused_at = 0.0
        self._unsent = self._dropped = 0
        self.peer = ""

    # -- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many that cannot be pushed out."""
        super().connection_made(transport)
        self.peer = peer_group(self.client)
        # Else the kernel takes megabytes of an answer that nobody reads.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._wait_for(_State.IDLE, self._bounds.head_time)
        self._state = _State.IDLE
        if not self._has_room():
            self._refuse(503, "The admin listener has as many connections as it takes.")

    def _has_room(self) -> bool:
        mine = [other for other in self._everybody() if self.peer and other.peer == self.peer]
        return (
            len(self.tasks) < self._bounds.tasks
            and self._push_out(mine, self._bounds.connections_of_peer)
            and self._push_out(self._everybody(), self._bounds.connections)
        )

    def _everybody(self) -> list["AdminConnection"]:
        return [other for other in self.connections if isinstance(other, AdminConnection)]

    def _push_out(self, group: list["AdminConnection"], most: int) -> bool:
        """Bring a group down to `most` by aborting whoever has waited longest for a request; return whether it is."""
        excess = max(len(group) - most, 0)
        waiting = [other for other in group if other is not self and other.is_waiting]
        for other in sorted(waiting, key=lambda other: other.waiting_since)[:excess]:
            other.cut()
        return len(waiting) >= excess

    @property
    def is_waiting(self) -> bool:
        """Whether there is no whole request that is being answered."""
        return self._state is not _State.ANSWERING and (self.cycle is None or self.cycle.response_complete)

    def cut(self) -> None:
        """End the connection at once."""
        self.connections.discard(self)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was being waited for."""
        self._stop_waiting()
        self._unset_keepalive_if_required()
        self._stop_looking()
        self.pipeline.clear()
        super().connection_lost(exc)

    # -- reading ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Feed what came to the parser, in pieces, and refuse what goes beyond a bound."""
        if self._state is _State.REFUSED:
            self._drop(len(data))
            return
        self._unset_keepalive_if_required()
        if self._state is _State.IDLE:
            self._wait_for(_State.HEAD, self._bounds.head_time)
        try:
            for at in range(0, len(data), _SLICE):
                piece = data[at : at + _SLICE]
                self.parser.feed_data(piece)
                self._count_head(len(piece))
        except httptools.HttpParserUpgrade:
            # It is answered as if it had not asked for another protocol; what follows may be that protocol.
            self._state = _State.REFUSED
            self._stop_waiting()
            self.cycle.keep_alive = False
        except _Refused as refused:
            self._refuse(*refused.args)
        except httptools.HttpParserError as error:
            cause = error.__context__
            status, sentence = cause.args if isinstance(cause, _Refused) else (400, "This is not a valid HTTP request.")
            self._refuse(status, sentence)

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > self._bounds.body:
            self.flow.pause_reading()

    def _count_head(self, size: int) -> None:
        if self._state is _State.HEAD:
            self._head += size
            if self._head > self._bounds.head:
                raise self._too_long()

    def _too_long(self) -> _Refused:
        return _Refused(431, f"The head is longer than {self._bounds.head} bytes.")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._head = self._body = 0
        self._wait_for(_State.HEAD, self._bounds.head_time)

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        super().on_url(url)
        if len(self.url) > self._bounds.target:
            raise _Refused(414, f"The target is longer than {self._bounds.target} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field, of the head or of the trailers."""
        if self._state is _State.BODY:
            return  # trailers say nothing here, and must not end up among the fields of the head
        super().on_header(name, value)
        if len(self.headers) > self._bounds.fields:
            raise _Refused(431, f"The head has more than {self._bounds.fields} fields.")

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the body is too long or too much waits in line already."""
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self._bounds.head:
            raise self._too_long()  # by less than what the parser is given at once
        for name, value in self.headers:
            if name == b"content-length" and int(value) > self._bounds.body:
                raise _Refused(413, f"The body is longer than {self._bounds.body} bytes.")
        if len(self.pipeline) >= self._bounds.pipelined:
            raise _Refused(503, f"More than {self._bounds.pipelined} requests wait in line on this connection.")
        try:
            super().on_headers_complete()
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            raise _Refused(400, "The target of the request is not valid.") from None
        self._wait_for(_State.BODY, self._bounds.body_time)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body += len(body)
        if self._body > self._bounds.body:
            raise _Refused(413, f"The body is longer than {self._bounds.body} bytes.")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._stop_waiting()
        self._state = _State.ANSWERING
        super().on_message_complete()
        if self.cycle.response_complete:
            self._rest()

    def on_response_complete(self) -> None:
        """Wait for the next request, if this one is whole."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._stop_waiting()
            self._deadline = self.loop.call_later(self._bounds.write_time, self.cut)
        if self._state is _State.ANSWERING and not self.pipeline:
            self._rest()

    def _rest(self) -> None:
        self._state = _State.IDLE
        self.waiting_since = self.loop.time()

    # -- deadlines ----------------------------------------------------------------------------------------------------

    def _wait_for(self, state: _State, seconds: float) -> None:
        """Wait for something; what has begun already keeps its deadline."""
        if self._state is state and self._deadline is not None:
            return
        self._stop_waiting()
        self._state = state
        self._deadline = self.loop.call_later(seconds, self._too_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self._state is _State.IDLE:
            self.cut()
        else:
            self._refuse(408, f"The request took too long: what was waited for is {self._state.value}.")

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer and end; what still comes is read and dropped for a moment, or a reset would destroy the answer."""
        may_answer = self._may_answer()
        self._stop_waiting()
        self._state = _State.REFUSED
        self.waiting_since = 0.0  # the first to be pushed out
        if not may_answer:
            self.cut()
            return
        if self.cycle is not None:
            self.cycle.disconnected = True  # what the application may still say is not sent
            self.cycle.message_event.set()
        self.flow.resume_reading()
        self.transport.write(problem_bytes(status, sentence, self.server_state.default_headers))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline = self.loop.call_later(self._bounds.linger, self.cut)

    def _may_answer(self) -> bool:
        """Return whether it is the turn of the request that is being read to be answered, and it has not been yet."""
        cycle = self.cycle
        if self.transport.is_closing() or self.pipeline:
            return False
        if self._state is _State.BODY:
            return not cycle.response_started
        return cycle is None or cycle.response_complete

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that was idle for too long, also if its client has not read the last answer."""
        self.cut()

    # -- writing ------------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Note that the client reads more slowly than it is answered."""
        super().pause_writing()
        if self._slow is None:
            self._paused_at = self.loop.time()
            self._unsent = self.transport.get_write_buffer_size()
            self._slow = self.loop.call_later(_LOOK, self._look_at_reader)

    def resume_writing(self) -> None:
        """Note that it has caught up."""
        self._stop_looking()
        super().resume_writing()

    def _look_at_reader(self) -> None:
        """Cut a client that takes too long, or takes next to nothing while too much is held for all together."""
        before, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        is_late = self.loop.time() - self._paused_at >= self._bounds.write_time
        is_stuck = before - self._unsent < _LEAST_READ
        if is_late or (is_stuck and self._held() > self._bounds.unsent):
            self.cut()
        else:
            self._slow = self.loop.call_later(_LOOK, self._look_at_reader)

    def _held(self) -> int:
        return sum(other.transport.get_write_buffer_size() for other in self._everybody())

    def _stop_looking(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None


def peer_group(client: tuple[str, int] | None) -> str:
    """Return what counts as one peer: an IPv4 address, an IPv6 /64; nothing for a unix socket."""
    if client is None:
        return ""
    try:
        address = ipaddress.ip_address(client[0].partition("%")[0])
    except ValueError:
        return client[0]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped) if mapped else str(ipaddress.ip_network((address, 64), strict=False))


def protocol(bounds: Bounds) -> Callable[..., AdminConnection]:
    """Return what makes a connection within these bounds, in the form that uvicorn calls it."""

    def make(**arguments: Any) -> AdminConnection:
        return AdminConnection(bounds=bounds, **arguments)

    return make
