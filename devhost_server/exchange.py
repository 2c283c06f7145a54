"""The one mutable record of a request: what came, what was decided, what happened, and who waits for what.

An exchange is also the meeting point of the two connections: they post events to it and the gateway's coroutine, which
tells the request's life, waits for them. There is no task and no future in between. Posting an event runs the coroutine
to its next wait there and then, within the parser callback that met the event.
"""

from collections.abc import Coroutine, Generator, Sequence
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

from devhost_server.failures import INTERNAL, Fault
from devhost_server.upstream.caller import Event, Owner

if TYPE_CHECKING:
    from devhost_server.messages.body_buffer import BodyBuffer
    from devhost_server.messages.replies import Reply
    from devhost_server.messages.request_head import RequestFields
    from devhost_server.messages.response_head import ResponseHead
    from devhost_server.messages.trust import Peer
    from devhost_server.route import Route
    from devhost_server.upstream.http1 import ServerConnection
    from devhost_server.upstream.options import UpstreamTimeouts
    from devhost_server.upstream.target import Target
    from devhost_server.upstream.uploads import Uploads

# A body of up to this many bytes is kept until the response begins, so that an idempotent request can be sent again.
# 64 KiB is what nginx holds in memory (client_body_buffer_size is 16k) times four; more would cost memory per request.
REPLAY_LIMIT: Final = 64 * 1024

# RFC 9110 §9.2.2.
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"))


class Tunnel(Protocol):
    """What a request became that was answered by 101: bytes both ways until either side ends (`Event.ENDED`)."""

    bytes_up: int
    bytes_down: int
    was_cut: bool

    @property
    def closing(self) -> bool:
        """Whether the client has been told that the gateway goes away."""

    def close_going_away(self) -> bool:
        """Tell both sides that the gateway goes away, where the protocol has a word for it; False if it has none."""

    def cut(self) -> None:
        """End both sides at once."""


class Downstream(Protocol):
    """Where a request came from and its answer goes: an HTTP/1 connection, and what else may ask one day.

    It decides how an answer is framed and whether what carries it goes on; the gateway decides what is answered.
    """

    peer: "Peer"
    private: Owner | None  # what it owns of connections to targets, once there are any

    @property
    def is_closing(self) -> bool:
        """Whether nobody listens any more."""

    def send_interim(self, head: "ResponseHead") -> None:
        """Send a 1xx."""

    def respond(self, x: "Exchange", response: "ResponseHead", pieces: Sequence[bytes], *, complete: bool) -> None:
        """Send the final head of a target's answer and what there is of its content; `complete` if that is all."""

    def reply(self, x: "Exchange", reply: "Reply") -> None:
        """Send an answer of the gateway's own."""

    def send_body(self, x: "Exchange", pieces: Sequence[bytes]) -> None:
        """Send more content."""

    def end_body(self, trailers: bytes) -> None:
        """End the content, with a block of trailers where they can be sent."""

    def pause_body(self) -> None:
        """Read no more of the request's body until there is room where it goes."""

    def resume_body(self) -> None:
        """Read on."""

    def invite_body(self, x: "Exchange") -> None:
        """Read on; who waits for a 100 gets it."""

    def private_connections(self) -> Owner:
        """Return what owns the connections to targets that only this client may use."""

    def join(self, x: "Exchange", response: "ResponseHead", connection: "ServerConnection", idle: float) -> Tunnel:
        """Send a 101 and become a tunnel to the target, which ends when nothing has been said for `idle` seconds."""

    def finish(self) -> None:
        """End the exchange, of which everything has been sent."""

    def cut(self, *, reset: bool = False) -> None:
        """End without a clean end, so that a cut answer never looks whole."""


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_coroutine",
        "_pending",
        "_waiting",
        "attempts",
        "body",
        "body_size",
        "buffer",
        "bytes_in",
        "bytes_out",
        "client",
        "client_address",
        "connect_seconds",
        "connection",
        "continued",
        "counted",
        "counted_as",
        "fault",
        "fields",
        "finished_early",
        "first_pieces",
        "host",
        "method",
        "old",
        "place",
        "request_complete",
        "request_id",
        "request_trailers",
        "response",
        "response_started",
        "route",
        "seconds",
        "started",
        "status",
        "target",
        "target_path",
        "told_to_go",
        "tried",
        "upstream_seconds",
        "wanted",
    )

    def __init__(
        self, client: Downstream, method: bytes, target: bytes, fields: "RequestFields | None", started: float
    ) -> None:
        # What was received.
        self.client = client
        self.method = method
        self.target_path = target  # in origin form, or *
        self.fields = fields
        self.old = False  # HTTP/1.0
        self.host = b""
        self.client_address = b""
        self.request_id = b""
        self.counted_as: bytes | None = None  # for `limits.in_flight_per_client`
        # What was decided.
        self.route: Route | None = None
        self.target: Target | None = None
        self.connection: ServerConnection | None = None
        # The request body on its way: what is kept for sending (again), and what has been seen of it.
        self.body: list[bytes] | None = None
        self.body_size = 0
        self.buffer: BodyBuffer | None = None  # where chunks may become a length
        self.request_complete = True
        self.request_trailers = b""
        self.wanted = 0  # how many bytes of it, or all, are to be told as `Event.ENOUGH`
        self.place: Uploads | None = None  # taken at the target while it is incomplete
        # What came back.
        self.response: ResponseHead | None = None
        self.first_pieces: Sequence[bytes] = ()  # what came of its body with its head
        self.finished_early = False  # the whole response came with its head
        self.response_started = False  # bytes of a final response have been handed to the client
        self.continued = False  # a 100 has been forwarded
        self.told_to_go = False  # a tunnel that a drain ended
        self.fault: Fault | None = None
        # What it took.
        self.started = started  # monotonic seconds
        self.seconds = 0.0  # all of it, once it is over
        self.connect_seconds = 0.0
        self.upstream_seconds = 0.0  # from the last sending of the head to the response head
        self.attempts = 0
        self.tried: tuple[str, ...] = ()  # what became of tries that failed, in words
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.counted = False  # it is over, and in the books
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._waiting = False
        self._pending: object = None

    def __repr__(self) -> str:
        target = self.target_path[:80].decode("latin-1")
        return f"<Exchange {self.method.decode('latin-1')} {target} status={self.status} attempts={self.attempts}>"

    # -- the coroutine that tells its life ----------------------------------------------------------------------------

    def run(self, life: Coroutine[Any, Any, None]) -> None:
        """Begin: run `life` to its first wait. It deals with every exception itself, and raises none."""
        self._coroutine = life
        self._advance(None)

    @coroutine
    def event(self) -> Generator["Exchange", Any, Any]:
        """Wait for the next event. Only the coroutine given to `run` may await this, and it may await nothing else."""
        if self._pending is not None:
            event, self._pending = self._pending, None
            return event
        self._waiting = True
        return (yield self)

    def post(self, event: object) -> None:
        """Post what happened. An event for an exchange that is over is dropped.

        While the coroutine is running, the first event waits for it; a second one could only report the consequences
        of the first, and is dropped too.
        """
        if self._waiting:
            self._waiting = False
            self._advance(event)
        elif self._pending is None:
            self._pending = event

    @property
    def over(self) -> bool:
        """Whether its life has been told to the end."""
        return self._coroutine is None

    def _advance(self, event: object) -> None:
        life = self._coroutine
        if life is None:
            return
        try:
            awaited = life.send(event)
            while awaited is not self:
                awaited = life.throw(_foreign_wait(awaited))
        except StopIteration:
            self._coroutine = None

    # -- what the upstream side tells (`devhost_server.upstream.caller.Caller`) ---------------------------------------

    def interim(self, head: "ResponseHead") -> None:
        """Pass a 1xx on to a client that may be sent it."""
        fields = self.fields
        if self.old or fields is None:
            return  # RFC 9110 §15.2: not to an HTTP/1.0 client
        if head.status == 100:
            if not fields.expect_continue or self.continued:
                return  # nobody asked
            self.continued = True
        self.client.send_interim(head)

    def answered(self, head: "ResponseHead", pieces: Sequence[bytes], seconds: float, *, complete: bool) -> None:
        """Note the final head with what came of the body, and go on."""
        self.response = head
        self.upstream_seconds = seconds
        self.first_pieces = pieces
        self.finished_early = complete
        if self._waiting:  # `post`, without the call
            self._waiting = False
            self._advance(Event.RESPONSE)
        else:
            self.post(Event.RESPONSE)

    def content(self, pieces: Sequence[bytes]) -> None:
        """Pass more of the body on: the one place where content of answers goes by."""
        self.client.send_body(self, pieces)

    def pause_upload(self) -> None:
        """Let the client wait."""
        self.client.pause_body()

    def resume_upload(self) -> None:
        """Let the client send on."""
        self.client.resume_body()
        if self.buffer is not None and self.body is None:
            self.body_taken()

    def owner(self) -> Owner:
        """Return what owns the connections that this client has authenticated."""
        return self.client.private_connections()

    # -- the request body ---------------------------------------------------------------------------------------------

    def upload(self, piece: bytes) -> bool:
        """Take in a piece of the request body: send it, or keep it until there is where to.

        False asks the client connection to stop reading until `attached` has run.
        """
        self.bytes_in += len(piece)
        connection = self.connection
        if self.body is not None:
            self.body_size += len(piece)
            if connection is None or self.body_size <= REPLAY_LIMIT:
                self.body.append(piece)
            else:
                self.body = None  # too much to be sent twice
        if connection is None:
            if self.buffer is not None:
                return self._fill(self.buffer, piece)
            if self.wanted and self.body_size >= self.wanted:
                self.wanted = 0
                self.post(Event.ENOUGH)
            return self.connection is not None or self.body_size < REPLAY_LIMIT
        connection.send_body(piece)
        return True

    def _fill(self, buffer: "BodyBuffer", piece: bytes) -> bool:
        """Count a piece that is kept, and tell if it was one too many; what `upload` returns."""
        has_room = buffer.count(len(piece))
        if self.body:
            buffer.tidy(self.body)
        if self.wanted and (self.body_size >= self.wanted or not (has_room or self.body_size > buffer.most)):
            self.wanted = 0
            self.post(Event.ENOUGH)
        return self.connection is not None or (has_room and self.body_size < max(buffer.most + 1, REPLAY_LIMIT))

    def upload_complete(self, trailers: bytes) -> None:
        """Note that the request body has ended, with a block of trailers."""
        self.request_complete = True
        self.request_trailers = trailers
        self.leave_place()
        if self.connection is not None:
            self.connection.end_body(self.trailers_to_send)
        elif self.wanted:
            self.wanted = 0
            self.post(Event.ENOUGH)

    def leave_place(self) -> None:
        """Free the place of an upload, if this has one."""
        place, self.place = self.place, None
        if place is not None:
            place.leave()

    @property
    def sends_chunks(self) -> bool:
        """Whether its body goes to the target in the chunked coding: as it came, unless it was buffered."""
        fields = self.fields
        return fields is not None and fields.chunked and (self.buffer is None or self.buffer.length is None)

    def body_taken(self) -> None:
        """Note that what was kept of the body has been taken by the target, or is not needed any more."""
        if self.buffer is not None:
            self.buffer.release()
            if self.response is not None:
                self.body = None

    @property
    def trailers_to_send(self) -> bytes:
        """The trailers of the request, if its route passes them on.

        Most do not: a server that leaves them unread takes them for its next request.
        """
        return self.request_trailers if self.route is not None and self.route.trailers else b""

    def attach(
        self,
        connection: "ServerConnection",
        head: bytes,
        timeouts: "UpstreamTimeouts | None" = None,
        reasons: int = 0,
    ) -> None:
        """Send head and body, as far as it has come, on `connection`; what follows goes there directly.

        `reasons` speak against using the connection again (see `devhost_server.messages.reuse`).
        """
        connection.begin(self, head, timeouts, reasons, chunked_body=self.sends_chunks)
        self.connection = connection
        if self.body is None:
            return  # there is none
        for piece in self.body:
            connection.send_body(piece)
        if self.body_size > REPLAY_LIMIT and not self._keeps_whole:
            self.body = None
        if self.buffer is not None and not (connection.congested or self._keeps_whole):
            self.body_taken()
        if self.request_complete:
            connection.end_body(self.trailers_to_send)
        elif not connection.congested:
            self.client.resume_body()

    @property
    def _keeps_whole(self) -> bool:
        """Whether a body that was buffered is kept for another try, whatever its size."""
        return self.method in IDEMPOTENT and self.buffer is not None and self.buffer.length is not None

    @property
    def replayable(self) -> bool:
        """Whether it may be sent again although a target may have acted on it."""
        return self.method in IDEMPOTENT and (self.body is not None or not self.bytes_in)


def _foreign_wait(awaited: object) -> RuntimeError:
    """Return what a life is told that waits for what will never wake it: a future has no task here."""
    return RuntimeError(f"a request's life may wait for its own events only, not for {awaited!r}")


def internal_fault() -> Fault:
    """Return what is said of a bug of ours: nothing about it belongs on the wire."""
    return INTERNAL("The gateway met an error of its own; its log tells more under this request id.")
